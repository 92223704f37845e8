//! An authority's client registration, and a key ring, as small as they can be. The registry counts what it holds, and fails as it
//! is told to, before or after it did what it was asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use jeton_core::{
    Authority, BoxFuture, CertificateFacts, Credential, Identity, KeyReferences, Registration, Step, Uid,
    Wall, profile::RegistrationStyle,
};
use secrecy::SecretString;

use crate::{
    ClientRegistry, KeyError, KeyRequest, KeyRing, NewKey, Registered, RegistryError, RegistryErrorClass,
};

/// No two keys have one name, over restarts too.
static MADE: AtomicU64 = AtomicU64::new(0);

/// Makes keys that are only names.
#[derive(Debug, Clone, Copy)]
pub struct FakeKeyRing;

impl KeyRing for FakeKeyRing {
    fn make(&self, request: KeyRequest) -> BoxFuture<'_, Result<NewKey, KeyError>> {
        let n = MADE.fetch_add(1, Relaxed);
        Box::pin(async move {
            let name: Arc<str> = format!("key-{n}").into();
            let references =
                KeyReferences { x5t: Arc::clone(&name), x5t_s256: Arc::clone(&name), kid: Arc::clone(&name) };
            let facts = CertificateFacts {
                key: request.kind,
                references,
                certificate: Arc::clone(&name),
                jwk: "{}".into(),
                not_before: request.not_before,
                not_after: request.not_before + request.valid_for,
            };
            Ok(NewKey { facts, private: name.as_bytes().to_vec().into() })
        })
    }

    fn import(&self, _: String, _: SecretString, _: Wall) -> BoxFuture<'_, Result<NewKey, KeyError>> {
        Box::pin(async { Err(KeyError::Invalid("only names are made here".into())) })
    }
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing was done, and a later try may succeed.
    Before,
    /// It was done, and the answer is lost.
    After,
    /// It is refused.
    Refused,
    /// Nothing was done, and no answer ever comes.
    Hangs,
    /// It was done, and no answer ever comes.
    HangsAfter,
}

#[derive(Default)]
struct State {
    /// By client id: for whom it was registered, and its keys.
    clients: BTreeMap<String, (Uid, BTreeSet<String>)>,
    calls: Vec<Step>,
    faults: Vec<(Step, Fault)>,
    made: u64,
}

/// Holds clients and their keys.
#[derive(Clone, Default)]
pub struct FakeRegistry(Arc<Mutex<State>>);

impl fmt::Debug for FakeRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeRegistry").field("clients", &self.state().clients).finish_non_exhaustive()
    }
}

impl FakeRegistry {
    /// The next call of this step goes wrong; several are used up one by one.
    pub fn fail(&self, step: Step, fault: Fault) {
        self.state().faults.push((step, fault));
    }

    /// Every client: its id, for whom, its keys.
    pub fn clients(&self) -> Vec<(String, Uid, BTreeSet<String>)> {
        self.state().clients.iter().map(|(id, (owner, keys))| (id.clone(), *owner, keys.clone())).collect()
    }

    /// Whether a grant with this credential would succeed.
    pub fn accepts(&self, identity: &Identity, credential: &Credential) -> bool {
        let client_id = identity.client_id.as_deref().unwrap_or_default();
        self.state().clients.get(client_id).is_some_and(|(_, keys)| keys.contains(&name(credential)))
    }

    /// How often a step was asked for.
    pub fn calls(&self, step: Step) -> usize {
        self.state().calls.iter().filter(|s| **s == step).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
            let does = !matches!(fault, Some(Fault::Before | Fault::Refused | Fault::Hangs));
            (fault, does.then(|| work(&mut state)))
        };
        match (fault, done) {
            (None, Some(done)) => done,
            (Some(Fault::Hangs | Fault::HangsAfter), _) => std::future::pending().await,
            (Some(Fault::After), _) => Err(error(RegistryErrorClass::Unknown, "no answer came")),
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

fn client_of<'a>(
    state: &'a mut State,
    identity: &Identity,
) -> Result<&'a mut (Uid, BTreeSet<String>), RegistryError> {
    let known = identity.client_id.as_deref().and_then(|id| state.clients.get_mut(id));
    known.ok_or_else(|| error(RegistryErrorClass::Permanent, "there is no such client"))
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
        Box::pin(self.call(Step::Registered, move |state| {
            let known =
                state.clients.iter().find(|(_, (owner, _))| *owner == identity.uid).map(|(id, _)| id.clone());
            let client_id = known.filter(|_| can_look_up).unwrap_or_else(|| {
                state.made += 1;
                format!("client-{}", state.made)
            });
            let (_, keys) = state.clients.entry(client_id.clone()).or_insert((identity.uid, BTreeSet::new()));
            // The first key replaces whatever there is.
            *keys = [name(credential)].into();
            Ok(Registered {
                client_id: Some(client_id.as_str().into()),
                registration: Some(Registration {
                    object_id: Some(client_id.into()),
                    ..Registration::default()
                }),
                ..Registered::default()
            })
        }))
    }

    fn add_key<'a>(
        &'a self,
        _: &'a Authority,
        identity: &'a Identity,
        credential: &'a Credential,
    ) -> Change<'a> {
        Box::pin(self.call(Step::Registered, move |state| {
            client_of(state, identity)?.1.insert(name(credential));
            Ok(Registered { remote_key_id: Some(name(credential).into()), ..Registered::default() })
        }))
    }

    fn remove_key<'a>(
        &'a self,
        _: &'a Authority,
        identity: &'a Identity,
        credential: &'a Credential,
    ) -> Change<'a> {
        Box::pin(self.call(Step::Removed, move |state| {
            client_of(state, identity)?.1.remove(&name(credential));
            Ok(Registered::default())
        }))
    }

    fn verify<'a>(
        &'a self,
        _: &'a Authority,
        identity: &'a Identity,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(self.call(Step::Verified, move |state| {
            let known = client_of(state, identity)?.1.contains(&name(credential));
            if known {
                Ok(())
            } else {
                Err(error(RegistryErrorClass::Permanent, "the key is not registered"))
            }
        }))
    }

    fn delete<'a>(
        &'a self,
        _: &'a Authority,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(self.call(Step::Removed, move |state| {
            state
                .clients
                .retain(|id, (owner, _)| identity.client_id.as_deref() != Some(id) && *owner != identity.uid);
            Ok(())
        }))
    }
}
