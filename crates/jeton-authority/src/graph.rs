//! Registration at Microsoft Graph v1.0. Every call finds what an earlier try left: applications by `uniqueName`, keys by their
//! certificate's thumbprint. The first key is set by the registrar, and so is one after a key that lapsed or does not open; all
//! others the identity adds and removes itself, with proof of possession.

use http::Method;
use jeton_core::{Authority, Credential, Identity, ProofRequest, Registrar, Registration};
use jeton_lifecycle::{Registered, RegistryError, RegistryErrorClass, SecretId, SecretKind, StoreError};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::{
    Answer,
    client::Inner,
    registration::{Call, bearer, client_name, error},
    token::Client,
};

/// The audience of a proof of possession.
const PROOF_AUDIENCE: &str = "00000002-0000-0000-c000-000000000000";

impl Inner {
    pub(crate) async fn graph_register(
        &self,
        base: &str,
        authority: &Authority,
        identity: &Identity,
        credential: &Credential,
    ) -> Result<Registered, RegistryError> {
        // Before anything is asked for, the right to ask.
        self.registrar_token(authority).await.map_err(|refused| match refused.class {
            RegistryErrorClass::Permanent => {
                RegistryError { class: RegistryErrorClass::Unauthorized, ..refused }
            }
            _ => refused,
        })?;
        let application = self.upsert(base, authority, identity).await?;
        let (id, app_id) = (
            application["id"].as_str().unwrap_or_default(),
            application["appId"].as_str().unwrap_or_default(),
        );
        let service_principal = self.service_principal(base, authority, app_id).await?;
        if !has_key(&application, credential) {
            self.set_only_key(base, authority, id, credential).await?;
        }
        Ok(Registered {
            client_id: Some(app_id.into()),
            registration: Some(Registration {
                object_id: Some(id.into()),
                service_principal_id: Some(service_principal.into()),
                ..Registration::default()
            }),
            remote_key_id: Some(credential.uid.to_string().into()),
            registration_access_token: None,
        })
    }

    /// Replaces whatever keys there are by this one, with the registrar's right.
    async fn set_only_key(
        &self,
        base: &str,
        authority: &Authority,
        object_id: &str,
        credential: &Credential,
    ) -> Result<(), RegistryError> {
        let body = json!({"keyCredentials": [key_credential(credential)?]});
        let url = format!("{base}/applications/{object_id}");
        let answer = self.as_registrar(authority, Method::PATCH, &url, &body).await?;
        match answer.status {
            200 | 204 => Ok(()),
            status => Err(self.error_of(&answer, "setting the key", status == 404)),
        }
    }

    /// Whether the identity can still prove itself: its certificate is valid and its private key opens.
    async fn can_prove(&self, identity: &Identity) -> bool {
        let Some(current) = identity.current() else { return false };
        let id = SecretId { owner: identity.uid, subject: current.uid, kind: SecretKind::PrivateKey };
        let lapsed = current.expires_at().is_some_and(|at| at <= self.clock.now().wall);
        // A store that does not answer says nothing of the key.
        !lapsed && !matches!(self.store.secret(id).await, Ok(None) | Err(StoreError::Sealed(_)))
    }

    /// The application, made if it is not there. A 404 after that is replication.
    async fn upsert(
        &self,
        base: &str,
        authority: &Authority,
        identity: &Identity,
    ) -> Result<Value, RegistryError> {
        let url = format!("{base}/applications(uniqueName='{}')", client_name(identity));
        let body = json!({"displayName": display_name(identity)});
        let token = self.registrar_token(authority).await?;
        let headers = [bearer(&token), ("prefer", "create-if-missing".to_owned())];
        let call = Call { method: Method::PATCH, url: &url, headers: &headers, body: &body };
        let answer = self.call(authority, authority.uid, call, false).await?;
        self.heed(authority, &answer);
        if !matches!(answer.status, 200 | 201 | 204) {
            return Err(self.error_of(&answer, "registering the application", answer.status == 401));
        }
        let answer = self.as_registrar(authority, Method::GET, &url, &Value::Null).await?;
        if answer.status == 200 {
            Ok(answer.json)
        } else {
            Err(self.error_of(&answer, "reading the application back", answer.status == 404))
        }
    }

