//! A token in the words of the endpoints.

use jeton_core::Now;
use jeton_engine::Hit;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::asked::{Asked, By};

/// The answer of Azure's endpoints: every value a text, because some clients take nothing else, and all members, because each is missed
/// by somebody. What was asked by is repeated: clients of Arc refuse an answer that does not say that it is the identity they named.
pub(super) fn azure(asked: &Asked, hit: &Hit, now: Now) -> Value {
    let token = &hit.token;
    // Both are computed for each answer: a client that keeps the answer must not count from the past.
    let left = token.remaining(now).as_secs();
    let (from, until) = (token.issued_at.as_secs(), now.wall.as_secs() + i64::try_from(left).unwrap_or(0));
    let mut body = Map::from_iter([
        ("access_token".to_owned(), json!(token.issued.access_token.expose_secret())),
        ("client_id".to_owned(), json!(token.issued.client_id)),
        ("expires_in".to_owned(), json!(left.to_string())),
        ("expires_on".to_owned(), json!(until.to_string())),
        ("ext_expires_in".to_owned(), json!(left.to_string())),
        ("not_before".to_owned(), json!(from.to_string())),
        ("resource".to_owned(), json!(asked.resource)),
        ("token_type".to_owned(), json!(token.issued.token_type)),
    ]);
    if let Some(selector) = &asked.selector {
        let usual = match selector.by {
            By::Client => "client_id",
            By::Object => "object_id",
            By::Resource => "msi_res_id",
        };
        body.insert(usual.to_owned(), json!(selector.value));
        body.insert(selector.parameter.to_owned(), json!(selector.value));
    }
    Value::Object(body)
}

/// The answer of Compute Engine: the seconds are a number there.
pub(super) fn google(hit: &Hit, now: Now) -> Value {
    let token = &hit.token;
    json!({
        "access_token": token.issued.access_token.expose_secret(),
        "expires_in": token.remaining(now).as_secs(),
        "token_type": token.issued.token_type,
    })
}
