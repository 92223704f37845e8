//! What an error answer means, by status, body and the authority's own rules together.
//!
//! What cannot be read is transient: an empty 403 and an unexpected 500 are no reason to give a client up.

use std::{sync::Arc, time::Duration};

use jeton_core::{
    Profile, Wall,
    profile::{ErrorClass, ErrorRule},
    retry_after,
};

use crate::{Answer, HttpError, words};

/// A refusal, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) class: ErrorClass,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) code: Option<Arc<str>>,
    /// In words, without secrets.
    pub(crate) message: String,
    /// Our own credential cannot be used; nothing was sent.
    pub(crate) unusable: bool,
}

/// Understands an answer that is no success. `sent`: the secrets of the request, which the answer may repeat.
pub(crate) fn refusal(answer: &Answer, profile: &Profile, now: Wall, sent: &[&str]) -> Refusal {
    let retry_after = answer.header("retry-after").and_then(|value| retry_after::parse(value, now));
    let number = answer.json["error_codes"].as_array().and_then(|codes| codes.first()?.as_i64());
    let code = number
        .map(|n| format!("AADSTS{n}"))
        .or_else(|| Some(answer.text("error").to_owned()))
        .filter(|c| !c.is_empty());
    let class = profile
        .error_rules
        .iter()
        .find(|rule| applies(rule, answer, number))
        .map_or_else(|| general(answer), |r| r.class);
    let told = told(answer, sent);
    Refusal {
        class,
        retry_after,
        code: code.map(|c| words::cleaned(&c, sent).into()),
        message: format!("the authority answered {}: {told}{}", answer.status, advice(class)),
        unusable: false,
    }
}

/// The reason that an answer gives, in words without secrets.
pub(crate) fn told(answer: &Answer, sent: &[&str]) -> String {
    let graph = answer.json["error"]["message"].as_str().unwrap_or_default();
    let reasons = [graph, answer.text("error_description"), answer.text("error")];
    let reason = reasons.into_iter().find(|reason| !reason.is_empty());
    reason.map_or_else(|| "no reason was given".to_owned(), |reason| words::cleaned(reason, sent))
}

/// Understands the absence of an answer.
pub(crate) fn no_answer(error: &HttpError) -> Refusal {
    let class =
        if matches!(error, HttpError::Invalid(_)) { ErrorClass::Permanent } else { ErrorClass::Transient };
    Refusal { class, retry_after: None, code: None, message: error.to_string(), unusable: false }
}

/// Nothing was sent, because an answer before told to wait.
pub(crate) fn held(left: Duration) -> Refusal {
    let message = format!("the authority told this client to wait {} s more", left.as_secs() + 1);
    Refusal { class: ErrorClass::Transient, retry_after: Some(left), code: None, message, unusable: false }
}

fn applies(rule: &ErrorRule, answer: &Answer, number: Option<i64>) -> bool {
    let codes =
        || answer.json["error_codes"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_i64);
    rule.status.is_none_or(|status| status == answer.status)
        && rule.error.as_ref().is_none_or(|error| error == answer.text("error"))
        && rule.code.is_none_or(|code| number == Some(code) || codes().any(|c| c == code))
        && rule.contains.as_ref().is_none_or(|part| answer.text("error_description").contains(part.as_str()))
}

fn general(answer: &Answer) -> ErrorClass {
    match (answer.status, answer.text("error")) {
        (429, _) => ErrorClass::Throttled,
        (408 | 500.., _) | (_, "temporarily_unavailable" | "server_error" | "slow_down") => {
            ErrorClass::Transient
        }
        (_, "invalid_client") => ErrorClass::InvalidClient,
        (
            _,
            "invalid_request"
            | "invalid_grant"
            | "unauthorized_client"
            | "unsupported_grant_type"
            | "invalid_scope"
            | "invalid_target"
            | "invalid_resource"
            | "access_denied",
        ) => ErrorClass::Permanent,
        _ => ErrorClass::Transient,
    }
}