    async fn service_principal(
        &self,
        base: &str,
        authority: &Authority,
        app_id: &str,
    ) -> Result<String, RegistryError> {
        let url = format!("{base}/servicePrincipals(appId='{app_id}')");
        let id = |answer: &Answer| answer.text("id").to_owned();
        let found = self.as_registrar(authority, Method::GET, &url, &Value::Null).await?;
        if found.status == 200 {
            return Ok(id(&found));
        }
        let made = self
            .as_registrar(
                authority,
                Method::POST,
                &format!("{base}/servicePrincipals"),
                &json!({"appId": app_id}),
            )
            .await?;
        match made.status {
            201 => Ok(id(&made)),
            // Made by an earlier try, or the application has not spread yet: both show at the next try.
            status => {
                Err(self.error_of(&made, "making the service principal", matches!(status, 400 | 404 | 409)))
            }
        }
    }

    pub(crate) async fn graph_add_key(
        &self,
        base: &str,
        authority: &Authority,
        identity: &Identity,
        credential: &Credential,
    ) -> Result<Registered, RegistryError> {
        let id = object_id(identity)?;
        let mut proves = self.can_prove(identity).await;
        if matches!(authority.registrar, Registrar::Certificate { .. }) {
            let url = format!("{base}/applications/{id}?$select=id,keyCredentials");
            let found = self.as_registrar(authority, Method::GET, &url, &Value::Null).await?;
            if found.status == 200 && has_key(&found.json, credential) {
                return Ok(Registered {
                    remote_key_id: remote_id(&found.json, credential),
                    ..Registered::default()
                });
            }
            // It was replaced there by one that is not known here: this registry is older, from a backup.
            proves &= found.status != 200 || identity.current().is_some_and(|c| has_key(&found.json, c));
        }
        if !proves {
            self.set_only_key(base, authority, id, credential).await?;
            let remote_key_id = Some(credential.uid.to_string().into());
            return Ok(Registered { remote_key_id, ..Registered::default() });
        }
        let body = json!({"keyCredential": key_credential(credential)?, "passwordCredential": null});
        let answer = self.as_identity(base, authority, identity, "addKey", body).await?;
        match answer.status {
            200 => {
                Ok(Registered { remote_key_id: Some(answer.text("keyId").into()), ..Registered::default() })
            }
            _ => Err(self.error_of(&answer, "adding the new key", matches!(answer.status, 401 | 404))),
        }
    }

    pub(crate) async fn graph_remove_key(
        &self,
        base: &str,
        authority: &Authority,
        identity: &Identity,
        credential: &Credential,
    ) -> Result<Registered, RegistryError> {
        let Some(key_id) = &credential.remote_id else { return Ok(Registered::default()) };
        let answer =
            self.as_identity(base, authority, identity, "removeKey", json!({"keyId": &**key_id})).await?;
        match answer.status {
            204 => Ok(Registered::default()),
            400 if answer.text("error").contains("No credentials found") => Ok(Registered::default()),
            _ => Err(self.error_of(&answer, "removing the old key", matches!(answer.status, 401 | 404))),
        }
    }

    pub(crate) async fn graph_delete(
        &self,
        base: &str,
        authority: &Authority,
        identity: &Identity,
    ) -> Result<(), RegistryError> {
        let id = match identity.registration.as_ref().and_then(|r| r.object_id.as_deref()) {
            Some(id) => id.to_owned(),
            None if !identity.is_in_doubt() => return Ok(()),
            // The answer to its registration was lost: the upsert tells its id, whether it was there or not.
            None => {
                self.upsert(base, authority, identity).await?["id"].as_str().unwrap_or_default().to_owned()
            }
        };
        let answer = self
            .as_registrar(authority, Method::DELETE, &format!("{base}/applications/{id}"), &Value::Null)
            .await?;
        match answer.status {
            204 => Ok(()),
            404 => self.confirm_gone(base, authority, identity).await,
            _ => Err(self.error_of(&answer, "deleting the application", answer.status == 401)),
        }
    }

    /// A 404 may be replication. An update by unique name, which makes nothing, tells.
    async fn confirm_gone(
        &self,
        base: &str,
        authority: &Authority,
        identity: &Identity,
    ) -> Result<(), RegistryError> {
        let url = format!("{base}/applications(uniqueName='{}')", client_name(identity));
        let body = json!({"displayName": display_name(identity)});
        let answer = self.as_registrar(authority, Method::PATCH, &url, &body).await?;
        match answer.status {
            404 => Ok(()),
            _ => Err(self.error_of(&answer, "deleting the application", true)),
        }
    }

