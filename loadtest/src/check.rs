//! Whether answers are right: each must be of the identity that was asked for.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jeton_proto::v1;
use prost::Message;

use crate::target::Ask;

/// Of so many tokens it is remembered whose they are.
const MOST_TOKENS: usize = 1_000_000;

/// Checks answers.
#[derive(Default)]
pub(crate) struct Checker {
    /// For each ask the last answer that was looked at in full.
    known: Vec<Vec<u8>>,
    /// By a hash of an access token the ask that it first answered.
    first: HashMap<u64, usize>,
}

impl Checker {
    /// Whether a GetTokenResponse is right for one of these asks. One that has the same bytes as the last right one is.
    pub(crate) fn right(&mut self, asks: &[Ask], index: usize, message: &[u8]) -> bool {
        if self.known.len() <= index {
            self.known.resize_with(index + 1, Vec::new);
        }
        if self.known[index] == message {
            return true;
        }
        let Some(token) = token(message) else { return false };
        let right = of_identity(&asks[index], &token) && self.of_no_other(asks, index, &token.access_token);
        if right {
            self.known[index] = message.to_vec();
        }
        right
    }

    /// The size of the largest access token that was seen, in bytes.
    pub(crate) fn token_bytes(&self) -> usize {
        self.known.iter().map(|message| token_bytes(message)).max().unwrap_or(0)
    }

    /// No two identities have the same token. This holds of those too of which nothing is known but their names.
    fn of_no_other(&mut self, asks: &[Ask], index: usize, access_token: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        access_token.hash(&mut hasher);
        let hash = hasher.finish();
        match self.first.get(&hash) {
            Some(first) => asks[*first].identity == asks[index].identity,
            None => {
                if self.first.len() < MOST_TOKENS {
                    self.first.insert(hash, index);
                }
                true
            }
        }
    }
}

/// The size of the access token in a GetTokenResponse, in bytes; 0 if there is none.
pub(crate) fn token_bytes(message: &[u8]) -> usize {
    token(message).map_or(0, |token| token.access_token.len())
}

fn token(message: &[u8]) -> Option<v1::Token> {
    v1::GetTokenResponse::decode(message).ok()?.token
}

/// It names the identity, and if it is a JWT, it names the identity's client: the one that is known, or else the one beside it.
fn of_identity(ask: &Ask, token: &v1::Token) -> bool {
    if token.identity != ask.identity || token.access_token.is_empty() {
        return false;
    }
    let claims = token.access_token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims = claims.and_then(|claims| serde_json::from_slice::<serde_json::Value>(&claims).ok());
    let named = claims
        .as_ref()
        .map(|claims| ["azp", "appid", "client_id"].iter().find_map(|name| claims.get(name)?.as_str()));
    match (&ask.client_id, named) {
        (Some(wanted), Some(named)) => named == Some(wanted),
        // An opaque token says nothing of itself.
        (Some(wanted), None) => token.client_id == *wanted,
        (None, Some(Some(named))) => token.client_id.is_empty() || token.client_id == named,
        (None, _) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{target::PATH, wire::Request};

    fn ask(identity: &str, client_id: Option<&str>) -> Ask {
        let request = Request::new(false, "localhost", PATH, b"");
        Ask { identity: identity.into(), client_id: client_id.map(Into::into), request }
    }

    fn message(identity: &str, client_id: &str, claims: &str) -> Vec<u8> {
        let access_token = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims));
        let (identity, client_id) = (identity.into(), client_id.into());
        let token = v1::Token { access_token, identity, client_id, ..Default::default() };
        v1::GetTokenResponse { token: Some(token), state: 1 }.encode_to_vec()
    }

    #[test]
    fn an_answer_for_another_identity_or_another_client_is_wrong() {
        let asks = [ask("identities/a", Some("c1"))];
        let mut checker = Checker::default();
        let good = message("identities/a", "", r#"{"azp":"c1"}"#);
        assert!(checker.right(&asks, 0, &good) && checker.right(&asks, 0, &good));
        assert!(!checker.right(&asks, 0, &message("identities/b", "", r#"{"azp":"c1"}"#)));
        assert!(!checker.right(&asks, 0, &message("identities/a", "", r#"{"azp":"c2"}"#)));
        assert!(!checker.right(&asks, 0, b""));
    }

    #[test]
    fn of_an_identity_whose_client_is_not_known_the_token_names_the_client_beside_it() {
        let asks = [ask("identities/a", None)];
        let mut checker = Checker::default();
        assert!(checker.right(&asks, 0, &message("identities/a", "c1", r#"{"azp":"c1"}"#)));
        assert!(checker.right(&asks, 0, &message("identities/a", "c1", r#"{"sub":"anything"}"#)));
        assert!(!checker.right(&asks, 0, &message("identities/a", "c1", r#"{"azp":"c2"}"#)));
    }

    #[test]
    fn a_token_answers_for_all_scopes_of_its_identity_and_for_no_other_identity() {
        let asks = ["identities/a", "identities/b", "identities/a"].map(|identity| ask(identity, None));
        let mut checker = Checker::default();
        let of = |identity| message(identity, "", r#"{"jti":"1"}"#);
        assert!(checker.right(&asks, 0, &of("identities/a")) && checker.right(&asks, 2, &of("identities/a")));
        assert!(!checker.right(&asks, 1, &of("identities/b")));
        assert!(checker.right(&asks, 1, &message("identities/b", "", r#"{"jti":"2"}"#)));
    }
}
