//! Dynamic registration and its management (RFC 7591, RFC 7592).
//!
//! What comes back is never what was sent, so every PUT is a whole document of our own making. The registration access token is
//! replaced at each PUT and cannot be had again, so it goes back to the caller, who writes it down first. Where that failed once,
//! a client that refuses the token is one that nobody manages any more.

use http::Method;
use jeton_core::{
    Authority, Credential, Identity, Profile, Registrar, Registration, profile::RegistrationStyle,
};
use jeton_lifecycle::{Registered, RegistryError, RegistryErrorClass, SecretId, SecretKind, StoreError};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::{
    Answer,
    client::Inner,
    registration::{Call, bearer, client_name, error},
};

impl Inner {
    pub(crate) async fn dynamic_register(
        &self,
        endpoint: &str,
        authority: &Authority,
        identity: &Identity,
        credential: &Credential,
    ) -> Result<Registered, RegistryError> {
        let token = self.initial_token(authority).await?;
        let body = document(authority, identity, &[credential])?;
        let headers: Vec<_> = token.iter().map(bearer).collect();
        let call = Call { method: Method::POST, url: endpoint, headers: &headers, body: &body };
        let answer = self.call(authority, authority.uid, call, true).await?;
        match answer.status {
            200 | 201 => {}
            401 | 403 => {
                return Err(self.error_of(
                    &answer,
                    "registering: the initial access token is not accepted",
                    false,
                ));
            }
            429 | 503 => return Err(self.error_of(&answer, "registering", true)),
            500.. => {
                return Err(RegistryError {
                    class: RegistryErrorClass::Unknown,
                    ..self.error_of(&answer, "registering", true)
                });
            }
            _ => return Err(self.error_of(&answer, "registering", false)),
        }
        let client_id = answer.text("client_id");
        if client_id.is_empty() {
            return Err(error(RegistryErrorClass::Unknown, "registering: the answer has no client_id"));
        }
        Ok(Registered {
            client_id: Some(client_id.into()),
            registration: Some(Registration {
                client_uri: Some(answer.text("registration_client_uri").into()),
                ..Registration::default()
            }),
            remote_key_id: None,
            registration_access_token: rotated(&answer),
        })
    }

    /// Puts exactly these keys into the registration.
    pub(crate) async fn dynamic_put_keys(
        &self,
        authority: &Authority,
        identity: &Identity,
        keys: &[&Credential],
    ) -> Result<Registered, RegistryError> {
        let url = client_uri(identity).ok_or_else(|| {
            let told = "the registration cannot be changed, because the authority gave no registration_client_uri; the key in use stays \
                valid. Delete the identity and create it anew before its certificate ends";
            error(RegistryErrorClass::Permanent, told)
        })?;
        let token = self.access_token(identity).await?;
        let mut body = document(authority, identity, keys)?;
        body["client_id"] = identity.registered_client().map_or("", |id| id).into();
        let call = Call { method: Method::PUT, url, headers: &[bearer(&token)], body: &body };
        let answer = self.call(authority, identity.uid, call, true).await?;
        match answer.status {
            200 => Ok(Registered { registration_access_token: rotated(&answer), ..Registered::default() }),
            401 if identity.is_in_doubt() => Err(unmanageable()),
            401 => Err(error(
                RegistryErrorClass::Permanent,
                "the registration access token is not accepted any more, so the registration cannot be changed; the key in use stays valid. \
                 Delete the identity and create it anew before its certificate ends",
            )),
            503 | 400..=499 => Err(self.error_of(&answer, "changing the registration", false)),
            _ => Err(RegistryError {
                class: RegistryErrorClass::Unknown,
                ..self.error_of(&answer, "changing the registration", true)
            }),
        }
    }

    pub(crate) async fn dynamic_delete(
        &self,
        authority: &Authority,
        identity: &Identity,
    ) -> Result<(), RegistryError> {
        if identity.client_id.is_none() {
            // Never registered, or listed as a suspected orphan.
            return Ok(());
        }
        let url = client_uri(identity).ok_or_else(unmanageable)?;
        let token = self.access_token(identity).await?;
        let call = Call { method: Method::DELETE, url, headers: &[bearer(&token)], body: &Value::Null };
        let answer = self.call(authority, identity.uid, call, false).await?;
        match answer.status {
            401 if identity.is_in_doubt() => Err(unmanageable()),
            // A client that is gone answers 401 (RFC 7592 section 2.3).
            200 | 204 | 401 | 404 => Ok(()),
            _ => Err(self.error_of(&answer, "deleting the registration", false)),
        }
    }

