//! The token request (RFC 6749 section 4.4 with RFC 7523), for identities, for registrars, and to verify a new key.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use jeton_core::{
    AccessToken, AssertionError, AssertionRequest, Authority, Claims, Credential, CredentialKind, Profile,
    Target, Uid, Wall,
    profile::{ErrorClass, SecretTransport, TargetStyle},
};
use jeton_lifecycle::{SecretId, SecretKind};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::{
    Answer,
    calls::Operation,
    classify::{Refusal, held, no_answer, refusal},
    client::Inner,
};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// `expires_in` is only recommended (RFC 6749 section 5.1). Without it a token is taken to live this long.
const UNSTATED_LIFETIME: Duration = Duration::from_secs(300);

/// A longer token fits into no answer beside others, and into few headers.
const MAX_TOKEN_BYTES: usize = 64 << 10;

/// A difference between clocks that makes authorities refuse assertions.
const FAR_OFF_MILLIS: i64 = 10_000;

/// Who asks, with what.
#[derive(Clone, Copy)]
pub(crate) struct Client<'a> {
    /// The identity or authority to which the credential belongs.
    pub(crate) owner: Uid,
    pub(crate) client_id: &'a Arc<str>,
    pub(crate) credential: &'a Credential,
}

/// A token, as answered.
pub(crate) struct Granted {
    pub(crate) access_token: AccessToken,
    pub(crate) token_type: Arc<str>,
    pub(crate) expires_in: Duration,
    pub(crate) refresh_in: Option<Duration>,
    pub(crate) scopes: Option<Arc<[Arc<str>]>>,
}

impl Inner {
    /// One token. A clock that differs and an assertion that was seen before are mended once, with a new assertion.
    pub(crate) async fn grant(
        &self,
        authority: &Authority,
        client: Client<'_>,
        target: &Target,
        claims: Option<&Claims>,
    ) -> Result<Granted, Refusal> {
        let before = self.skews.of(authority.uid);
        match self.grant_once(authority, client, target, claims).await {
            Err(refused)
                if refused.class == ErrorClass::Replay || self.learned(&refused, authority.uid, before) =>
            {
                self.grant_once(authority, client, target, claims).await
            }
            outcome => outcome,
        }
    }

    /// Whether the answer taught us that our clocks differ, and that explains the refusal.
    fn learned(&self, refused: &Refusal, authority: Uid, before: i64) -> bool {
        let by = (self.skews.of(authority) - before).abs();
        match refused.class {
            ErrorClass::ClockSkew => by > 0,
            // Some authorities never say that it was the time.
            ErrorClass::InvalidClient => by > FAR_OFF_MILLIS,
            _ => false,
        }
    }

    async fn grant_once(
        &self,
        authority: &Authority,
        client: Client<'_>,
        target: &Target,
        claims: Option<&Claims>,
    ) -> Result<Granted, Refusal> {
        let profile = &*authority.profile;
        let scope = scope_parameter(target, profile.target);
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(scope.as_deref().map(|scope| ("scope", scope)));
        form.extend(resource_parameter(target, profile.target));
        form.extend(claims.map(|claims| ("claims", claims.as_str())));
        let answer = self.send(authority, client, Operation::Token, &profile.token_endpoint, &form).await?;
        granted(&answer, profile, self.clock.now().wall)
    }

    /// Has a token revoked (RFC 7009 section 2.1). One that the authority does not know any more is as good as revoked.
    pub(crate) async fn revoke(
        &self,
        authority: &Authority,
        client: Client<'_>,
        endpoint: &str,
        token: &AccessToken,
    ) -> Result<(), Refusal> {
        let form = [("token", token.expose_secret()), ("token_type_hint", "access_token")];
        self.send(authority, client, Operation::Revocation, endpoint, &form).await.map(drop)
    }