    async fn as_registrar(
        &self,
        authority: &Authority,
        method: Method,
        url: &str,
        body: &Value,
    ) -> Result<Answer, RegistryError> {
        let token = self.registrar_token(authority).await?;
        let call = Call { method, url, headers: &[bearer(&token)], body };
        let answer = self.call(authority, authority.uid, call, false).await?;
        self.heed(authority, &answer);
        Ok(answer)
    }

    /// A call that the identity makes for itself: its own token, and a proof by its current key.
    async fn as_identity(
        &self,
        base: &str,
        authority: &Authority,
        identity: &Identity,
        action: &str,
        mut body: Value,
    ) -> Result<Answer, RegistryError> {
        let missing = || {
            error(
                RegistryErrorClass::Permanent,
                "the identity has no current certificate to prove itself with",
            )
        };
        let (current, client_id) = identity.current().zip(identity.client_id.as_ref()).ok_or_else(missing)?;
        let facts = current.certificate().ok_or_else(missing)?;
        let id = object_id(identity)?;
        let proof = self.assertions.proof(ProofRequest {
            owner: identity.uid,
            credential: current.uid,
            references: facts.references.clone(),
            issuer: id.into(),
            audience: PROOF_AUDIENCE.into(),
            skew_millis: self.skews.of(authority.uid),
        });
        let proof: SecretString =
            proof.await.map_err(|e| error(RegistryErrorClass::Permanent, e.to_string()))?;
        body["proof"] = secrecy::ExposeSecret::expose_secret(&proof).into();
        let token = self
            .graph_token(authority, Client { owner: identity.uid, client_id, credential: current })
            .await?;
        let url = format!("{base}/applications/{id}/{action}");
        let call = Call { method: Method::POST, url: &url, headers: &[bearer(&token)], body: &body };
        let answer = self.call(authority, identity.uid, call, false).await?;
        if answer.status == 401 {
            self.forget_graph_token(current.uid);
        }
        Ok(answer)
    }

    fn heed(&self, authority: &Authority, answer: &Answer) {
        if let (401, Registrar::Certificate { credential, .. }) = (answer.status, &authority.registrar) {
            self.forget_graph_token(credential.uid);
        }
    }
}

fn object_id(identity: &Identity) -> Result<&str, RegistryError> {
    identity.registration.as_ref().and_then(|r| r.object_id.as_deref()).ok_or_else(|| {
        error(
            RegistryErrorClass::Permanent,
            "the object id of the application is not known: an attached identity's keys are changed where it was made",
        )
    })
}

fn display_name(identity: &Identity) -> String {
    if identity.display_name.is_empty() { identity.name.to_string() } else { identity.display_name.clone() }
}

fn key_credential(credential: &Credential) -> Result<Value, RegistryError> {
    let facts = credential
        .certificate()
        .ok_or_else(|| error(RegistryErrorClass::Permanent, "the credential has no certificate"))?;
    Ok(json!({
        "keyId": credential.uid.to_string(), "type": "AsymmetricX509Cert", "usage": "Verify", "key": &*facts.certificate,
        "displayName": format!("jeton {}", credential.uid),
    }))
}

/// Graph shows the thumbprint in one of two alphabets, and the certificate itself where it was selected.
fn same_key(entry: &Value, credential: &Credential) -> bool {
    let Some(facts) = credential.certificate() else { return false };
    let thumbprint = entry["customKeyIdentifier"].as_str().unwrap_or_default();
    thumbprint.trim_end_matches('=').replace('+', "-").replace('/', "_") == *facts.references.x5t
        || entry["key"].as_str() == Some(&facts.certificate)
}

fn has_key(application: &Value, credential: &Credential) -> bool {
    application["keyCredentials"].as_array().is_some_and(|keys| keys.iter().any(|k| same_key(k, credential)))
}

fn remote_id(application: &Value, credential: &Credential) -> Option<std::sync::Arc<str>> {
    let keys = application["keyCredentials"].as_array()?;
    keys.iter().find(|k| same_key(k, credential))?["keyId"].as_str().map(Into::into)
}
