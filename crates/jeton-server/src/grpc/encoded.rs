//! A token as it is handed out: the message is encoded once, when the token is put in its slot, and all callers share the bytes.

use aws_lc_rs::digest::{Digest, SHA256, digest};
use bytes::Bytes;
use jeton_core::{AccessToken, Token, TokenHash};
use jeton_engine::Encoded;
use jeton_proto::v1;
use prost::Message;
use secrecy::ExposeSecret;

use super::convert::timestamp;
use crate::door::Answer;

/// The flag and the length before a gRPC message.
pub(super) const PREFIX: usize = 5;

/// The wire bytes of a fresh token's GetTokenResponse, framed as a gRPC message: the engine keeps them beside the token. Only the last
/// byte changes in the token's life.
pub fn encode_token(token: &Token) -> Encoded {
    let (hash, issued) = (TokenHash::new(sha256(token).as_ref()), &token.issued);
    let token = v1::Token {
        access_token: issued.access_token.expose_secret().to_owned(),
        token_type: issued.token_type.to_string(),
        expires_at: Some(timestamp(token.expires_at)),
        refresh_at: Some(timestamp(token.refresh_at)),
        issued_at: Some(timestamp(token.issued_at)),
        identity: issued.identity.to_string(),
        client_id: issued.client_id.to_string(),
        scopes: issued.scopes.iter().map(ToString::to_string).collect(),
    };
    let response = v1::GetTokenResponse { token: Some(token), state: v1::TokenState::Fresh.into() };
    let length = response.encoded_len();
    let mut framed = Vec::with_capacity(PREFIX + length);
    framed.push(0);
    // A token has kilobytes; what an authority may answer is bounded.
    framed.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // It fails where there is no more room, and a vector grows.
    let _ = response.encode(&mut framed);
    let bytes = Bytes::from(framed);
    let access_token = text_in(&response, &bytes).unwrap_or_else(|| issued.access_token.clone());
    Encoded { bytes, access_token, hash }
}

/// Where the token's text stands among its wire bytes: it is the first field of the first field, each behind a tag of one byte and its
/// length.
fn text_in(response: &v1::GetTokenResponse, bytes: &Bytes) -> Option<AccessToken> {
    let token = response.token.as_ref()?;
    let length = token.access_token.len();
    let behind = |length| 1 + prost::length_delimiter_len(length);
    let start = PREFIX + behind(token.encoded_len()) + behind(length);
    AccessToken::within(bytes, start..start + length)
}

/// By which a caller names a token that was refused, and the audit log each.
pub(super) fn sha256(token: &Token) -> Digest {
    digest(&SHA256, token.issued.access_token.expose_secret().as_bytes())
}

/// The same bytes for the token when it is stale: the state is the last field, and one byte.
pub(super) fn stale(fresh: &Bytes) -> Answer {
    Answer::ending(fresh.clone(), v1::TokenState::Stale as u8)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jeton_core::{Clock, IssuedToken, SystemClock};

    use super::*;

    #[test]
    fn the_text_of_a_token_is_kept_once_among_its_wire_bytes() {
        // Lengths whose own lengths take one, two and three bytes.
        for length in [1, 90, 300, 1_600, 20_000] {
            let issued = IssuedToken {
                access_token: "t".repeat(length).into(),
                token_type: "Bearer".into(),
                expires_in: Duration::from_secs(3_600),
                refresh_in: None,
                scopes: ["vault".into()].into(),
                identity: "identities/billing".parse().unwrap(),
                client_id: "c".into(),
            };
            let token = Token::new(issued, SystemClock.now(), Duration::from_secs(1_800));
            let encoded = encode_token(&token);
            let text = encoded.access_token.expose_secret();
            assert_eq!(text, token.issued.access_token.expose_secret());
            assert!(encoded.bytes.as_ptr_range().contains(&text.as_ptr()), "{length} bytes are kept twice");
            let answer = v1::GetTokenResponse::decode(&encoded.bytes[PREFIX..]).unwrap();
            assert_eq!(answer.token.unwrap().access_token, text);
        }
    }
}
