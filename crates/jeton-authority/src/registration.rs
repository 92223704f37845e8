//! What both ways of registering have in common: errors, and the registrar's token.

use http::Method;
use jeton_core::{
    Authority, Identity, Registrar, Target, TargetRequest, Uid, profile::RegistrationStyle, retry_after,
};
use jeton_lifecycle::{RegistryError, RegistryErrorClass};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    Answer, HttpError,
    calls::Operation,
    classify,
    client::Inner,
    token::{Client, Granted},
};

/// A kept token is not used when it has less than this left.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);

/// The name under which an identity's client is registered: found again after a crash, and by people.
pub(crate) fn client_name(identity: &Identity) -> String {
    format!("jeton-{}", identity.uid)
}

/// A request with a JSON body, or with none where that is null.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    pub(crate) headers: &'a [(&'static str, String)],
    pub(crate) body: &'a Value,
}

pub(crate) fn error(class: RegistryErrorClass, message: impl Into<String>) -> RegistryError {
    RegistryError { class, retry_after: None, message: message.into() }
}

/// No answer: `Unknown` if the call may have been carried out and cannot be looked up.
pub(crate) fn from_http(failure: &HttpError, unknown: bool) -> RegistryError {
    let class = match failure {
        HttpError::Interrupted { .. } if unknown => RegistryErrorClass::Unknown,
        HttpError::Interrupted { .. } | HttpError::Unreachable { .. } => RegistryErrorClass::Transient,
        HttpError::Invalid(_) => RegistryErrorClass::Permanent,
    };
    error(class, failure.to_string())
}

impl Inner {
    /// An answer that is no success, understood. `transient`: whether this status may pass by itself.
    pub(crate) fn error_of(&self, answer: &Answer, what: &str, transient: bool) -> RegistryError {
        let passes = transient || answer.status == 429 || answer.status >= 500;
        let class = if passes { RegistryErrorClass::Transient } else { RegistryErrorClass::Permanent };
        RegistryError {
            class,
            retry_after: self.retry_after(answer),
            message: format!(
                "{what}: the authority answered {}: {}",
                answer.status,
                classify::told(answer, &[])
            ),
        }
    }

    /// A call that is no token request, for an identity, or with an authority's own right. `unknown`: without an answer nobody knows
    /// whether it was carried out.
    pub(crate) async fn call(
        &self,
        authority: &Authority,
        owner: Uid,
        call: Call<'_>,
        unknown: bool,
    ) -> Result<Answer, RegistryError> {
        if let Some(left) = self.holds.left(owner, self.clock.now()) {
            let held = classify::held(left);
            return Err(RegistryError {
                class: RegistryErrorClass::Transient,
                retry_after: held.retry_after,
                message: held.message,
            });
        }
        let http = self.http(authority).map_err(|e| from_http(&e, unknown))?;
        let began = Instant::now();
        let answer = http.json(call.method, call.url, call.headers, call.body).await;
        self.calls.ended(authority.uid, Operation::Registration, began, &answer);
        let (mut answer, now) = (answer.map_err(|e| from_http(&e, unknown))?, self.clock.now());
        if !answer.json["error"].is_null() || !answer.json["error_description"].is_null() {
            // From here on nobody knows what was sent.
            let sent: Vec<_> =
                call.headers.iter().filter_map(|(_, value)| value.strip_prefix("Bearer ")).collect();
            answer.json["error"] = classify::told(&answer, &sent).into();
            answer.json["error_description"] = Value::Null;
        }
        if !answer.is_success()
            && let Some(delay) = self.retry_after(&answer)
        {
            self.holds.hold(owner, delay, now);
        }
        Ok(answer)
    }

    fn retry_after(&self, answer: &Answer) -> Option<Duration> {
        retry_after::parse(answer.header("retry-after")?, self.clock.now().wall)
    }