fn advice(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::InvalidClient | ErrorClass::KeyUnknown => {
            "; if it stays so, rotate the credential or attach the identity anew"
        }
        ErrorClass::ClockSkew => "; check the clocks of this machine and of the authority",
        ErrorClass::Permanent => "; change the request, or what is registered at the authority",
        ErrorClass::Transient | ErrorClass::Throttled | ErrorClass::Replay => "",
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::{Value, json};

    use super::*;
    use crate::profiles::{Shape, rules};

    fn answer(status: u16, json: Value) -> Answer {
        Answer { status, headers: HeaderMap::new(), json }
    }

    fn class_with(shape: Shape, status: u16, json: Value) -> ErrorClass {
        let answer = answer(status, json);
        let rules = rules(shape);
        rules
            .iter()
            .find(|rule| applies(rule, &answer, answer.json["error_codes"][0].as_i64()))
            .map_or_else(|| general(&answer), |r| r.class)
    }

    #[test]
    fn the_codes_of_entra_are_understood() {
        let class = |status, code: i64, error: &str| {
            class_with(Shape::Entra, status, json!({"error": error, "error_codes": [code]}))
        };
        assert_eq!(class(401, 700_027, "invalid_client"), ErrorClass::KeyUnknown);
        assert_eq!(class(400, 700_016, "unauthorized_client"), ErrorClass::KeyUnknown);
        assert_eq!(class(401, 700_024, "invalid_client"), ErrorClass::ClockSkew);
        assert_eq!(class(401, 7_000_215, "invalid_client"), ErrorClass::InvalidClient);
        assert_eq!(class(400, 500_011, "invalid_resource"), ErrorClass::Permanent);
        assert_eq!(class(429, 90_055, ""), ErrorClass::Throttled);
        assert_eq!(class(400, 90_033, "temporarily_unavailable"), ErrorClass::Transient);
    }

    #[test]
    fn the_answers_of_real_servers_are_understood() {
        let described = |error: &str, text: &str| json!({"error": error, "error_description": text});
        let cases = [
            (
                Shape::Oidc,
                401,
                described("invalid_client", "client authentication failed"),
                ErrorClass::InvalidClient,
            ),
            (Shape::Oidc, 400, described("invalid_client", "Token reuse detected"), ErrorClass::Replay),
            (
                Shape::Oidc,
                400,
                described("invalid_client", "Unable to load public key"),
                ErrorClass::KeyUnknown,
            ),
            (Shape::Oidc, 400, described("invalid_client", "Token is not active"), ErrorClass::ClockSkew),
            (Shape::Oidc, 400, described("jti_known", "The jti was already used."), ErrorClass::Replay),
            (
                Shape::Oidc,
                400,
                described(
                    "invalid_request",
                    "The JSON Web Token uses signing key with kid 'a', which could not be found.",
                ),
                ErrorClass::KeyUnknown,
            ),
            (Shape::Oidc, 500, described("error", "The error is unrecognizable"), ErrorClass::ClockSkew),
            (Shape::Oidc, 403, Value::Null, ErrorClass::Transient),
            (Shape::Oidc, 500, Value::Null, ErrorClass::Transient),
            (
                Shape::Oidc,
                400,
                described("invalid_scope", "requested scope is not allowed"),
                ErrorClass::Permanent,
            ),
        ];
        for (shape, status, body, expected) in cases {
            assert_eq!(class_with(shape, status, body.clone()), expected, "{status} {body}");
        }
    }

    #[test]
    fn neither_message_nor_code_repeats_the_secret_of_the_request() {
        let profile = crate::profiles::oidc("https://a", "https://a/token", &json!({}));
        let echo = json!({"error": "no s3cr3t/x", "error_description": "not s3cr3t/x nor s3cr3t%2fx"});
        let refused = refusal(&answer(401, echo), &profile, Wall::from_millis(0), &["s3cr3t/x"]);
        assert_eq!(refused.code.as_deref(), Some("no [left out]"));
        assert_eq!(refused.message, "the authority answered 401: not [left out] nor [left out]");
        let graph = answer(400, json!({"error": {"message": "no right has t0ken"}}));
        assert_eq!(told(&graph, &["t0ken"]), "no right has [left out]");
    }
}
