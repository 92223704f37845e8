//! An authority's client registration, and a key ring, as small as they can be. The registry counts what it holds, and fails as it
//! is told to, before or after it did what it was asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use jeton_core::{
    Authority, BoxFuture, CertificateFacts, Credential, Identity, KeyKind, KeyReferences, Registration, Step,
    Uid, Wall, profile::RegistrationStyle,
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    ClientRegistry, IdentityStore, KeyError, KeyRequest, KeyRing, NewKey, Registered, RegistryError,
    RegistryErrorClass, SecretId, SecretKind,
};

/// How long a slow answer takes.
const SLOW: Duration = Duration::from_secs(2);

/// No two keys have one name, over restarts too.
static MADE: AtomicU64 = AtomicU64::new(0);

/// Makes keys that are only names, and imports as P-256 whatever is not nonsense.
#[derive(Debug, Clone, Copy)]
pub struct FakeKeyRing;

fn new_key(name: &str, kind: KeyKind, not_before: Wall, not_after: Wall) -> NewKey {
    let name: Arc<str> = name.into();
    let references =
        KeyReferences { x5t: Arc::clone(&name), x5t_s256: Arc::clone(&name), kid: Arc::clone(&name) };
    let certificate = Arc::clone(&name);
    let facts =
        CertificateFacts { key: kind, references, certificate, jwk: "{}".into(), not_before, not_after };
    NewKey { facts, private: name.as_bytes().to_vec().into() }
}

impl KeyRing for FakeKeyRing {
    fn make(&self, request: KeyRequest) -> BoxFuture<'_, Result<NewKey, KeyError>> {
        let name = format!("key-{}", MADE.fetch_add(1, Relaxed));
        let until = request.not_before + request.valid_for;
        Box::pin(async move { Ok(new_key(&name, request.kind, request.not_before, until)) })
    }

    fn import(
        &self,
        certificate: String,
        _: SecretString,
        now: Wall,
    ) -> BoxFuture<'_, Result<NewKey, KeyError>> {
        Box::pin(async move {
            match certificate.as_str() {
                "nonsense" => Err(KeyError::Invalid("it is nonsense".into())),
                name => Ok(new_key(name, KeyKind::P256, now, now + Duration::from_secs(86_400))),
            }
        })
    }
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing was done, and a later try may succeed.
    Before,
    /// It was done, and the answer is lost.
    After,
    /// It is done, and the answer takes two seconds.
    Slow,
    /// It is refused.
    Refused,
    /// The registrar is refused.
    Unauthorized,
    /// Nothing was done, and no answer ever comes.
    Hangs,
    /// It was done, and no answer ever comes.
    HangsAfter,
}

struct Client {
    owner: Uid,
    keys: BTreeSet<String>,
    /// What manages it, where it was registered dynamically; replaced by each change (RFC 7592).
    token: Option<String>,
}

#[derive(Default)]
struct State {
    /// By client id.
    clients: BTreeMap<String, Client>,
    calls: Vec<Step>,
    faults: Vec<(Step, Fault)>,
    made: u64,
}

/// Holds clients and their keys.
#[derive(Clone)]
pub struct FakeRegistry {
    state: Arc<Mutex<State>>,
    /// Where registration access tokens are kept.
    store: Arc<dyn IdentityStore>,
}

impl fmt::Debug for FakeRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeRegistry").field("clients", &self.clients()).finish_non_exhaustive()
    }
}

impl FakeRegistry {
    /// Empty; the store is where registration access tokens are.
    pub fn new(store: impl IdentityStore) -> Self {
        Self { state: Arc::default(), store: Arc::new(store) }
    }

    /// The next call of this step goes wrong; several are used up one by one.
    pub fn fail(&self, step: Step, fault: Fault) {
        self.state().faults.push((step, fault));
    }

    /// Nothing goes wrong any more; how many faults were left.
    pub fn heal(&self) -> usize {
        self.state().faults.drain(..).count()
    }

    /// Every client: its id, for whom, its keys.
    pub fn clients(&self) -> Vec<(String, Uid, BTreeSet<String>)> {
        self.state().clients.iter().map(|(id, c)| (id.clone(), c.owner, c.keys.clone())).collect()
    }

    /// Whether a grant with this credential would succeed.
    pub fn accepts(&self, identity: &Identity, credential: &Credential) -> bool {
        let client_id = identity.client_id.as_deref().unwrap_or_default();
        self.state().clients.get(client_id).is_some_and(|c| c.keys.contains(&name(credential)))
    }

    /// How often a step was asked for.
    pub fn calls(&self, step: Step) -> usize {
        self.state().calls.iter().filter(|s| **s == step).count()
    }

