//! The handle: authorization of requests.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jeton_core::{
    AccessSnapshot, Authority, Claims, Clock, Decision, Denial, Directory, Identity, IdentityName, Principal,
    Published, RoleAssignment, SharedDirectory, Subject, Target, TargetError, TargetRequest, TokenKey,
    TokenType, Uid,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::sync::watch;

use crate::{AccessSettings, AccessStore, AccessStoreError, Denied, NotPermitted, denials::Denials};

/// A cloneable handle on role assignments and decisions.
#[derive(Clone)]
pub struct Access {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) store: Arc<dyn AccessStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) directory: SharedDirectory,
    pub(crate) snapshot: Published<AccessSnapshot>,
    pub(crate) denials: Denials,
    /// Held over every read-change-commit.
    pub(crate) change: tokio::sync::Mutex<()>,
    pub(crate) changing: tokio::sync::Mutex<()>,
    revision: watch::Sender<u64>,
    random: Mutex<SmallRng>,
}

/// What a request may have.
#[derive(Debug, Clone)]
pub struct Authorized {
    /// The identity.
    pub identity: Arc<Identity>,
    /// Its authority.
    pub authority: Arc<Authority>,
    /// What the token is cached under.
    pub key: TokenKey,
    /// By which assignment.
    pub assignment: Arc<RoleAssignment>,
}

/// The id of the request under way, if it has one: under which a refusal of it is known.
pub type Correlation = fn() -> Option<String>;

/// Why a request gets nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// Not allowed, or not there; the caller does not learn which.
    Denied {
        /// For the operator.
        correlation_id: String,
    },
    /// The request names no target at the identity's authority. Told only to callers that may use the identity.
    BadTarget(TargetError),
    /// The request names no identity, and the caller has none of its own.
    NoSystemIdentity {
        /// For the operator.
        correlation_id: String,
    },
}

/// Why a change to role assignments was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// There is no such resource.
    #[error("{0} does not exist")]
    NotFound(String),
    /// It exists already.
    #[error("{0}")]
    Exists(String),
    /// A field of the request is wrong.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The request id was used for another request.
    #[error("request_id {0:?} was used for another request; use a new one")]
    RequestIdReused(String),
    /// The caller may not make this change.
    #[error("{0}")]
    NotPermitted(#[from] NotPermitted),
    /// Something must be so first.
    #[error("{0}")]
    Precondition(String),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] AccessStoreError),
}

/// A no, before anybody is told.
enum No {
    BadTarget(TargetError),
    Denied(Option<Target>, Denial),
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("assignments", &self.shared.snapshot.load().len())
            .finish_non_exhaustive()
    }
}

impl Access {
    /// Loads all assignments and publishes them.
    pub async fn start(
        settings: &AccessSettings,
        store: Arc<dyn AccessStore>,
        clock: Arc<dyn Clock>,
        directory: SharedDirectory,
        seed: u64,
    ) -> Result<Self, AccessError> {
        let mut snapshot = AccessSnapshot::default();
        store.load().await?.into_iter().for_each(|assignment| snapshot.put(Arc::new(assignment)));
        Ok(Self {
            shared: Arc::new(Shared {
                store,
                clock,
                directory,
                snapshot: Published::new(snapshot),
                denials: Denials::new(settings.max_remembered_denials),
                change: tokio::sync::Mutex::default(),
                changing: tokio::sync::Mutex::default(),
                revision: watch::Sender::default(),
                random: Mutex::new(SmallRng::seed_from_u64(seed)),
            }),
        })
    }

    /// Whether this caller may have this token; on the present snapshots, without I/O. `correlation`: the id under which a refusal is known.
    pub fn authorize(
        &self,
        principal: &Principal,
        identity: Option<&IdentityName>,
        request: &TargetRequest,
        claims: Option<Claims>,
        correlation: Correlation,
    ) -> Result<Authorized, Refused> {
        self.decide(principal, identity, request, claims).map_err(|no| {
            let asked = identity.map_or("", |name| name.as_str());
            let denied = |target, denial| self.deny(principal, asked, request, target, denial, correlation);
            match no {
                No::BadTarget(error) => Refused::BadTarget(error),
                No::Denied(target, Denial::NoSystemIdentity) => Refused::NoSystemIdentity {
                    correlation_id: denied(target.as_ref(), Denial::NoSystemIdentity),
                },
                No::Denied(target, denial) => {
                    Refused::Denied { correlation_id: denied(target.as_ref(), denial) }
                }
            }
        })
    }

    /// The no to a request that names an identity in a way in which none is known, such as by a client id.
    pub fn unknown_identity(
        &self,
        principal: &Principal,
        asked: &str,
        request: &TargetRequest,
        correlation: Correlation,
    ) -> Refused {
        let correlation_id = self.deny(principal, asked, request, None, Denial::UnknownIdentity, correlation);
        Refused::Denied { correlation_id }
    }