    /// The registrar's token for Graph.
    pub(crate) async fn registrar_token(&self, authority: &Authority) -> Result<SecretString, RegistryError> {
        self.graph_token(authority, registrar(authority)?).await
    }

    /// A client's token for Graph, kept until shortly before its end.
    pub(crate) async fn graph_token(
        &self,
        authority: &Authority,
        client: Client<'_>,
    ) -> Result<SecretString, RegistryError> {
        let turn = self.turn(client.credential.uid);
        let _held = turn.lock().await;
        let now = self.clock.now().wall;
        let kept = self
            .graph_tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&client.credential.uid)
            .cloned();
        if let Some((token, _)) = kept.filter(|(_, until)| *until > now) {
            return Ok(token);
        }
        let granted = self.new_graph_token(authority, client).await?;
        let until = now + granted.expires_in.saturating_sub(TOKEN_MARGIN);
        let mut tokens = self.graph_tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, (_, until)| *until > now);
        let token = SecretString::from(granted.access_token.expose_secret());
        tokens.insert(client.credential.uid, (token.clone(), until));
        Ok(token)
    }

    /// A token for Graph that was asked for just now, and is not kept.
    pub(crate) async fn new_graph_token(
        &self,
        authority: &Authority,
        client: Client<'_>,
    ) -> Result<Granted, RegistryError> {
        let RegistrationStyle::Graph { scope, .. } = &authority.profile.registration else {
            return Err(error(RegistryErrorClass::Permanent, "this authority has no Graph"));
        };
        let request = TargetRequest { scopes: vec![scope.clone()], resources: vec![] };
        let target = Target::resolve(&request, &authority.profile)
            .map_err(|e| error(RegistryErrorClass::Permanent, e.to_string()))?;
        self.grant(authority, client, &target, None).await.map_err(|refused| {
            use jeton_core::profile::ErrorClass;
            let class = match refused.class {
                ErrorClass::InvalidClient | ErrorClass::Permanent => RegistryErrorClass::Permanent,
                _ => RegistryErrorClass::Transient,
            };
            RegistryError {
                class,
                retry_after: refused.retry_after,
                message: format!("no token for the directory: {}", refused.message),
            }
        })
    }

    fn turn(&self, credential: Uid) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(credential).or_default())
    }

    /// The token was refused: the next call gets a new one.
    pub(crate) fn forget_graph_token(&self, credential: Uid) {
        self.graph_tokens.lock().unwrap_or_else(PoisonError::into_inner).remove(&credential);
    }
}

/// The client by which an authority's other clients are registered.
pub(crate) fn registrar(authority: &Authority) -> Result<Client<'_>, RegistryError> {
    match &authority.registrar {
        Registrar::Certificate { client_id, credential } => {
            Ok(Client { owner: authority.uid, client_id, credential })
        }
        _ => Err(error(
            RegistryErrorClass::Permanent,
            format!(
                "{} has no registrar certificate, so nothing can be registered there: attach identities, or give it one",
                authority.name
            ),
        )),
    }
}

/// The bearer header of a token.
pub(crate) fn bearer(token: &SecretString) -> (&'static str, String) {
    ("authorization", format!("Bearer {}", token.expose_secret()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{answer, scripted};

    #[tokio::test]
    async fn an_error_does_not_repeat_the_token_that_was_sent() {
        let (client, authority) =
            scripted(|request| answer(403, &format!("no right: {}", request.replace("\r\n", "; ")))).await;
        let inner = &client.0;
        let url = &authority.profile.token_endpoint;
        let headers = [bearer(&"reg+t0ken/1".to_owned().into())];
        let call = Call { method: Method::DELETE, url, headers: &headers, body: &Value::Null };
        let refused = inner.call(&authority, authority.uid, call, false).await.unwrap();
        let told = inner.error_of(&refused, "deleting", false).message;
        assert!(told.contains("authorization: Bearer [left out];") && !told.contains("t0ken"), "{told}");
    }
}