    /// A form with the client's proof, and the answer if it is a 200. No form goes out inside a Retry-After.
    async fn send(
        &self,
        authority: &Authority,
        client: Client<'_>,
        operation: Operation,
        endpoint: &str,
        form: &[(&str, &str)],
    ) -> Result<Answer, Refusal> {
        if let Some(left) = self.holds.left(client.owner, self.clock.now()) {
            return Err(held(left));
        }
        let profile = &*authority.profile;
        let proof = self.proof(authority, client).await?;
        let (mut headers, mut form) = (vec![], form.to_vec());
        let mut sent: Vec<_> =
            form.iter().filter(|(name, _)| *name == "token").map(|(_, token)| *token).collect();
        sent.push(proof.text());
        let credentials;
        match &proof {
            Proof::Assertion(jwt) => {
                form.push(("client_id", client.client_id));
                form.push(("client_assertion_type", ASSERTION_TYPE));
                form.push(("client_assertion", jwt.expose_secret()));
            }
            Proof::Secret(secret) if profile.secret_transport == SecretTransport::Body => {
                form.push(("client_id", client.client_id));
                form.push(("client_secret", secret.expose_secret()));
            }
            Proof::Secret(secret) => {
                credentials = basic(client.client_id, secret.expose_secret());
                headers.push(("authorization", format!("Basic {credentials}")));
                sent.push(&credentials);
            }
        }
        let http = self.http(authority).map_err(|e| no_answer(&e))?;
        let (started, began) = (self.clock.now(), Instant::now());
        let answer = http.form(endpoint, &headers, &form).await;
        self.calls.ended(authority.uid, operation, began, &answer);
        let answer = answer.map_err(|e| no_answer(&e))?;
        let ended = self.clock.now();
        self.skews.learn(authority.uid, &answer, started, ended);
        if answer.status == 200 {
            return Ok(answer);
        }
        let refused = refusal(&answer, profile, ended.wall.shifted(self.skews.of(authority.uid)), &sent);
        if let Some(delay) = refused.retry_after {
            self.holds.hold(client.owner, delay, ended);
        }
        Err(refused)
    }

    async fn proof(&self, authority: &Authority, client: Client<'_>) -> Result<Proof, Refusal> {
        let own = |message: String| Refusal {
            class: ErrorClass::Permanent,
            retry_after: None,
            code: None,
            message,
            unusable: true,
        };
        let busy =
            |message: String| Refusal { class: ErrorClass::Transient, unusable: false, ..own(message) };
        match &client.credential.kind {
            CredentialKind::Certificate(_) => {
                let request = self
                    .assertion_request(authority, client)
                    .ok_or_else(|| own("the credential has no certificate".into()))?;
                let span = jeton_trace::current().child("assertion");
                let taken = span.clone().within(self.assertions.take(request)).await;
                if taken.is_err() {
                    span.fail("no_assertion");
                }
                taken.map(|assertion| Proof::Assertion(assertion.jwt)).map_err(|e| match e {
                    AssertionError::Busy => busy(e.to_string()),
                    _ => own(e.to_string()),
                })
            }
            CredentialKind::Secret { .. } => {
                let id = SecretId {
                    owner: client.owner,
                    subject: client.credential.uid,
                    kind: SecretKind::ClientSecret,
                };
                self.secret_text(id).await.map(Proof::Secret).map_err(own)
            }
        }
    }

    /// What an assertion for this client looks like; none if its credential is no certificate.
    pub(crate) fn assertion_request(
        &self,
        authority: &Authority,
        client: Client<'_>,
    ) -> Option<AssertionRequest> {
        let facts = client.credential.certificate()?;
        Some(AssertionRequest {
            owner: client.owner,
            credential: client.credential.uid,
            references: facts.references.clone(),
            client_id: Arc::clone(client.client_id),
            profile: Arc::new(authority.profile.assertion.clone()),
            skew_millis: self.skews.of(authority.uid),
        })
    }

    /// A sealed text.
    pub(crate) async fn secret_text(&self, id: SecretId) -> Result<SecretString, String> {
        let opened = self.store.secret(id).await.map_err(|e| e.to_string())?;
        let bytes = opened
            .ok_or_else(|| format!("the {} is not in the store; bring it along again", id.kind.as_str()))?;
        let text = std::str::from_utf8(bytes.expose_secret())
            .map_err(|_| format!("the {} is not text", id.kind.as_str()))?;
        Ok(text.to_owned().into())
    }
}

enum Proof {
    Assertion(SecretString),
    Secret(SecretString),
}

impl Proof {
    fn text(&self) -> &str {
        let (Self::Assertion(text) | Self::Secret(text)) = self;
        text.expose_secret()
    }
}

fn scope_parameter(target: &Target, style: TargetStyle) -> Option<String> {
    match style {
        TargetStyle::EntraDefault => target.resource().map(|resource| format!("{resource}/.default")),
        _ => Some(target.scopes().join(" ")).filter(|scopes| !scopes.is_empty()),
    }
}

