//! Whom a verified token is about, as a principal. Two subjects never have the same one.

use std::fmt::Write;

use jeton_core::{Principal, principal::MAX_PRINCIPAL_BYTES};
use serde_json::Value;

use super::{claims::Claims, shown};
use crate::spiffe::spiffe_id;

/// What kind of issuer it is, with what its principals begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subjects {
    /// Service accounts of a cluster (KEP-1205): `k8s://{cluster}/{namespace}/{service account}`.
    Kubernetes { cluster: String, require_pod: bool },
    /// JWT-SVIDs: the SPIFFE ID itself, in one trust domain.
    Spiffe { trust_domain: String },
    /// OpenID Connect: `oidc://{name or URL of the issuer}/{subject}`.
    Oidc { name: String },
}

/// What a Kubernetes token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bound {
    /// `system:serviceaccount:{namespace}:{name}`
    pub(crate) username: String,
    pub(crate) service_account_uid: String,
    pub(crate) pod_uid: Option<String>,
}

impl Subjects {
    /// The types (header `typ`) of the tokens that callers have from such an issuer.
    pub(crate) fn token_types(&self) -> &'static [&'static str] {
        match self {
            Self::Kubernetes { .. } => &["JWT"],
            // JWT-SVID, section 2.3.
            Self::Spiffe { .. } => &["JWT", "JOSE"],
            Self::Oidc { .. } => &["JWT", "at+jwt"],
        }
    }

    /// The principal, and what a Kubernetes token is bound to.
    pub(crate) fn principal(&self, claims: &Claims) -> Result<(Principal, Option<Bound>), String> {
        let subject = claims.text("sub")?;
        let (text, bound) = match self {
            Self::Kubernetes { cluster, require_pod } => {
                let (namespace, name) = service_account(subject)?;
                let bound = bound(claims, namespace, name)?;
                if *require_pod && bound.pod_uid.is_none() {
                    return Err(
                        "the token is bound to no pod, and the configuration wants one that is".into()
                    );
                }
                (format!("k8s://{cluster}/{namespace}/{name}"), Some(bound))
            }
            Self::Spiffe { trust_domain } => {
                let id = spiffe_id(subject, trust_domain).map_err(|why| format!("the token's sub {why}"))?;
                (id.to_owned(), None)
            }
            Self::Oidc { name } => (format!("oidc://{name}/{}", segment(subject)), None),
        };
        let principal = text.parse().map_err(|_| {
            format!(
                "the token's sub {} makes no principal of at most {MAX_PRINCIPAL_BYTES} bytes",
                shown(subject)
            )
        })?;
        Ok((principal, bound))
    }
}

/// Namespace and name, both as Kubernetes makes names (RFC 1123), so that no other name looks the same.
fn service_account(subject: &str) -> Result<(&str, &str), String> {
    let names = subject.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label = |text: &str| (1..=63).contains(&text.len()) && text.bytes().all(fits);
    names
        .filter(|(namespace, name)| label(namespace) && name.len() <= 253 && name.split('.').all(label))
        .ok_or_else(|| format!("the token's sub {} is no service account of Kubernetes", shown(subject)))
}

/// The private claims say the same as the subject, and which very account it is: a name that is made again has another uid.
fn bound(claims: &Claims, namespace: &str, name: &str) -> Result<Bound, String> {
    let said = claims.0.get("kubernetes.io").unwrap_or(&Value::Null);
    let account = &said["serviceaccount"];
    if said["namespace"] != namespace || account["name"] != name {
        return Err("the token's kubernetes.io claim does not name the service account of its sub".into());
    }
    let uid = |object: &Value, what: &str| match object["uid"].as_str() {
        Some(uid) if !uid.is_empty() => Ok(uid.to_owned()),
        _ => Err(format!("the token's kubernetes.io claim has no uid of the {what}")),
    };
    let pod_uid = said.get("pod").map(|pod| uid(pod, "pod")).transpose()?;
    let service_account_uid = uid(account, "service account")?;
    Ok(Bound { username: format!("system:serviceaccount:{namespace}:{name}"), service_account_uid, pod_uid })
}