    async fn initial_token(&self, authority: &Authority) -> Result<Option<SecretString>, RegistryError> {
        match &authority.registrar {
            Registrar::InitialAccessToken { credential } => {
                let id = SecretId {
                    owner: authority.uid,
                    subject: *credential,
                    kind: SecretKind::InitialAccessToken,
                };
                self.secret_text(id).await.map(Some).map_err(|e| error(RegistryErrorClass::Permanent, e))
            }
            _ => Ok(None),
        }
    }

    async fn access_token(&self, identity: &Identity) -> Result<SecretString, RegistryError> {
        let (owner, kind) = (identity.uid, SecretKind::RegistrationAccessToken);
        match self.store.secret(SecretId { owner, subject: owner, kind }).await {
            Ok(Some(token)) => {
                String::from_utf8(token.expose_secret().to_vec()).map(Into::into).map_err(|_| unmanageable())
            }
            Ok(None) => Err(unmanageable()),
            Err(StoreError::Sealed(told)) => Err(error(RegistryErrorClass::Unmanageable, told)),
            // A store that does not answer says nothing of the token.
            Err(e) => Err(error(RegistryErrorClass::Transient, e.to_string())),
        }
    }
}

fn client_uri(identity: &Identity) -> Option<&str> {
    identity.registration.as_ref()?.client_uri.as_deref().filter(|uri| !uri.is_empty())
}

fn unmanageable() -> RegistryError {
    error(
        RegistryErrorClass::Unmanageable,
        "the registration access token is lost, so the client cannot be changed or removed",
    )
}

fn rotated(answer: &Answer) -> Option<SecretString> {
    Some(answer.text("registration_access_token")).filter(|t| !t.is_empty()).map(|t| t.to_owned().into())
}

/// The client's metadata (RFC 7591 section 2), whole, with what this authority wants otherwise.
fn document(
    authority: &Authority,
    identity: &Identity,
    keys: &[&Credential],
) -> Result<Value, RegistryError> {
    let profile = &*authority.profile;
    let algorithm = profile.assertion.algorithm.as_str();
    let jwk = |credential: &&Credential| {
        let mut jwk: Value = serde_json::from_str(&credential.certificate()?.jwk).ok()?;
        jwk["alg"] = algorithm.into();
        Some(jwk)
    };
    let keys: Option<Vec<Value>> = keys.iter().map(jwk).collect();
    let keys =
        keys.ok_or_else(|| error(RegistryErrorClass::Permanent, "the credential has no public key"))?;
    Ok(metadata(profile, &client_name(identity), keys))
}

fn metadata(profile: &Profile, client_name: &str, keys: Vec<Value>) -> Value {
    let mut body = json!({
        "client_name": client_name,
        "grant_types": ["client_credentials"],
        "response_types": [],
        "redirect_uris": [],
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": profile.assertion.algorithm.as_str(),
        "jwks": {"keys": keys},
    });
    if let (RegistrationStyle::Dynamic { scope, metadata, .. }, Some(members)) =
        (&profile.registration, body.as_object_mut())
    {
        members.extend(scope.as_ref().map(|scope| ("scope".to_owned(), scope.as_str().into())));
        members.extend(metadata.clone());
        members.retain(|_, value| !value.is_null());
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profiles::{oidc, overridden};

    #[test]
    fn a_registration_sends_what_the_profile_wants_and_leaves_out_what_it_does_not() {
        let document = json!({"registration_endpoint": "https://a/reg", "scopes_supported": ["orders.read"]});
        let ready = oidc("https://a", "https://a/token", &document);
        let usual = metadata(&ready, "jeton-1", vec![]);
        assert_eq!((&usual["redirect_uris"], &usual["scope"]), (&json!([]), &json!("orders.read")));
        let overrides =
            json!({"registration": {"metadata": {"redirect_uris": null, "audience": ["https://b"]}}});
        let sent = metadata(&overridden(&ready, &overrides).unwrap(), "jeton-1", vec![]);
        assert!(sent.get("redirect_uris").is_none(), "{sent}");
        assert_eq!(sent["audience"], json!(["https://b"]));
        assert_eq!(sent["grant_types"], usual["grant_types"], "the rest is as it was");
    }
}
