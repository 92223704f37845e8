//! Taking over clients that exist.

use std::sync::Arc;

use jeton_core::{Credential, CredentialKind, CredentialState, Identity, IdentityKind, OperationKind, Wall};
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use crate::{
    CreateIdentity, Lifecycle, LifecycleError, SecretId, SecretKind, Write,
    registry::{Repeated, fingerprint},
};

/// No secret or token that an authority gives out is longer.
const MAX_SECRET_BYTES: usize = 8 * 1024;

/// An identity that exists already.
pub struct AttachIdentity {
    /// As for one that is created.
    pub create: CreateIdentity,
    /// Its client id.
    pub client_id: String,
    /// Its credential.
    pub material: AttachMaterial,
}

/// The credential of an identity that exists already.
pub enum AttachMaterial {
    /// A certificate and its key, PEM.
    Certificate {
        /// Public.
        certificate_pem: String,
        /// Secret.
        private_key_pem: SecretString,
    },
    /// A client secret.
    Secret {
        /// Secret.
        secret: SecretString,
        /// When it ends, if known.
        expires_at: Option<Wall>,
    },
}

impl Lifecycle {
    /// Takes over a client that exists, with its credential; answers when it is stored, and verifies it by a real grant.
    pub async fn attach_identity(&self, request: AttachIdentity) -> Result<Arc<Identity>, LifecycleError> {
        let shared = &self.shared;
        let (uid, credential_uid) = (shared.new_uid(), shared.new_uid());
        check_client_id(&request.client_id)?;
        let (kind, secret) = self.material(request.material).await?;
        let _held = shared.change.lock().await;
        let CreateIdentity { name, authority, display_name, labels, .. } = &request.create;
        // What is public of the credential. A digest of a secret would help to guess it.
        let people = format!("{display_name:?}{labels:?}{kind:?}");
        let print = fingerprint("attach", &[name.as_str(), authority.as_str(), &request.client_id, &people]);
        let recorded = match shared.repeated(&request.create.request_id, print, uid).await? {
            Repeated::Yes(made) => return self.identity_by_uid(made),
            Repeated::No(recorded) => recorded,
        };
        let authority = self.authority_by_name(&request.create.authority)?;
        let mut identity = shared.new_identity(
            uid,
            &request.create,
            &authority,
            IdentityKind::Attached,
            OperationKind::Attach,
        )?;
        if let CredentialKind::Certificate(facts) = &kind
            && !facts.key.signs(authority.profile.assertion.algorithm)
        {
            let wanted = authority.profile.assertion.algorithm.as_str();
            return Err(LifecycleError::invalid(
                "certificate",
                format!("its key cannot sign {wanted}, which {} expects", authority.name),
            ));
        }
        let secret_kind = if matches!(kind, CredentialKind::Secret { .. }) {
            SecretKind::ClientSecret
        } else {
            SecretKind::PrivateKey
        };
        let (state, created_at) = (CredentialState::Pending, identity.created_at);
        identity.credentials.push(Credential {
            uid: credential_uid,
            kind,
            state,
            remote_id: None,
            created_at,
        });
        identity.client_id = Some(request.client_id.into());
        if let Some(operation) = &mut identity.operation {
            operation.credential = Some(credential_uid);
        }
        let id = SecretId { owner: uid, subject: credential_uid, kind: secret_kind };
        let writes = [Write::Identity(Box::new(identity)), Write::Secret(id, secret)];
        shared.commit(writes.into_iter().chain(recorded).collect()).await?;
        self.identity_by_uid(uid)
    }

    async fn material(
        &self,
        material: AttachMaterial,
    ) -> Result<(CredentialKind, SecretSlice<u8>), LifecycleError> {
        match material {
            AttachMaterial::Certificate { certificate_pem, private_key_pem } => {
                let imported = self
                    .shared
                    .ports
                    .keys
                    .import(certificate_pem, private_key_pem, self.shared.now())
                    .await?;
                Ok((CredentialKind::Certificate(imported.facts), imported.private))
            }
            AttachMaterial::Secret { secret, expires_at } => {
                check_secret("client_secret", &secret)?;
                let bytes = secret.expose_secret().as_bytes().to_vec();
                Ok((CredentialKind::Secret { expires_at }, bytes.into()))
            }
        }
    }
}

/// Visible ASCII and spaces (RFC 6749 appendix A.1).
pub(crate) fn check_client_id(client_id: &str) -> Result<(), LifecycleError> {
    if (1..=512).contains(&client_id.len()) && client_id.bytes().all(|b| (0x20..=0x7e).contains(&b)) {
        return Ok(());
    }
    Err(LifecycleError::invalid(
        "client_id",
        "expected the client id at the authority: 1 to 512 visible ASCII characters",
    ))
}

pub(crate) fn check_secret(field: &'static str, secret: &SecretString) -> Result<(), LifecycleError> {
    match secret.expose_secret().len() {
        0 => Err(LifecycleError::invalid(field, "it is empty")),
        1..=MAX_SECRET_BYTES => Ok(()),
        _ => Err(LifecycleError::invalid(field, "it is longer than 8 KiB, so it is something else")),
    }
}
