//! Names of stored resources: `identities/billing`, `workloads/checkout`, `authorities/contoso`.
//!
//! A name is for people and may be deleted and made again; see [`crate::Uid`] for what binds. Names are compared byte by byte
//! after this one parser accepted them, so no two spellings of one name exist. Dots group names
//! (`identities/payments.refunds`), which role assignments can use (`identities/payments.*`).

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest id behind the collection's prefix, in bytes.
pub const MAX_ID_BYTES: usize = 63;

/// Why a text is not a resource name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The collection prefix is missing or another one.
    #[error(
        "{text:?} is not a name of {collection}: expected \"{collection}/ID\", such as {collection}/billing"
    )]
    Collection {
        /// What the name should start with.
        collection: &'static str,
        /// The text, cut short.
        text: String,
    },
    /// The id has a character or a form that names do not have.
    #[error(
        "{text:?} is not a valid id: use 1 to 63 lower-case letters, digits, '-' and '.', starting with a letter and ending with a \
         letter or digit, no two dots in a row"
    )]
    Id {
        /// The text, cut short.
        text: String,
    },
}

/// Checks the part behind the `/`.
pub(crate) fn check_id(id: &str) -> Result<(), NameError> {
    let bytes = id.as_bytes();
    let allowed = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    let ends_well = bytes.last().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let starts_well = bytes.first().is_some_and(u8::is_ascii_lowercase);
    let fits = bytes.len() <= MAX_ID_BYTES && bytes.iter().all(allowed) && !id.contains("..");
    if starts_well && ends_well && fits { Ok(()) } else { Err(NameError::Id { text: shorten(id) }) }
}

pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

macro_rules! resource_name {
    ($(#[$doc:meta])* $type:ident, $collection:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// The collection, without the slash.
            pub const COLLECTION: &'static str = $collection;

            /// From the id alone, without the collection.
            pub fn from_id(id: &str) -> Result<Self, NameError> {
                check_id(id)?;
                Ok(Self(format!("{}/{id}", $collection).into()))
            }

            /// The whole name.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The part behind the collection.
            pub fn id(&self) -> &str {
                &self.0[$collection.len() + 1..]
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let id = text.strip_prefix(concat!($collection, "/")).ok_or_else(|| NameError::Collection {
                    collection: $collection,
                    text: shorten(text),
                })?;
                check_id(id)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

resource_name!(
    /// `identities/ID`: a managed identity.
    IdentityName, "identities"
);
resource_name!(
    /// `workloads/ID`: a registered service.
    WorkloadName, "workloads"
);
resource_name!(
    /// `authorities/ID`: an OAuth 2.0 authorization server.
    AuthorityName, "authorities"
);
resource_name!(
    /// `roleAssignments/ID`: who may use which identity for what.
    AssignmentName, "roleAssignments"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        for bad in [
            "billing",
            "identities/",
            "identities/Billing",
            "identities/billing/",
            "identities//billing",
            "identities/-a",
            "identities/a-",
            "identities/a..b",
            "identities/1a",
            "identities/bill ing",
            "workloads/billing",
            "identities/b\u{e4}r",
        ] {
            assert!(bad.parse::<IdentityName>().is_err(), "{bad}");
        }
        let name: IdentityName = "identities/payments.refunds-2".parse().unwrap();
        assert_eq!((name.as_str(), name.id()), ("identities/payments.refunds-2", "payments.refunds-2"));
    }

    #[test]
    fn an_error_names_the_collection_and_never_echoes_an_endless_text() {
        let error = "x".repeat(10_000).parse::<WorkloadName>().unwrap_err().to_string();
        assert!(error.contains("workloads/") && error.len() < 300, "{error}");
    }

    proptest! {
        #[test]
        fn what_parses_prints_the_same(id in "[a-z][a-z0-9.-]{0,70}") {
            if let Ok(name) = IdentityName::from_id(&id) {
                prop_assert_eq!(name.to_string().parse::<IdentityName>().unwrap(), name);
            }
        }
    }
}