    /// The registration access token that the broker has.
    async fn token(&self, identity: &Identity) -> Option<String> {
        let (owner, kind) = (identity.uid, SecretKind::RegistrationAccessToken);
        let kept = self.store.secret(SecretId { owner, subject: owner, kind }).await.ok().flatten()?;
        String::from_utf8(kept.expose_secret().to_vec()).ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call<T>(
        &self,
        step: Step,
        work: impl FnOnce(&mut State) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let (fault, done) = {
            let mut state = self.state();
            state.calls.push(step);
            let at = state.faults.iter().position(|(s, _)| *s == step);
            let fault = at.map(|at| state.faults.remove(at).1);
            let does =
                !matches!(fault, Some(Fault::Before | Fault::Refused | Fault::Unauthorized | Fault::Hangs));
            (fault, does.then(|| work(&mut state)))
        };
        match (fault, done) {
            (None, Some(done)) => done,
            (Some(Fault::Slow), Some(done)) => {
                tokio::time::sleep(SLOW).await;
                done
            }
            (Some(Fault::Hangs | Fault::HangsAfter), _) => std::future::pending().await,
            (Some(Fault::After), _) => Err(error(RegistryErrorClass::Unknown, "no answer came")),
            (Some(Fault::Unauthorized), _) => {
                Err(error(RegistryErrorClass::Unauthorized, "the registrar is refused"))
            }
            (Some(Fault::Refused), _) => Err(error(RegistryErrorClass::Permanent, "it is refused")),
            _ => Err(error(RegistryErrorClass::Transient, "try again")),
        }
    }
}

fn error(class: RegistryErrorClass, message: &str) -> RegistryError {
    RegistryError { class, retry_after: None, message: message.into() }
}

fn name(credential: &Credential) -> String {
    credential.certificate().map_or_else(String::new, |facts| facts.references.kid.to_string())
}

/// The client that is to be changed, if it may be.
fn managed<'a>(
    state: &'a mut State,
    identity: &Identity,
    token: Option<&str>,
) -> Result<&'a mut Client, RegistryError> {
    let known = identity.registered_client().and_then(|id| state.clients.get_mut(&**id));
    match known {
        Some(client) if client.token.is_none() || client.token.as_deref() == token => Ok(client),
        _ if identity.is_in_doubt() => Err(error(RegistryErrorClass::Unmanageable, "the token is lost")),
        _ => Err(error(RegistryErrorClass::Permanent, "there is no such client")),
    }
}

impl State {
    /// Changes a client's keys, and what manages it.
    fn change(
        &mut self,
        identity: &Identity,
        token: Option<&str>,
        change: impl FnOnce(&mut BTreeSet<String>) -> bool,
    ) -> Result<Registered, RegistryError> {
        self.made += 1;
        let next = format!("token-{}", self.made);
        let client = managed(self, identity, token)?;
        change(&mut client.keys);
        client.token = client.token.is_some().then_some(next);
        let registration_access_token = client.token.clone().map(Into::into);
        Ok(Registered { registration_access_token, ..Registered::default() })
    }

    fn register(&mut self, identity: &Identity, credential: &Credential, can_look_up: bool) -> Registered {
        self.made += 1;
        let known =
            self.clients.iter().find(|(_, client)| client.owner == identity.uid).map(|(id, _)| id.clone());
        let client_id = known.filter(|_| can_look_up).unwrap_or_else(|| format!("client-{}", self.made));
        let token = (!can_look_up).then(|| format!("token-{}", self.made));
        // The first key replaces whatever there is.
        let keys = [name(credential)].into();
        self.clients.insert(client_id.clone(), Client { owner: identity.uid, keys, token: token.clone() });
        let object_id = Some(client_id.as_str().into());
        Registered {
            client_id: Some(client_id.into()),
            registration: Some(Registration { object_id, ..Registration::default() }),
            registration_access_token: token.map(Into::into),
            ..Registered::default()
        }
    }
}

type Change<'a> = BoxFuture<'a, Result<Registered, RegistryError>>;

impl ClientRegistry for FakeRegistry {
    fn register<'a>(
        &'a self,
        authority: &'a Authority,
        identity: &'a Identity,
        credential: &'a Credential,
    ) -> Change<'a> {
        let can_look_up = matches!(authority.profile.registration, RegistrationStyle::Graph { .. });
        Box::pin(
            self.call(Step::Registered, move |state| Ok(state.register(identity, credential, can_look_up))),
        )
    }

    fn add_key<'a>(
        &'a self,
        _: &'a Authority,
        identity: &'a Identity,
        credential: &'a Credential,
    ) -> Change<'a> {
        Box::pin(async move {
            let token = self.token(identity).await;
            let add = |keys: &mut BTreeSet<String>| keys.insert(name(credential));
            let added = self.call(Step::Registered, |state| state.change(identity, token.as_deref(), add));
            added.await.map(|r| Registered { remote_key_id: Some(name(credential).into()), ..r })
        })
    }

    fn remove_key<'a>(
        &'a self,
        _: &'a Authority,
        identity: &'a Identity,
        credential: &'a Credential,
    ) -> Change<'a> {
        Box::pin(async move {
            let token = self.token(identity).await;
            let remove = |keys: &mut BTreeSet<String>| keys.remove(&name(credential));
            self.call(Step::Removed, |state| state.change(identity, token.as_deref(), remove)).await
        })
    }

    fn verify<'a>(
        &'a self,
        _: &'a Authority,
        identity: &'a Identity,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(self.call(Step::Verified, move |state| {
            let client = identity.registered_client().and_then(|id| state.clients.get(&**id));
            match client.is_some_and(|client| client.keys.contains(&name(credential))) {
                true => Ok(()),
                false => Err(error(RegistryErrorClass::Permanent, "the key is not registered")),
            }
        }))
    }

    fn delete<'a>(
        &'a self,
        authority: &'a Authority,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        let can_look_up = matches!(authority.profile.registration, RegistrationStyle::Graph { .. });
        Box::pin(async move {
            let token = self.token(identity).await;
            self.call(Step::Removed, |state| {
                if can_look_up {
                    state.clients.retain(|_, client| client.owner != identity.uid);
                    return Ok(());
                }
                match managed(state, identity, token.as_deref()) {
                    Err(lost) if lost.class == RegistryErrorClass::Unmanageable => Err(lost),
                    // As real ones answer, one that is gone looks like one with another token.
                    Err(_) => Ok(()),
                    Ok(_) => {
                        let id = identity.registered_client().map_or("", |id| id);
                        state.clients.remove(id);
                        Ok(())
                    }
                }
            })
            .await
        })
    }
}
