//! The compact form of a JWT (RFC 7519), before anything in it is believed.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny},
};

use super::shown;

/// Longest token that is looked at.
pub(crate) const MAX_TOKEN_BYTES: usize = 16 << 10;

/// A token that was taken apart. What it says is a claim of whoever sent it.
pub(crate) struct Unverified<'a> {
    pub(crate) token: &'a str,
    pub(crate) header: Header,
    /// Whose token it says it is: what the verifying keys are chosen by.
    pub(crate) issuer: Option<String>,
    pub(crate) subject: Option<String>,
}

/// What a header may choose: a key of those that the issuer published, nothing else. Keys and URLs in it (`jwk`, `jku`, `x5c`, `x5u`)
/// are not read.
#[derive(Deserialize)]
pub(crate) struct Header {
    pub(crate) alg: String,
    pub(crate) kid: Option<String>,
    pub(crate) typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

/// A claim may be of any type here: what is wrong with it is said after the signature was verified.
#[derive(Deserialize)]
struct Named {
    iss: Option<serde_json::Value>,
    sub: Option<serde_json::Value>,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart; the error says what is wrong with its form.
    pub(crate) fn parse(token: &'a str) -> Result<Self, String> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(format!(
                "the token has {} bytes, and at most {MAX_TOKEN_BYTES} are read",
                token.len()
            ));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(_signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("the token is no JWT: that has three parts with dots between them".into());
        };
        let header: Header = decoded(header, "header")?;
        let Named { iss, sub } = decoded(payload, "payload")?;
        if header.crit {
            return Err("the token's header has crit: what it wants understood is not understood".into());
        }
        let text = |claim: Option<serde_json::Value>| claim.and_then(|c| c.as_str().map(str::to_owned));
        Ok(Self { token, header, issuer: text(iss), subject: text(sub) })
    }
}

impl Header {
    /// RFC 8725 section 3.11: a JWT that was made for something else (a logout token, a DPoP proof) says so here.
    pub(crate) fn check_type(&self, expected: &[&str]) -> Result<(), String> {
        let Some(typ) = &self.typ else { return Ok(()) };
        let name = typ.strip_prefix("application/").unwrap_or(typ);
        if expected.iter().any(|e| e.eq_ignore_ascii_case(name)) {
            return Ok(());
        }
        Err(format!("the token's typ is {}, and not {}", shown(typ), expected.join(" or ")))
    }
}

fn decoded<T: DeserializeOwned>(part: &str, name: &str) -> Result<T, String> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| format!("the token's {name} is not base64url without padding (RFC 7515)"))?;
    // The error would show what stands in the token.
    serde_json::from_slice(&bytes)
        .map_err(|_| format!("the token's {name} is not the JSON object that a JWT has"))
}

/// Whatever stands there, null too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }

    fn wrong(token: &str) -> String {
        Unverified::parse(token).err().unwrap_or_default()
    }

    #[test]
    fn the_form_of_a_token_is_checked_before_anything_else() {
        let good = token(r#"{"alg":"ES256","kid":"k"}"#, r#"{"iss":"i","sub":5}"#);
        let parsed = Unverified::parse(&good).ok().unwrap();
        assert_eq!((parsed.issuer.as_deref(), parsed.subject), (Some("i"), None));
        for (bad, part) in [
            (String::new(), "three parts"),
            ("a.b".into(), "three parts"),
            (format!("{good}.more.parts"), "three parts"),
            (format!("{}a", "a".repeat(MAX_TOKEN_BYTES)), "at most 16384"),
            (good.replace("eyJ", "ey+"), "base64url"),
            (good.replacen('.', "=.", 1), "base64url"),
            (token("[]", "{}"), "header"),
            (token(r#"{"kid":"k"}"#, "{}"), "header"),
            (token(r#"{"alg":"ES256","alg":"none"}"#, "{}"), "header"),
            (token(r#"{"alg":"ES256"}"#, r#"{"iss":"a","iss":"b"}"#), "payload"),
            (token(r#"{"alg":"ES256"}"#, "\"text\""), "payload"),
            (token(r#"{"alg":"ES256","crit":["b64"]}"#, "{}"), "crit"),
            (token(r#"{"alg":"ES256","crit":null}"#, "{}"), "crit"),
            (token(r#"{"alg":"ES256"}"#, &format!("{}{}", "[".repeat(5_000), "]".repeat(5_000))), "payload"),
        ] {
            assert!(wrong(&bad).contains(part), "{part:?} in {:?}", wrong(&bad));
        }
    }

    #[test]
    fn a_jwt_that_was_made_for_something_else_says_so_in_its_type() {
        let of = |typ: Option<&str>| Header {
            alg: "ES256".into(),
            kid: None,
            typ: typ.map(Into::into),
            crit: false,
        };
        for good in [None, Some("JWT"), Some("jwt"), Some("at+jwt"), Some("application/at+jwt")] {
            assert_eq!(of(good).check_type(&["JWT", "at+jwt"]), Ok(()));
        }
        for bad in ["dpop+jwt", "logout+jwt", ""] {
            assert!(of(Some(bad)).check_type(&["JWT", "at+jwt"]).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_or_repeat_it(text in "(?s).{0,200}") {
            prop_assert!(wrong(&text).len() < 120);
        }

        #[test]
        fn neither_do_parts_that_are_almost_right(
            header in r#"\{"alg":"[A-Z]{0,6}","(kid|typ|crit|jwk)":("[a-z]{0,9}"|\[\]|null|-?[0-9]{1,30}(e[0-9]{1,4})?)\}?"#,
            payload in r#"\{("(iss|sub|aud|exp|nbf)":("[^"\\]{0,9}"|\[\]|null|-?[0-9]{1,30}(e[0-9]{1,4})?),?){0,4}\}"#,
            signature in "[A-Za-z0-9_=-]{0,90}",
        ) {
            let text = format!("{}.{}.{signature}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
            prop_assert!(wrong(&text).len() < 120);
        }
    }
}
