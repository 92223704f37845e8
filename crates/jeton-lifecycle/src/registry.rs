//! The one owner of the registry: reads, changes, commits, publishes.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jeton_core::{
    AuditTrail, Authority, Clock, Directory, Identity, IdentityState, OperationKind, SharedDirectory, Step,
    Uid, Wall, Workload,
};
use jeton_trace::Tracer;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::sync::{Notify, watch};

use crate::{
    ClientRegistry, IdentityStore, KeyRing, LifecycleError, LifecycleSettings, LifecycleTasks, Orphan,
    Recorded, Write, busy::Busy, causes::Causes, counts::Counts, runner,
};

/// What the lifecycle needs of the world.
pub struct Ports {
    /// The durable registry.
    pub store: Arc<dyn IdentityStore>,
    /// Who makes keys.
    pub keys: Arc<dyn KeyRing>,
    /// Who registers clients.
    pub registry: Arc<dyn ClientRegistry>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Where the directory is published.
    pub directory: SharedDirectory,
    /// Where every step that makes, registers, switches or removes a key is written down before it is taken.
    pub trail: Arc<dyn AuditTrail>,
    /// Seeds uids and jitter.
    pub seed: u64,
    /// Records steps.
    pub tracer: Tracer,
    /// Told of every change that others must act on. Must not block.
    pub on_event: Arc<dyn Fn(LifecycleEvent) + Send + Sync>,
    /// Told of every step that was tried and written down, for whoever watches. Must not block.
    pub on_step: Arc<dyn Fn(&StepTried<'_>) + Send + Sync>,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

/// A step of an identity's life that was tried.
#[derive(Debug, Clone, Copy)]
pub struct StepTried<'a> {
    /// Whose.
    pub identity: &'a Identity,
    /// At which authority.
    pub authority: &'a Authority,
    /// Of which operation.
    pub kind: OperationKind,
    /// Which.
    pub step: Step,
    /// Why it failed, in words for an administrator, without secrets; none: it is done.
    pub failure: Option<&'a str>,
}

/// A change that others must act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LifecycleEvent {
    /// An identity issues tokens from now on.
    Activated(Uid),
    /// An identity issues no tokens from now on: disabled or being deleted.
    Deactivated(Uid),
    /// An identity is gone, with everything that was assigned to it.
    Removed(Uid),
    /// An identity has another current credential.
    Switched {
        /// The identity.
        identity: Uid,
        /// The credential that was current before.
        old: Uid,
    },
    /// A credential of an identity or a registrar is gone.
    CredentialRemoved(Uid),
    /// A workload is gone.
    WorkloadRemoved(Uid),
    /// An authority's profile changed, or it is gone.
    AuthorityChanged(Uid),
}

/// A cloneable handle on the one lifecycle.
#[derive(Clone)]
pub struct Lifecycle {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) settings: LifecycleSettings,
    pub(crate) ports: Ports,
    /// Held over every read-change-commit.
    pub(crate) change: tokio::sync::Mutex<()>,
    /// Identities with an operation.
    pub(crate) busy: Mutex<Busy>,
    pub(crate) causes: Mutex<Causes>,
    pub(crate) orphans: Mutex<Vec<Orphan>>,
    pub(crate) wake: Notify,
    pub(crate) counts: Counts,
    pub(crate) revision: watch::Sender<u64>,
    random: Mutex<SmallRng>,
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle").finish_non_exhaustive()
    }
}

impl Lifecycle {
    /// Loads the registry, publishes the directory and resumes what was under way.
    pub async fn start(
        settings: LifecycleSettings,
        ports: Ports,
    ) -> Result<(Self, LifecycleTasks), LifecycleError> {
        let registry = ports.store.load().await?;
        let mut directory = Directory::default();
        let mut busy = Busy::default();
        for mut identity in registry.identities {
            // Reading it made room for four.
            identity.credentials.shrink_to_fit();
            busy.put(&identity);
            directory.put_identity(Arc::new(identity));
        }
        registry.workloads.into_iter().for_each(|w| directory.put_workload(Arc::new(w)));
        registry.authorities.into_iter().for_each(|a| directory.put_authority(Arc::new(a)));
        ports.directory.publish(directory);
        let random = Mutex::new(SmallRng::seed_from_u64(ports.seed));
        let shared = Arc::new(Shared {
            settings,
            ports,
            change: tokio::sync::Mutex::default(),
            busy: Mutex::new(busy),
            causes: Mutex::default(),
            orphans: Mutex::new(registry.orphans),
            wake: Notify::new(),
            counts: Counts::default(),
            revision: watch::Sender::new(0),
            random,
        });
        let tasks = runner::start(Arc::clone(&shared));
        Ok((Self { shared }, tasks))
    }

    /// The directory as it is published now.
    pub fn directory(&self) -> Arc<Directory> {
        self.shared.ports.directory.snapshot()
    }

    /// Clients that may exist at an authority although nobody here knows their ids.
    pub fn orphans(&self) -> Vec<Orphan> {
        locked(&self.shared.orphans).clone()
    }

