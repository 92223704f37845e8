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

/// Everything that makes two tokens different, in one piece of memory: a hit reads it, and each further piece may be far away.
///
/// The numbers of scopes and resources, then identity, claims, scopes and resources, each behind its length.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key(Arc<[u8]>);

const LENGTH: usize = size_of::<u32>();

impl Asked<'_> {
    fn scopes(&self) -> &[&str] {
        match &self.target.scopes {
            Scopes::One(scope) => slice::from_ref(scope),
            Scopes::Several(scopes) => scopes,
        }
    }

    fn counts(&self) -> [usize; 2] {
        [self.scopes().len(), self.target.resources.len()]
    }

    /// In the order of a key.
    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let named = self.scopes().iter().chain(self.target.resources);
        [self.identity, self.target.claims].into_iter().chain(named.copied()).map(str::as_bytes)
    }
}

impl From<Asked<'_>> for Key {
    fn from(asked: Asked<'_>) -> Self {
        // Longer ones are refused by any broker.
        let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes: Vec<u8> = asked.counts().into_iter().flat_map(length).collect();
        for text in asked.texts() {
            bytes.extend(length(text.len()));
            bytes.extend(text);
        }
        Self(bytes.into())
    }
}

impl Key {
    pub(crate) fn request(&self) -> v1::GetTokenRequest {
        let mut texts = self.texts().map(|text| String::from_utf8_lossy(text).into_owned());
        let (identity, claims) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
        let scopes = texts.by_ref().take(self.counts()[0]).collect();
        v1::GetTokenRequest { identity, scopes, resources: texts.collect(), claims, min_validity: None }
    }

    pub(crate) fn report(&self, token_sha256: Vec<u8>) -> v1::ReportRejectedTokenRequest {
        let v1::GetTokenRequest { identity, scopes, resources, claims, .. } = self.request();
        v1::ReportRejectedTokenRequest { identity, scopes, resources, claims, token_sha256 }
    }

    fn counts(&self) -> [usize; 2] {
        let mut rest = &*self.0;
        [length(&mut rest), length(&mut rest)]
    }

    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[2 * LENGTH..];
        std::iter::from_fn(move || {
            let length = (!rest.is_empty()).then(|| length(&mut rest))?;
            let (text, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(text)
        })
    }
}

/// Takes off a length.
fn length(rest: &mut &[u8]) -> usize {
    let Some((bytes, after)) = rest.split_first_chunk::<LENGTH>() else { return 0 };
    *rest = after;
    u32::from_le_bytes(*bytes) as usize
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.texts().for_each(|text| put(state, text));
    }
}

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        put(state, self.identity.as_bytes());
        put(state, self.target.claims.as_bytes());
        self.scopes().iter().for_each(|scope| put(state, scope.as_bytes()));
        self.target.resources.iter().for_each(|resource| put(state, resource.as_bytes()));
    }
}

/// Where one part ends and the next begins is left to equality: a hit pays for every write.
fn put(state: &mut impl Hasher, text: &[u8]) {
    if !text.is_empty() {
        state.write(text);
    }
}

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        let mut rest = &*key.0;
        let [scopes, resources] = self.counts();
        length(&mut rest) == scopes
            && length(&mut rest) == resources
            && begins(&mut rest, self.identity)
            && begins(&mut rest, self.target.claims)
            && self.scopes().iter().all(|scope| begins(&mut rest, scope))
            && self.target.resources.iter().all(|resource| begins(&mut rest, resource))
    }
}

/// Takes off a text behind its length, if it is this one.
fn begins(rest: &mut &[u8], text: &str) -> bool {
    if length(rest) != text.len() {
        return false;
    }
    let Some((own, after)) = rest.split_at_checked(text.len()) else { return false };
    *rest = after;
    // Nothing is compared with nothing: the C library's comparison of no bytes at no place takes the processor 100 ns (AVX-512).
    text.is_empty() || own == text.as_bytes()
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
