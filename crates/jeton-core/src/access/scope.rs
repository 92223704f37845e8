//! A scope as people write it.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{Identity, IdentityName, NameError, Object};

/// `identities/billing`, `identities/payments.*` or `*`, before it is known whether such an identity is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScopeName {
    /// One identity.
    Identity(IdentityName),
    /// A dotted group, by its prefix: `payments.`.
    Group(Arc<str>),
    /// Everything.
    All,
}

/// Why a text is not a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// A wildcard where none can be.
    #[error(
        "{0:?} has a '*' where none can be: a dotted group ends with '.*', such as identities/payments.*, and everything is '*' alone"
    )]
    Wildcard(String),
    /// Neither an identity's name nor a group's.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl FromStr for ScopeName {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let group = text.strip_suffix(".*");
        if text == "*" {
            return Ok(Self::All);
        }
        if group.unwrap_or(text).contains('*') {
            return Err(ScopeError::Wildcard(crate::name::shorten(text)));
        }
        let name: IdentityName = group.unwrap_or(text).parse()?;
        Ok(match group {
            Some(_) => Self::Group(format!("{}.", name.id()).into()),
            None => Self::Identity(name),
        })
    }
}

impl fmt::Display for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(name) => name.fmt(f),
            Self::Group(prefix) => write!(f, "identities/{prefix}*"),
            Self::All => f.write_str("*"),
        }
    }
}

impl ScopeName {
    /// The same as something that administrators act on; `found`: the identity of this name, if there is one.
    pub fn object<'a>(&'a self, found: Option<&Identity>) -> Object<'a> {
        match self {
            Self::Identity(name) => Object::Identity(name, found.map(|i| i.uid)),
            Self::Group(prefix) => Object::Group(prefix),
            Self::All => Object::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_an_identity_a_dotted_group_or_everything_and_prints_as_it_was_written() {
        for text in ["identities/billing", "identities/payments.*", "identities/payments.eu.*", "*"] {
            assert_eq!(text.parse::<ScopeName>().unwrap().to_string(), text);
        }
        assert_eq!("identities/a.b.*".parse::<ScopeName>().unwrap(), ScopeName::Group("a.b.".into()));
    }

    #[test]
    fn a_wildcard_elsewhere_is_told_where_it_can_be() {
        for bad in [
            "identities/*",
            "identities/pay*",
            "identities/a.*.b",
            "identities/*.b",
            "**",
            "workloads/*",
            "identities/a*.*",
        ] {
            let error = bad.parse::<ScopeName>().unwrap_err();
            assert!(matches!(error, ScopeError::Wildcard(_)), "{bad}: {error}");
            assert!(error.to_string().contains("identities/payments.*"), "{error}");
        }
        for bad in ["", "billing", "identities/.*", "workloads/a.*"] {
            assert!(matches!(bad.parse::<ScopeName>().unwrap_err(), ScopeError::Name(_)), "{bad}");
        }
    }
}
