//! What a token is for, and the key under which it is kept.

use std::{
    hash::{Hash, Hasher},
    slice,
    sync::Arc,
};

use jeton_proto::v1;
use papaya::Equivalent;

/// What a token is for: scopes, and what else distinguishes it.
///
/// One scope is a target by itself, and so is a list of scopes:
///
/// ```
/// use jeton_client::Target;
///
/// let one: Target<'_> = "https://vault.example/.default".into();
/// let several: Target<'_> = (&["orders.read", "orders.write"]).into();
/// let audience = Target::scopes(&["read"]).with_resources(&["https://orders.example"]);
/// # let _ = (one, several, audience);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    scopes: Scopes<'a>,
    resources: &'a [&'a str],
    claims: &'a str,
}

#[derive(Clone, Copy, Debug)]
enum Scopes<'a> {
    One(&'a str),
    Several(&'a [&'a str]),
}

impl<'a> Target<'a> {
    /// Scopes, spelled as at the authority (RFC 6749 section 3.3); at most 32.
    pub const fn scopes(scopes: &'a [&'a str]) -> Self {
        Self { scopes: Scopes::Several(scopes), resources: &[], claims: "" }
    }

    /// Resource indicators (RFC 8707), where the authority takes them.
    pub const fn with_resources(self, resources: &'a [&'a str]) -> Self {
        Self { resources, ..self }
    }

    /// The claims of a challenge, or a claims request: a JSON object of at most 4096 bytes.
    pub const fn with_claims(self, claims: &'a str) -> Self {
        Self { claims, ..self }
    }
}

impl<'a> From<&'a str> for Target<'a> {
    fn from(scope: &'a str) -> Self {
        Self { scopes: Scopes::One(scope), resources: &[], claims: "" }
    }
}

impl<'a> From<&'a String> for Target<'a> {
    fn from(scope: &'a String) -> Self {
        scope.as_str().into()
    }
}

impl<'a> From<&'a [&'a str]> for Target<'a> {
    fn from(scopes: &'a [&'a str]) -> Self {
        Self::scopes(scopes)
    }
}

impl<'a, const N: usize> From<&'a [&'a str; N]> for Target<'a> {
    fn from(scopes: &'a [&'a str; N]) -> Self {
        Self::scopes(scopes)
    }
}

/// What a caller asks for: a [`Key`] that nobody had to make.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) identity: &'a str,
    pub(crate) target: Target<'a>,
}

/// Everything that makes two tokens different.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    identity: Box<str>,
    scopes: Box<[Box<str>]>,
    resources: Box<[Box<str>]>,
    claims: Box<str>,
}

impl Asked<'_> {
    fn scopes(&self) -> &[&str] {
        match &self.target.scopes {
            Scopes::One(scope) => slice::from_ref(scope),
            Scopes::Several(scopes) => scopes,
        }
    }
}

impl From<Asked<'_>> for Key {
    fn from(asked: Asked<'_>) -> Self {
        let owned = |texts: &[&str]| texts.iter().map(|text| Box::from(*text)).collect();
        Self(Arc::new(Parts {
            identity: asked.identity.into(),
            scopes: owned(asked.scopes()),
            resources: owned(asked.target.resources),
            claims: asked.target.claims.into(),
        }))
    }
}

impl Key {
    pub(crate) fn request(&self) -> v1::GetTokenRequest {
        v1::GetTokenRequest {
            identity: self.0.identity.to_string(),
            scopes: texts(&self.0.scopes),
            resources: texts(&self.0.resources),
            claims: self.0.claims.to_string(),
            min_validity: None,
        }
    }

    pub(crate) fn report(&self, token_sha256: Vec<u8>) -> v1::ReportRejectedTokenRequest {
        v1::ReportRejectedTokenRequest {
            identity: self.0.identity.to_string(),
            scopes: texts(&self.0.scopes),
            resources: texts(&self.0.resources),
            claims: self.0.claims.to_string(),
            token_sha256,
        }
    }
}

fn texts(texts: &[Box<str>]) -> Vec<String> {
    texts.iter().map(|text| text.to_string()).collect()
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Parts { identity, scopes, resources, claims } = &*self.0;
        let named = scopes.iter().chain(resources).map(|text| &**text);
        hash_parts(state, identity, named, claims);
    }
}

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let named = self.scopes().iter().chain(self.target.resources).copied();
        hash_parts(state, self.identity, named, self.target.claims);
    }
}

/// Where one part ends and the next begins is left to equality: a hit pays for every write.
fn hash_parts<'a, H: Hasher>(
    state: &mut H,
    identity: &str,
    named: impl Iterator<Item = &'a str>,
    claims: &str,
) {
    state.write(identity.as_bytes());
    named.for_each(|text| state.write(text.as_bytes()));
    if !claims.is_empty() {
        state.write(claims.as_bytes());
    }
}

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        let same = |ours: &[&str], theirs: &[Box<str>]| {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| *a == &**b)
        };
        let Parts { identity, scopes, resources, claims } = &*key.0;
        *self.identity == **identity
            && same(self.scopes(), scopes)
            && same(self.target.resources, resources)
            && *self.target.claims == **claims
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use foldhash::fast::FixedState;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few letters, so that parts which run together come up.
        #[test]
        fn two_askings_share_a_key_exactly_when_every_part_is_the_same(
            a in ("[ab]{0,2}", prop::collection::vec("[ab]{0,2}", 0..3), prop::collection::vec("[ab]{0,2}", 0..3), "[ab]{0,1}"),
            b in ("[ab]{0,2}", prop::collection::vec("[ab]{0,2}", 0..3), prop::collection::vec("[ab]{0,2}", 0..3), "[ab]{0,1}"),
        ) {
            let slices = |(_, scopes, resources, _): &(String, Vec<String>, Vec<String>, String)| {
                let borrowed = |texts: &[String]| texts.iter().map(|t| t.clone().leak() as &str).collect::<Vec<_>>();
                (borrowed(scopes), borrowed(resources))
            };
            let ((scopes_a, resources_a), (scopes_b, resources_b)) = (slices(&a), slices(&b));
            let asked_a = Asked { identity: &a.0, target: Target::scopes(&scopes_a).with_resources(&resources_a).with_claims(&a.3) };
            let asked_b = Asked { identity: &b.0, target: Target::scopes(&scopes_b).with_resources(&resources_b).with_claims(&b.3) };
            let (key_a, key_b) = (Key::from(asked_a), Key::from(asked_b));
            prop_assert_eq!(asked_a.equivalent(&key_b), a == b);
            prop_assert_eq!(key_a == key_b, a == b);
            let hash = FixedState::default();
            prop_assert_eq!(hash.hash_one(asked_a), hash.hash_one(&key_a));
        }
    }

    #[test]
    fn one_scope_and_a_list_of_one_are_one_key() {
        let (one, list) =
            (Asked { identity: "i", target: "s".into() }, Asked { identity: "i", target: (&["s"]).into() });
        assert!(one.equivalent(&Key::from(list)));
        let hash = FixedState::default();
        assert_eq!(hash.hash_one(one), hash.hash_one(list));
    }
}
