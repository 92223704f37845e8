//! The registry in memory, with a hook that lets a commit fail or the process "die" in it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jeton_core::{Authority, BoxFuture, Identity, Principal, Uid, Workload};
use secrecy::{ExposeSecret, SecretSlice};

use crate::{IdentityStore, Orphan, Recorded, Registry, SecretId, StoreError, Write};

/// What happens to a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFault {
    /// Nothing is written, and an error comes back.
    Fails,
    /// Nothing is written, and nothing comes back: killed before.
    DiesBefore,
    /// All is written, and nothing comes back: killed after.
    DiesAfter,
}

type Hook = Box<dyn FnMut(&[Write]) -> Option<CommitFault> + Send>;

#[derive(Default)]
struct State {
    identities: BTreeMap<Uid, Identity>,
    workloads: BTreeMap<Uid, Workload>,
    authorities: BTreeMap<Uid, Authority>,
    orphans: BTreeMap<Uid, Orphan>,
    secrets: HashMap<SecretId, Vec<u8>>,
    recorded: HashMap<String, Recorded>,
    hook: Option<Hook>,
}

/// Keeps the registry in memory. Clones share what they keep, as a store does over a restart.
#[derive(Clone, Default)]
pub struct MemoryIdentityStore(Arc<Mutex<State>>);

impl fmt::Debug for MemoryIdentityStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryIdentityStore").finish_non_exhaustive()
    }
}

impl MemoryIdentityStore {
    /// Asked at every commit what shall happen to it.
    pub fn hook(&self, hook: impl FnMut(&[Write]) -> Option<CommitFault> + Send + 'static) {
        self.state().hook = Some(Box::new(hook));
    }

    /// Commits succeed again.
    pub fn heal(&self) {
        self.state().hook = None;
    }

    /// How many secrets are kept.
    pub fn secrets(&self) -> usize {
        self.state().secrets.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdentityStore for MemoryIdentityStore {
    fn load(&self) -> BoxFuture<'_, Result<Registry, StoreError>> {
        let state = self.state();
        let registry = Registry {
            identities: state.identities.values().cloned().collect(),
            workloads: state.workloads.values().cloned().collect(),
            authorities: state.authorities.values().cloned().collect(),
            orphans: state.orphans.values().cloned().collect(),
        };
        Box::pin(async move { Ok(registry) })
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let fault = self.state().hook.as_mut().and_then(|hook| hook(&writes));
            match fault {
                Some(CommitFault::Fails) => return Err(StoreError::Unavailable("the disk is full".into())),
                Some(CommitFault::DiesBefore) => std::future::pending().await,
                _ => self.state().commit(writes)?,
            }
            if fault == Some(CommitFault::DiesAfter) {
                std::future::pending::<()>().await;
            }
            Ok(())
        })
    }

    fn secret(&self, id: SecretId) -> BoxFuture<'_, Result<Option<SecretSlice<u8>>, StoreError>> {
        let found = self.state().secrets.get(&id).cloned();
        Box::pin(async move { Ok(found.map(Into::into)) })
    }

    fn recorded(&self, request_id: String) -> BoxFuture<'_, Result<Option<Recorded>, StoreError>> {
        let found = self.state().recorded.get(&request_id).cloned();
        Box::pin(async move { Ok(found) })
    }
}

impl State {
    /// All or nothing: what one write breaks is seen before the first is applied.
    fn commit(&mut self, writes: Vec<Write>) -> Result<(), StoreError> {
        let conflict = |uid, known: Option<u64>, version| {
            if known.unwrap_or(0) + 1 == version { Ok(()) } else { Err(StoreError::Conflict(uid)) }
        };
        for write in &writes {
            match write {
                Write::Identity(i) => {
                    conflict(i.uid, self.identities.get(&i.uid).map(|k| k.version), i.version)?;
                    taken(self.identities.values().any(|k| k.name == i.name && k.uid != i.uid), &i.name)?;
                }
                Write::Workload(w) => {
                    conflict(w.uid, self.workloads.get(&w.uid).map(|k| k.version), w.version)?;
                    taken(self.workloads.values().any(|k| k.name == w.name && k.uid != w.uid), &w.name)?;
                    let others = || self.workloads.values().filter(|k| k.uid != w.uid);
                    let has = |p: &Principal| others().any(|k| k.principals.contains(p));
                    w.principals.iter().try_for_each(|p| taken(has(p), p))?;
                }
                Write::Authority(a) => {
                    conflict(a.uid, self.authorities.get(&a.uid).map(|k| k.version), a.version)?;
                    taken(self.authorities.values().any(|k| k.name == a.name && k.uid != a.uid), &a.name)?;
                }
                _ => {}
            }
        }
        writes.into_iter().for_each(|write| self.apply(write));
        Ok(())
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Identity(i) => drop(self.identities.insert(i.uid, *i)),
            Write::Workload(w) => drop(self.workloads.insert(w.uid, *w)),
            Write::Authority(a) => drop(self.authorities.insert(a.uid, *a)),
            Write::RemoveIdentity(uid) => {
                self.identities.remove(&uid);
                self.secrets.retain(|id, _| id.owner != uid);
            }
            Write::RemoveWorkload(uid) => drop(self.workloads.remove(&uid)),
            Write::RemoveAuthority(uid) => {
                self.authorities.remove(&uid);
                self.secrets.retain(|id, _| id.owner != uid);
            }
            Write::Secret(id, secret) => drop(self.secrets.insert(id, secret.expose_secret().to_vec())),
            Write::RemoveSecret(id) => drop(self.secrets.remove(&id)),
            Write::Orphan(orphan) => drop(self.orphans.insert(orphan.uid, orphan)),
            Write::RemoveOrphan(uid) => drop(self.orphans.remove(&uid)),
            Write::Recorded(recorded) => drop(self.recorded.insert(recorded.request_id.clone(), recorded)),
        }
    }
}

fn taken(is_taken: bool, name: &impl fmt::Display) -> Result<(), StoreError> {
    if is_taken { Err(StoreError::Exists(name.to_string())) } else { Ok(()) }
}
