//! What a request asks for, in every spelling that clients have.

use url::form_urlencoded;

use super::refusal::Refusal;

/// Longest value of a parameter, in bytes.
const MAX_VALUE: usize = 2_048;
/// Client capabilities in one request.
const MAX_CAPABILITIES: usize = 16;

/// A request's parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// The API, as it was asked: the answer repeats it.
    pub(super) resource: String,
    pub(super) selector: Option<Selector>,
    /// SHA-256 of a token that a resource refused.
    pub(super) refused: Option<Vec<u8>>,
    /// What the client can make of an answer (`xms_cc`).
    pub(super) capabilities: Vec<String>,
}

/// How a user-assigned identity is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) by: By,
    /// The parameter's name, as it was asked.
    pub(super) parameter: &'static str,
    pub(super) value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Client,
    Object,
    Resource,
}

const SELECTORS: [(&str, By); 9] = [
    ("client_id", By::Client),
    ("clientid", By::Client),
    ("object_id", By::Object),
    ("principal_id", By::Object),
    ("principalId", By::Object),
    ("mi_res_id", By::Resource),
    ("msi_res_id", By::Resource),
    ("msi-res-id", By::Resource),
    ("resource_id", By::Resource),
];

impl Asked {
    /// Reads a query or a form. What is empty is not there, what is unknown is nobody's business, and the order means nothing.
    pub(super) fn parse(parameters: &[u8]) -> Result<Self, Refusal> {
        let (mut resource, mut selector, mut refused, mut capabilities) = (None, None, None, vec![]);
        for (name, value) in form_urlencoded::parse(parameters).filter(|(_, value)| !value.is_empty()) {
            if value.len() > MAX_VALUE {
                let shown: String = name.chars().take(40).collect();
                return Err(Refusal::invalid(format!("{shown} has more than {MAX_VALUE} bytes")));
            }
            match name.as_ref() {
                "resource" if resource.is_some() => return Err(twice("resource")),
                "resource" => resource = Some(value.into_owned()),
                "token_sha256_to_refresh" => refused = Some(digest(&value)?),
                "xms_cc" => capabilities = named(&value)?,
                name => {
                    let Some((parameter, by)) = SELECTORS.iter().find(|(known, _)| *known == name) else {
                        continue;
                    };
                    if let Some(Selector { parameter: first, .. }) = selector {
                        let text = format!("{first} and {parameter} both name an identity: name it once");
                        return Err(Refusal::invalid(text));
                    }
                    selector = Some(Selector { by: *by, parameter, value: value.into_owned() });
                }
            }
        }
        let Some(resource) = resource else {
            return Err(Refusal::invalid(
                "the parameter resource is missing: it says which API the token is for, such as resource=https://vault.azure.net",
            ));
        };
        Ok(Self { resource, selector, refused, capabilities })
    }

    /// The claims request by which an authority hears of the capabilities.
    pub(super) fn claims(&self) -> String {
        if self.capabilities.is_empty() {
            return String::new();
        }
        serde_json::json!({"access_token": {"xms_cc": {"values": self.capabilities}}}).to_string()
    }
}

fn twice(name: &str) -> Refusal {
    Refusal::invalid(format!("the parameter {name} is there twice"))
}

/// 64 hex digits.
fn digest(text: &str) -> Result<Vec<u8>, Refusal> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let bytes: Option<Vec<u8>> =
        text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect();
    bytes.filter(|bytes| bytes.len() == 32).ok_or_else(|| {
        Refusal::invalid("token_sha256_to_refresh is not the SHA-256 of a token: 64 hexadecimal digits")
    })
}

fn named(text: &str) -> Result<Vec<String>, Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let names: Vec<_> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.len() > MAX_CAPABILITIES
        || names.iter().any(|name| name.len() > 64 || !name.chars().all(allowed))
    {
        return Err(Refusal::invalid("xms_cc is not a list of client capabilities such as CP1"));
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Asked, String> {
        Asked::parse(query.as_bytes()).map_err(|refusal| refusal.message)
    }

    #[test]
    fn parameters_are_read_in_any_order_and_spelling() {
        for query in [
            "api-version=2018-02-01&resource=https://vault.azure.net",
            "resource=https%3A%2F%2Fvault.azure.net&api%2Dversion=1",
            "unknown=1&resource=https://vault.azure.net&client_id=",
            "clientid=&resource=https%3a//vault.azure.net",
        ] {
            let asked = parse(query).unwrap();
            assert_eq!(
                (asked.resource.as_str(), asked.selector),
                ("https://vault.azure.net", None),
                "{query}"
            );
        }
    }

    #[test]
    fn an_identity_is_named_in_nine_ways_and_once() {
        for (name, by) in SELECTORS {
            let selector = parse(&format!("{name}=X&resource=r")).unwrap().selector.unwrap();
            assert_eq!((selector.by, selector.parameter, selector.value.as_str()), (by, name, "X"));
        }
        let text = parse("client_id=a&resource=r&object_id=b").unwrap_err();
        assert!(text.contains("client_id") && text.contains("object_id"), "{text}");
        assert!(parse("client_id=a&resource=r&client_id=a").is_err());
        assert!(parse("client_id=a&resource=r&object_id=").is_ok(), "empty is absent");
    }

    #[test]
    fn what_is_missing_or_twice_is_named() {
        assert!(parse("client_id=a").unwrap_err().contains("resource"));
        assert!(parse("resource=").unwrap_err().contains("resource"));
        assert!(parse("resource=a&resource=b").unwrap_err().contains("twice"));
        assert!(parse(&format!("resource={}", "a".repeat(MAX_VALUE + 1))).is_err());
    }

    #[test]
    fn a_claims_challenge_is_a_digest_and_capabilities() {
        let digest = "0F".repeat(32);
        let asked = parse(&format!("resource=r&token_sha256_to_refresh={digest}&xms_cc=CP1%2CCP2")).unwrap();
        assert_eq!(asked.refused.as_deref(), Some(&[0x0f; 32][..]));
        assert_eq!(asked.claims(), r#"{"access_token":{"xms_cc":{"values":["CP1","CP2"]}}}"#);
        assert_eq!(parse("resource=r").unwrap().claims(), "");
        for bad in ["token_sha256_to_refresh=12", "token_sha256_to_refresh=zz", "xms_cc=a%22b"] {
            assert!(parse(&format!("resource=r&{bad}")).is_err(), "{bad}");
        }
        assert!(parse(&format!("resource=r&token_sha256_to_refresh={}", "g".repeat(64))).is_err());
    }
}