    /// Waits until no work is under way on an identity, an overlap apart. None: it is gone. Ends at the deadline with what is there.
    pub async fn settled(&self, uid: Uid, deadline: Duration) -> Option<Arc<Identity>> {
        let mut revision = self.shared.revision.subscribe();
        let wait = async {
            loop {
                let identity = self.directory().identity(uid).cloned()?;
                if is_settled(&identity) || revision.changed().await.is_err() {
                    return Some(identity);
                }
            }
        };
        match tokio::time::timeout(deadline, wait).await {
            Ok(settled) => settled,
            Err(_) => self.directory().identity(uid).cloned(),
        }
    }
}

fn is_settled(identity: &Identity) -> bool {
    let waits = |o: &jeton_core::Operation| o.step() == Some(jeton_core::Step::Overlapped);
    identity.state == IdentityState::Failed || identity.operation.as_ref().is_none_or(waits)
}

impl Shared {
    pub(crate) fn now(&self) -> Wall {
        self.ports.clock.now().wall
    }

    pub(crate) fn new_uid(&self) -> Uid {
        Uid::new(self.now(), locked(&self.random).random())
    }

    pub(crate) fn unit(&self) -> f64 {
        locked(&self.random).random()
    }

    pub(crate) fn event(&self, event: LifecycleEvent) {
        (self.ports.on_event)(event);
    }

    /// Makes all writes durable, then shows them. Call with `change` held.
    pub(crate) async fn commit(&self, writes: Vec<Write>) -> Result<(), LifecycleError> {
        let shown: Vec<Shown> = writes.iter().filter_map(Shown::of).collect();
        self.ports.store.commit(writes).await?;
        let mut directory = self.ports.directory.snapshot().as_ref().clone();
        for change in shown {
            self.show(&mut directory, change);
        }
        self.ports.directory.publish(directory);
        self.revision.send_modify(|revision| *revision += 1);
        self.wake.notify_one();
        Ok(())
    }

    fn show(&self, directory: &mut Directory, change: Shown) {
        match change {
            Shown::Identity(identity) => {
                locked(&self.busy).put(&identity);
                locked(&self.causes).note(&identity);
                directory.put_identity(identity);
            }
            Shown::NoIdentity(uid) => {
                locked(&self.busy).remove(uid);
                locked(&self.causes).forget(uid);
                directory.remove_identity(uid);
            }
            Shown::Workload(workload) => directory.put_workload(workload),
            Shown::NoWorkload(uid) => drop(directory.remove_workload(uid)),
            Shown::Authority(authority) => directory.put_authority(authority),
            Shown::NoAuthority(uid) => drop(directory.remove_authority(uid)),
            Shown::Orphan(orphan) => {
                let mut orphans = locked(&self.orphans);
                orphans.retain(|known| known.uid != orphan.uid);
                orphans.push(orphan);
            }
            Shown::NoOrphan(uid) => locked(&self.orphans).retain(|orphan| orphan.uid != uid),
        }
    }

    /// What a repeated request made, if it is one. The write that remembers a new one comes back otherwise.
    pub(crate) async fn repeated(
        &self,
        request_id: &str,
        fingerprint: String,
        resource: Uid,
    ) -> Result<Repeated, LifecycleError> {
        if request_id.is_empty() {
            return Ok(Repeated::No(None));
        }
        if request_id.len() > 64 || !request_id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(LifecycleError::invalid(
                "request_id",
                "1 to 64 visible ASCII characters, such as a UUID",
            ));
        }
        match self.ports.store.recorded(request_id.to_owned()).await? {
            Some(recorded) if recorded.fingerprint == fingerprint => Ok(Repeated::Yes(recorded.resource)),
            Some(_) => Err(LifecycleError::RequestIdReused(request_id.to_owned())),
            None => {
                let recorded =
                    Recorded { request_id: request_id.to_owned(), fingerprint, resource, at: self.now() };
                Ok(Repeated::No(Some(Write::Recorded(recorded))))
            }
        }
    }
}

/// Whether a request was carried out before.
pub(crate) enum Repeated {
    /// It was, and made or changed this resource.
    Yes(Uid),
    /// It was not; what is to be remembered, if it has an id.
    No(Option<Write>),
}

/// The part of a write that the directory shows.
enum Shown {
    Identity(Arc<Identity>),
    NoIdentity(Uid),
    Workload(Arc<Workload>),
    NoWorkload(Uid),
    Authority(Arc<Authority>),
    NoAuthority(Uid),
    Orphan(Orphan),
    NoOrphan(Uid),
}

impl Shown {
    fn of(write: &Write) -> Option<Self> {
        Some(match write {
            Write::Identity(identity) => Self::Identity(Arc::new(identity.as_ref().clone())),
            Write::RemoveIdentity(uid) => Self::NoIdentity(*uid),
            Write::Workload(workload) => Self::Workload(Arc::new(workload.as_ref().clone())),
            Write::RemoveWorkload(uid) => Self::NoWorkload(*uid),
            Write::Authority(authority) => Self::Authority(Arc::new(authority.as_ref().clone())),
            Write::RemoveAuthority(uid) => Self::NoAuthority(*uid),
            Write::Orphan(orphan) => Self::Orphan(orphan.clone()),
            Write::RemoveOrphan(uid) => Self::NoOrphan(*uid),
            Write::Secret(..) | Write::RemoveSecret(_) | Write::Recorded(_) => return None,
        })
    }
}

/// A digest of a request's public parts (FNV-1a): tells an honest repetition from another request under the same id.
pub(crate) fn fingerprint(method: &str, parts: &[&str]) -> String {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{method}:{hash:016x}")
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
