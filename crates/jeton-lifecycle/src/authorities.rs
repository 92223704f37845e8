//! Authorities: profile, trust, registrar.

use std::{collections::BTreeMap, sync::Arc};

use jeton_core::{
    Authority, AuthorityName, AuthorityState, Credential, CredentialKind, CredentialState, Profile,
    Registrar, Uid,
    profile::{IssuedAt, MAX_ASSERTION_LIFETIME_SECONDS, OWN_METADATA, RegistrationStyle},
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    Lifecycle, LifecycleError, LifecycleEvent, SecretId, SecretKind, Write,
    attach::{check_client_id, check_secret},
    identities::check_people_parts,
    registry::{Repeated, fingerprint},
};

/// An authority to add.
pub struct CreateAuthority {
    /// Its name.
    pub name: AuthorityName,
    /// For people.
    pub display_name: String,
    /// How it behaves.
    pub profile: Profile,
    /// Certificates to trust for it, PEM; the system's if none.
    pub ca_file: Option<String>,
    /// With what clients are registered.
    pub registrar: RegistrarMaterial,
    /// For idempotency; empty: none.
    pub request_id: String,
}

/// The registrar's secret, on its way in.
pub enum RegistrarMaterial {
    /// A client with the right to create others.
    Certificate {
        /// Its client id.
        client_id: String,
        /// PEM.
        certificate_pem: String,
        /// PEM. Secret.
        private_key_pem: SecretString,
    },
    /// An initial access token. Secret.
    InitialAccessToken(SecretString),
    /// Identities are only attached.
    None,
}

/// What to change; absent: as it is.
#[derive(Default)]
pub struct AuthorityPatch {
    /// The new display name.
    pub display_name: Option<String>,
    /// The whole new profile.
    pub profile: Option<Profile>,
    /// The registrar's new credential.
    pub registrar: Option<RegistrarMaterial>,
}

type Changed = Result<Arc<Authority>, LifecycleError>;