    /// The same decision for whoever only wants to know whether it is a yes: a no is neither explained nor remembered.
    pub fn allowed(
        &self,
        principal: &Principal,
        identity: Option<&IdentityName>,
        request: &TargetRequest,
        claims: Option<Claims>,
    ) -> Option<Authorized> {
        self.decide(principal, identity, request, claims).ok()
    }

    /// Whether this caller may use this identity for anything.
    pub fn reaches(&self, principal: &Principal, identity: &Identity) -> bool {
        let directory = self.shared.directory.load();
        let subject = Subject { principal, workload: directory.workload_of(principal).map(|w| w.uid) };
        self.shared.snapshot.load().reaching(subject, identity).next().is_some()
    }

    /// The revision of what decisions rest on. A decision that was made after reading it holds as long as it stays the same, and no longer
    /// than the assignment's expiry.
    pub fn revision(&self) -> (u64, u64) {
        (self.shared.directory.revision(), self.shared.snapshot.revision())
    }

    fn decide(
        &self,
        principal: &Principal,
        identity: Option<&IdentityName>,
        request: &TargetRequest,
        claims: Option<Claims>,
    ) -> Result<Authorized, No> {
        let directory = self.shared.directory.load();
        let workload = directory.workload_of(principal);
        let subject = Subject { principal, workload: workload.map(|w| w.uid) };
        let identity = match identity {
            Some(name) => directory.identity_named(name).ok_or(No::Denied(None, Denial::UnknownIdentity))?,
            None => workload
                .and_then(|w| w.system_identity)
                .and_then(|uid| directory.identity(uid))
                .ok_or(No::Denied(None, Denial::NoSystemIdentity))?,
        };
        let authority =
            directory.authority(identity.authority).ok_or(No::Denied(None, Denial::UnknownIdentity))?;
        let snapshot = self.shared.snapshot.load();
        // What is wrong with a target tells something of the authority, so only those who reach the identity hear of it.
        let target = match Target::resolve(request, &authority.profile) {
            Ok(target) => target,
            Err(error) if snapshot.reaching(subject, identity).next().is_some() => {
                return Err(No::BadTarget(error));
            }
            Err(_) => return Err(No::Denied(None, Denial::NoAssignment)),
        };
        match snapshot.decide(subject, identity, &target, self.shared.clock.now().wall) {
            Decision::Allow(_) if !identity.may_issue() => {
                Err(No::Denied(Some(target), Denial::IdentityNotActive))
            }
            Decision::Allow(assignment) => Ok(Authorized {
                key: key(identity, authority, target, claims),
                identity: Arc::clone(identity),
                authority: Arc::clone(authority),
                assignment,
            }),
            Decision::Deny(denial) => Err(No::Denied(Some(target), denial)),
        }
    }

    /// Changes whenever the assignments do. Whoever was allowed something for longer than one request asks again then.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// The present assignments.
    pub fn snapshot(&self) -> Arc<AccessSnapshot> {
        self.shared.snapshot.snapshot()
    }

    fn deny(
        &self,
        principal: &Principal,
        identity: &str,
        request: &TargetRequest,
        target: Option<&Target>,
        denial: Denial,
        correlation: Correlation,
    ) -> String {
        let asked =
            || [&request.scopes[..], &request.resources[..]].concat().join(" ").chars().take(300).collect();
        let target = target.map_or_else(asked, ToString::to_string);
        let id = correlation().unwrap_or_else(|| self.shared.new_uid().to_string());
        let denied = Denied {
            principal: principal.clone(),
            method: None,
            identity: identity.chars().take(100).collect(),
            target,
            denial,
            at: self.shared.clock.now().wall,
        };
        self.shared.denials.remember(id.clone(), denied);
        id
    }
}

pub(crate) fn key(
    identity: &Identity,
    authority: &Authority,
    target: Target,
    claims: Option<Claims>,
) -> TokenKey {
    TokenKey {
        identity: identity.uid,
        authority: authority.uid,
        profile_version: authority.profile_version,
        target,
        claims,
        token_type: TokenType::Bearer,
        cnf: None,
    }
}

impl Shared {
    pub(crate) fn new_uid(&self) -> Uid {
        let random = self.random.lock().unwrap_or_else(PoisonError::into_inner).random();
        Uid::new(self.clock.now().wall, random)
    }

    pub(crate) fn publish(&self, snapshot: AccessSnapshot) {
        self.snapshot.publish(snapshot);
        self.revision.send_modify(|revision| *revision += 1);
    }

    pub(crate) fn directory(&self) -> Arc<Directory> {
        self.directory.snapshot()
    }
}

impl Authorized {
    /// The most life a token may have left for this caller, if its assignment says so.
    pub fn max_lifetime(&self) -> Option<Duration> {
        self.assignment.max_token_lifetime
    }
}