fn resource_parameter(target: &Target, style: TargetStyle) -> Option<(&'static str, &str)> {
    let resource = target.resource()?;
    match style {
        TargetStyle::ScopeAndResource => Some(("resource", resource)),
        TargetStyle::ScopeAndAudience => Some(("audience", resource)),
        TargetStyle::EntraDefault | TargetStyle::ScopeOnly => None,
    }
}

/// Both parts form-encoded before base64 (RFC 6749 section 2.3.1).
fn basic(client_id: &str, secret: &str) -> String {
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    STANDARD.encode(format!("{}:{}", encoded(client_id), encoded(secret)))
}

fn granted(answer: &Answer, profile: &Profile, now: Wall) -> Result<Granted, Refusal> {
    let unusable = |what: &str| Refusal {
        class: ErrorClass::Transient,
        // Its words are those of no refusal, and were not cleaned of what was sent.
        code: None,
        message: format!("the authority's answer cannot be used: {what}"),
        ..refusal(answer, profile, now, &[])
    };
    let access_token = answer.text("access_token");
    if access_token.is_empty() {
        return Err(unusable("it has no access_token"));
    }
    if access_token.len() > MAX_TOKEN_BYTES {
        return Err(unusable("its access_token has more than 64 KiB"));
    }
    let token_type = answer.text("token_type");
    if !token_type.eq_ignore_ascii_case("bearer") {
        return Err(unusable("its token_type is not Bearer"));
    }
    let seconds = |member: &str| match &answer.json[member] {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    };
    let duration = |secs: f64| Duration::try_from_secs_f64(secs.clamp(0.0, 1e9)).unwrap_or_default();
    let scopes = answer.json["scope"].as_str().map(|text| text.split_whitespace().map(Arc::from).collect());
    Ok(Granted {
        access_token: access_token.to_owned().into(),
        token_type: "Bearer".into(),
        expires_in: seconds("expires_in").map_or(UNSTATED_LIFETIME, duration),
        refresh_in: seconds("refresh_in").map(duration),
        scopes,
    })
}

#[cfg(test)]
mod tests {
    use jeton_core::TargetRequest;
    use serde_json::json;

    use super::*;
    use crate::profiles::oidc;

    #[test]
    fn a_target_is_sent_as_the_profile_names_it() {
        let (resource, scopes) = ("https://orders.example", ["orders.read", "orders.write"]);
        let cases = [
            (TargetStyle::EntraDefault, vec![], Some("https://orders.example/.default"), None),
            (
                TargetStyle::ScopeAndResource,
                scopes.to_vec(),
                Some("orders.read orders.write"),
                Some("resource"),
            ),
            (
                TargetStyle::ScopeAndAudience,
                scopes.to_vec(),
                Some("orders.read orders.write"),
                Some("audience"),
            ),
            (TargetStyle::ScopeAndAudience, vec![], None, Some("audience")),
            (TargetStyle::ScopeOnly, scopes.to_vec(), Some("orders.read orders.write"), None),
        ];
        for (style, scopes, scope, parameter) in cases {
            let profile = Profile { target: style, ..oidc("https://a", "https://a/token", &json!({})) };
            let resources = if style == TargetStyle::ScopeOnly { vec![] } else { vec![resource.into()] };
            let request = TargetRequest { scopes: scopes.into_iter().map(Into::into).collect(), resources };
            let target = Target::resolve(&request, &profile).unwrap();
            assert_eq!(scope_parameter(&target, style).as_deref(), scope, "{style:?}");
            let sent = resource_parameter(&target, style);
            assert_eq!(sent, parameter.map(|name| (name, resource)), "{style:?}");
        }
    }

    #[test]
    fn an_answer_without_a_bearer_token_of_at_most_64_kib_is_unusable() {
        let profile = oidc("https://a", "https://a/token", &json!({}));
        let of = |token: usize, kind: &str| {
            let json = json!({"access_token": "t".repeat(token), "token_type": kind});
            let answer = Answer { status: 200, headers: Default::default(), json };
            granted(&answer, &profile, Wall::default()).map_err(|refusal| refusal.message)
        };
        assert_eq!(of(65_536, "bearer").unwrap().expires_in, UNSTATED_LIFETIME);
        for (token, kind, why) in [
            (0, "Bearer", "it has no access_token"),
            (1, "mac", "its token_type is not Bearer"),
            (65_537, "Bearer", "its access_token has more than 64 KiB"),
        ] {
            let message = of(token, kind).err().unwrap();
            assert_eq!(message, format!("the authority's answer cannot be used: {why}"));
        }
    }
}