impl Lifecycle {
    /// Adds an authority.
    pub async fn create_authority(&self, request: CreateAuthority) -> Changed {
        let shared = &self.shared;
        check_people_parts(&request.display_name, &BTreeMap::new())?;
        check(&request.profile)?;
        let (uid, credential) = (shared.new_uid(), shared.new_uid());
        let (registrar, secret) = self.registrar(request.registrar, uid, credential).await?;
        check_registrar(&registrar, &request.profile)?;
        let _held = shared.change.lock().await;
        let print = fingerprint("create-authority", &[request.name.as_str(), &request.profile.issuer]);
        let recorded = match shared.repeated(&request.request_id, print, uid).await? {
            Repeated::Yes(made) => return self.authority_by_uid(made),
            Repeated::No(recorded) => recorded,
        };
        if self.directory().authority_named(&request.name).is_some() {
            return Err(LifecycleError::Exists(format!("{} exists already", request.name)));
        }
        let now = shared.now();
        let authority = Authority {
            uid,
            name: request.name,
            display_name: request.display_name,
            profile: Arc::new(request.profile),
            profile_version: 1,
            ca_file: request.ca_file,
            registrar,
            state: AuthorityState::Active,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        let writes = [Write::Authority(Box::new(authority))].into_iter().chain(secret).chain(recorded);
        shared.commit(writes.collect()).await?;
        self.authority_by_uid(uid)
    }

    async fn registrar(
        &self,
        material: RegistrarMaterial,
        owner: Uid,
        uid: Uid,
    ) -> Result<(Registrar, Option<Write>), LifecycleError> {
        match material {
            RegistrarMaterial::None => Ok((Registrar::None, None)),
            RegistrarMaterial::InitialAccessToken(token) => {
                check_secret("initial_access_token", &token)?;
                let id = SecretId { owner, subject: uid, kind: SecretKind::InitialAccessToken };
                let bytes = token.expose_secret().as_bytes().to_vec();
                Ok((Registrar::InitialAccessToken { credential: uid }, Some(Write::Secret(id, bytes.into()))))
            }
            RegistrarMaterial::Certificate { client_id, certificate_pem, private_key_pem } => {
                check_client_id(&client_id)?;
                let now = self.shared.now();
                let imported = self.shared.ports.keys.import(certificate_pem, private_key_pem, now).await?;
                let kind = CredentialKind::Certificate(imported.facts);
                let credential = Credential {
                    uid,
                    kind,
                    state: CredentialState::Current,
                    remote_id: None,
                    created_at: now,
                };
                let id = SecretId { owner, subject: uid, kind: SecretKind::PrivateKey };
                let registrar =
                    Registrar::Certificate { client_id: client_id.into(), credential: Box::new(credential) };
                Ok((registrar, Some(Write::Secret(id, imported.private))))
            }
        }
    }

    /// Changes display name, profile or registrar; absent: as it is. Another profile is a new profile version.
    pub async fn update_authority(
        &self,
        name: &AuthorityName,
        patch: AuthorityPatch,
        request_id: &str,
    ) -> Changed {
        let shared = &self.shared;
        let AuthorityPatch { display_name, profile, registrar } = patch;
        check_people_parts(display_name.as_deref().unwrap_or_default(), &BTreeMap::new())?;
        if let Some(profile) = &profile {
            check(profile)?;
        }
        let owner = self.authority_by_name(name)?.uid;
        let registrar = match registrar {
            Some(material) => Some(self.registrar(material, owner, shared.new_uid()).await?),
            None => None,
        };
        let _held = shared.change.lock().await;
        let found = self.authority_by_name(name)?;
        let public = registrar.as_ref().map(|(registrar, _)| match registrar {
            Registrar::Certificate { client_id, credential } => {
                (client_id.to_string(), credential.certificate().map(|facts| facts.references.clone()))
            }
            _ => (String::new(), None),
        });
        let print = fingerprint(
            "update-authority",
            &[name.as_str(), &format!("{display_name:?}{profile:?}{public:?}")],
        );
        let recorded = match shared.repeated(request_id, print, found.uid).await? {
            Repeated::Yes(changed) => return self.authority_by_uid(changed),
            Repeated::No(recorded) => recorded,
        };
        let replaced = registrar.as_ref().and_then(|_| secret_of(&found));
        let mut authority = found.as_ref().clone();
        let reprofiled = profile.is_some_and(|profile| {
            let other = *authority.profile != profile;
            authority.profile = Arc::new(profile);
            authority.profile_version += u32::from(other);
            other
        });
        authority.display_name = display_name.unwrap_or(authority.display_name);
        let mut writes = vec![];
        if registrar.is_some() || reprofiled {
            let registrar = registrar.as_ref().map_or(&authority.registrar, |(new, _)| new);
            check_registrar(registrar, &authority.profile)?;
        }
        if let Some((registrar, secret)) = registrar {
            writes.extend(secret_of(&authority).map(Write::RemoveSecret));
            writes.extend(secret);
            authority.registrar = registrar;
        }
        authority.version += 1;
        authority.updated_at = shared.now();
        writes.push(Write::Authority(Box::new(authority)));
        writes.extend(recorded);
        shared.commit(writes).await?;
        if let Some(id) = replaced {
            shared.event(LifecycleEvent::CredentialRemoved(id.subject));
        }
        if reprofiled {
            shared.event(LifecycleEvent::AuthorityChanged(found.uid));
        }
        self.authority_by_uid(found.uid)
    }

    /// Removes an authority that no identity uses.
    pub async fn delete_authority(
        &self,
        name: &AuthorityName,
        request_id: &str,
    ) -> Result<(), LifecycleError> {
        let shared = &self.shared;
        let _held = shared.change.lock().await;
        let found = self.directory().authority_named(name).cloned();
        let uid = found.as_ref().map_or_else(|| shared.new_uid(), |authority| authority.uid);
        let print = fingerprint("delete-authority", &[name.as_str()]);
        let recorded = match shared.repeated(request_id, print, uid).await? {
            Repeated::Yes(_) => return Ok(()),
            Repeated::No(recorded) => recorded,
        };
        let authority = found.ok_or_else(|| LifecycleError::NotFound(name.to_string()))?;
        let directory = self.directory();
        if let Some(user) =
            directory.identities_after(None).find(|identity| identity.authority == authority.uid)
        {
            let text = format!("{name} is used by {} and perhaps others: delete them first", user.name);
            return Err(LifecycleError::Precondition(text));
        }
        // Whoever takes the authority away looks after what was left there.
        let orphans = self.orphans().into_iter().filter(|orphan| orphan.authority == uid);
        let removed =
            orphans.map(|orphan| Write::RemoveOrphan(orphan.uid)).chain([Write::RemoveAuthority(uid)]);
        shared.commit(removed.chain(recorded).collect()).await?;
        if let Some(id) = secret_of(&authority) {
            shared.event(LifecycleEvent::CredentialRemoved(id.subject));
        }
        shared.event(LifecycleEvent::AuthorityChanged(uid));
        Ok(())
    }

    fn authority_by_uid(&self, uid: Uid) -> Changed {
        self.directory()
            .authority(uid)
            .cloned()
            .ok_or_else(|| LifecycleError::NotFound(format!("the authority with uid {uid}")))
    }
}

/// Where the registrar's secret is kept, if it has one.
fn secret_of(authority: &Authority) -> Option<SecretId> {
    let owner = authority.uid;
    match &authority.registrar {
        Registrar::Certificate { credential, .. } => {
            Some(SecretId { owner, subject: credential.uid, kind: SecretKind::PrivateKey })
        }
        Registrar::InitialAccessToken { credential } => {
            Some(SecretId { owner, subject: *credential, kind: SecretKind::InitialAccessToken })
        }
        Registrar::None => None,
    }
}

/// A registrar must be able to ask in the way in which this authority registers.
fn check_registrar(registrar: &Registrar, profile: &Profile) -> Result<(), LifecycleError> {
    let wrong = |problem: String| Err(LifecycleError::invalid("registrar", problem));
    match (registrar, &profile.registration) {
        (Registrar::None, _) => Ok(()),
        (Registrar::Certificate { credential, .. }, RegistrationStyle::Graph { .. }) => {
            let algorithm = profile.assertion.algorithm;
            match credential.certificate() {
                Some(facts) if !facts.key.signs(algorithm) => {
                    wrong(format!("its key cannot sign {}, which the authority expects", algorithm.as_str()))
                }
                _ => Ok(()),
            }
        }
        (Registrar::InitialAccessToken { .. }, RegistrationStyle::Dynamic { .. }) => Ok(()),
        (_, RegistrationStyle::Graph { .. }) => wrong("Graph takes a certificate".into()),
        (_, RegistrationStyle::Dynamic { .. }) => wrong(
            "dynamic registration takes an initial access token; one that registers anybody takes any".into(),
        ),
        (_, RegistrationStyle::None) => wrong("the authority registers no clients: give none".into()),
    }
}

/// What an assertion has left when it is made.
const MIN_ASSERTION_LIFE_SECONDS: u32 = 5;

fn check(profile: &Profile) -> Result<(), LifecycleError> {
    let wrong = |problem: &str| Err(LifecycleError::invalid("profile", problem));
    if !profile.token_endpoint.starts_with("https://") {
        return wrong("token_endpoint must be an https URL");
    }
    if profile.revocation_endpoint.as_ref().is_some_and(|endpoint| !endpoint.starts_with("https://")) {
        return wrong("revocation_endpoint must be an https URL, or null");
    }
    if !(10..=MAX_ASSERTION_LIFETIME_SECONDS).contains(&profile.assertion.lifetime_seconds) {
        return wrong("assertion.lifetime_seconds must be between 10 and 600");
    }
    if let IssuedAt::SecondsAgo(ago) = profile.assertion.issued_at
        && profile.assertion.lifetime_seconds < ago.saturating_add(MIN_ASSERTION_LIFE_SECONDS)
    {
        return wrong(
            "assertion.issued_at must be at least 5 seconds-ago less than assertion.lifetime_seconds, or assertions end before they arrive",
        );
    }
    if let RegistrationStyle::Dynamic { metadata, .. } = &profile.registration
        && OWN_METADATA.iter().any(|own| metadata.contains_key(*own))
    {
        return wrong(
            "registration.metadata must leave the client's id, name, keys and authentication alone",
        );
    }
    if !profile.key.signs(profile.assertion.algorithm) {
        return wrong("key cannot make signatures of assertion.algorithm");
    }
    let limits = &profile.limits;
    if limits.max_concurrent == 0 || limits.requests_per_second == 0 || limits.call_timeout_seconds == 0 {
        return wrong("limits must be at least 1");
    }
    Ok(())
}