/// One path segment (RFC 3986 section 3.3) for each text, and another one for every other: what a segment cannot hold, and what
/// principals give a meaning to, is percent-encoded byte for byte.
fn segment(subject: &str) -> String {
    let mut out = String::with_capacity(subject.len());
    let dots = matches!(subject, "." | "..");
    for byte in subject.bytes() {
        let as_is =
            byte.is_ascii_alphanumeric() || (b"-_~!$&'()+,;=:@".contains(&byte)) || (byte == b'.' && !dots);
        if as_is {
            out.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        Claims(value.as_object().unwrap().clone())
    }

    fn principal(subjects: &Subjects, value: Value) -> Result<String, String> {
        subjects.principal(&claims(value)).map(|(principal, _)| principal.to_string())
    }

    fn oidc(subject: &str) -> Result<String, String> {
        principal(&Subjects::Oidc { name: "https://issuer.example/t".into() }, json!({ "sub": subject }))
    }

    fn pod_token() -> Value {
        json!({"sub": "system:serviceaccount:payments:api.v2", "kubernetes.io": {
            "namespace": "payments", "serviceaccount": {"name": "api.v2", "uid": "sa-uid"}, "pod": {"name": "api-0", "uid": "pod-uid"},
        }})
    }

    #[test]
    fn a_service_account_is_named_by_cluster_namespace_and_name_and_known_by_its_uids() {
        let east = Subjects::Kubernetes { cluster: "east".into(), require_pod: true };
        let (principal, bound) = east.principal(&claims(pod_token())).unwrap();
        assert_eq!(principal.as_str(), "k8s://east/payments/api.v2");
        let bound = bound.unwrap();
        assert_eq!(bound.username, "system:serviceaccount:payments:api.v2");
        assert_eq!((&*bound.service_account_uid, bound.pod_uid.as_deref()), ("sa-uid", Some("pod-uid")));
    }

    #[test]
    fn claims_of_kubernetes_that_do_not_agree_are_refused() {
        let [any, with_pod] =
            [false, true].map(|require_pod| Subjects::Kubernetes { cluster: "east".into(), require_pod });
        let changed = |change: fn(&mut Value)| {
            let mut token = pod_token();
            change(&mut token);
            principal(&any, token)
        };
        for change in [
            (|t| t["sub"] = "system:serviceaccount:payments:other".into()) as fn(&mut Value),
            |t| t["sub"] = "system:serviceaccount:payments:api.v2:x".into(),
            |t| t["sub"] = "system:serviceaccount:Payments:api.v2".into(),
            |t| t["sub"] = "system:serviceaccount:payments:..".into(),
            |t| t["sub"] = "system:node:payments".into(),
            |t| t["kubernetes.io"]["namespace"] = "kube-system".into(),
            |t| t["kubernetes.io"]["serviceaccount"]["uid"] = "".into(),
            |t| t["kubernetes.io"]["pod"] = json!({"name": "api-0"}),
            |t| t["kubernetes.io"] = Value::Null,
        ] {
            assert!(changed(change).is_err());
        }
        let mut unbound = pod_token();
        unbound["kubernetes.io"].as_object_mut().unwrap().remove("pod");
        assert!(principal(&any, unbound.clone()).is_ok());
        assert!(principal(&with_pod, unbound).unwrap_err().contains("bound to no pod"));
    }

    #[test]
    fn a_spiffe_id_is_its_own_principal_in_one_trust_domain() {
        let prod = Subjects::Spiffe { trust_domain: "prod.example".into() };
        let of = |subject: &str| principal(&prod, json!({ "sub": subject }));
        assert_eq!(of("spiffe://prod.example/ns/pay/sa/api").unwrap(), "spiffe://prod.example/ns/pay/sa/api");
        for bad in [
            "spiffe://other.example/ns/pay",
            "spiffe://prod.example.evil/ns",
            "spiffe://Prod.example/ns",
            "spiffe://prod.example",
            "spiffe://prod.example/",
            "spiffe://prod.example/a//b",
            "spiffe://prod.example/a/../b",
            "spiffe://prod.example/a%2fb",
            "spiffe://prod.example/a/",
            "spiffe://prod.example:443/a",
            "SPIFFE://prod.example/a",
            "prod.example/a",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn subjects_with_odd_characters_become_one_segment() {
        for (subject, text) in [
            ("user-1", "user-1"),
            ("auth0|5f7c", "auth0%7C5f7c"),
            ("a/b", "a%2Fb"),
            ("a%2Fb", "a%252Fb"),
            ("..", "%2E%2E"),
            ("a..b", "a..b"),
            ("*", "%2A"),
            ("repo:org/app:ref:refs/heads/main", "repo:org%2Fapp:ref:refs%2Fheads%2Fmain"),
            ("\u{e9}", "%C3%A9"),
            ("e\u{301}", "e%CC%81"),
            (" ", "%20"),
            ("a\0", "a%00"),
        ] {
            assert_eq!(oidc(subject).unwrap(), format!("oidc://https://issuer.example/t/{text}"));
        }
        assert!(oidc("").is_err() && oidc(&"a".repeat(3_000)).is_err());
    }

    proptest! {
        #[test]
        fn look_alike_subjects_never_meet(a in "[aA/%2Ff.*|\u{e9}\u{430} :]{1,6}", b in "[aA/%2Ff.*|\u{e9}\u{430} :]{1,6}") {
            let (one, other) = (oidc(&a).unwrap(), oidc(&b).unwrap());
            prop_assert_eq!(a == b, one == other);
            prop_assert_eq!(one.matches('/').count(), "oidc://https://issuer.example/t/".matches('/').count());
        }
    }
}
