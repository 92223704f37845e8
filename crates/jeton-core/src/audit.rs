//! What is written down of what was done, and the trail that keeps it.
//!
//! An event has the fields that stand here and no others: what is not a field cannot get into the log. None of them holds a secret; a
//! token is named by the first 32 bits of its SHA-256.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::{BoxFuture, Principal, Role, Uid, Wall};

/// One event. What does not apply is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditEvent {
    /// What kind of thing was done.
    pub kind: AuditKind,
    /// What became of it.
    pub outcome: AuditOutcome,
    /// Who asked. Absent: the broker, of its own accord.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    /// The workload to which the principal belongs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<AuditResource>,
    /// Who asked in the principal's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegated_by: Option<Principal>,
    /// What was asked: a method of the API, or a step of the lifecycle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Box<str>>,
    /// What it was done to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<AuditResource>,
    /// The credential that was made, used or removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Uid>,
    /// The role that was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// What a token was for, canonical where it could be resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Box<str>>,
    /// The reason of a refusal or failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// Ties an intent to its outcome, and a denial to what the caller was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Box<str>>,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Box<str>>,
    /// Which token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenHash>,
    /// How often, where one event stands for many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// When the first of them was.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_words")]
    pub first: Option<Wall>,
    /// When the last of them was.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_words")]
    pub last: Option<Wall>,
}

/// The kinds of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub enum AuditKind {
    /// A change that somebody asked for on the admin plane.
    #[serde(rename = "admin.change")]
    AdminChange,
    /// A step of an identity's life that makes, registers, switches or removes a key.
    #[serde(rename = "key.step")]
    KeyStep,
    /// An assertion or a proof that was handed out to be sent.
    #[serde(rename = "assertion.sent")]
    AssertionSent,
    /// Tokens that were handed out.
    #[serde(rename = "token.served")]
    TokenServed,
    /// A caller that got none.
    #[serde(rename = "access.denied")]
    AccessDenied,
}

impl AuditKind {
    /// Whether events of this kind come in such numbers that they are written in batches, and the oldest may have to go.
    pub const fn is_frequent(self) -> bool {
        matches!(self, Self::AssertionSent | Self::TokenServed | Self::AccessDenied)
    }
}

/// What became of what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AuditOutcome {
    /// It is about to be done. Its outcome follows, or the process ended before it.
    Intent,
    /// It was done.
    Ok,
    /// It was refused.
    Denied,
    /// It was tried and failed.
    Failed,
}

/// A resource as it was called, and its uid where there is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AuditResource {
    /// Its name.
    pub name: Box<str>,
    /// Its uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<Uid>,
}

/// The first 32 bits of a token's SHA-256; never nought, so that nought can mean none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(u32);

/// The trail cannot be written, so what must be on it is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written, so nothing is changed: {0}")]
pub struct AuditUnavailable(pub String);

/// Something that is wrong with the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditProblem {
    /// What.
    pub message: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Keeps events.
pub trait AuditTrail: Send + Sync + 'static {
    /// Returns when the event is on disk. What is an [`AuditOutcome::Intent`] and cannot be written is forgotten, for it is not carried
    /// out; any other is kept, and written as soon as that is possible.
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<(), AuditUnavailable>>;

    /// Hands an event over without waiting.
    fn note(&self, event: AuditEvent);

    /// Whether there is room for more frequent events, or losing some is allowed. If not, what leads to them is to be refused.
    fn has_room(&self) -> bool;

    /// What is wrong with the trail, for whoever operates the broker.
    fn problems(&self) -> Vec<AuditProblem>;
}

impl AuditEvent {
    /// An event with nothing but its kind and outcome.
    pub const fn new(kind: AuditKind, outcome: AuditOutcome) -> Self {
        Self {
            kind,
            outcome,
            principal: None,
            workload: None,
            delegated_by: None,
            method: None,
            resources: Vec::new(),
            credential: None,
            role: None,
            target: None,
            reason: None,
            correlation_id: None,
            peer: None,
            token: None,
            count: None,
            first: None,
            last: None,
        }
    }

    /// The same, with what became of it.
    #[must_use]
    pub fn with_outcome(mut self, outcome: AuditOutcome, reason: Option<&str>) -> Self {
        self.outcome = outcome;
        self.reason = reason.map(Into::into);
        self
    }
}

impl AuditResource {
    /// A resource by its name.
    pub fn new(name: impl Into<Box<str>>, uid: Option<Uid>) -> Self {
        Self { name: name.into(), uid }
    }
}

impl TokenHash {
    /// From a token's SHA-256.
    pub fn new(sha256: &[u8]) -> Self {
        let first = sha256.first_chunk().copied().unwrap_or_default();
        Self(u32::from_be_bytes(first).max(1))
    }

    /// From its bits; none if they are nought.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }

    /// Its bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[allow(clippy::ref_option, reason = "serde passes the field")]
fn in_words<S: Serializer>(at: &Option<Wall>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.collect_str(&at.rfc3339()),
        None => serializer.serialize_none(),
    }
}

/// A trail in memory, for tests.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    use std::sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    };

    use super::*;

    /// Keeps events in memory. Clones share what they keep.
    #[derive(Debug, Clone, Default)]
    pub struct MemoryTrail(Arc<State>);

    #[derive(Debug, Default)]
    struct State {
        events: Mutex<Vec<AuditEvent>>,
        /// Read without the lock, as every hit does.
        broken: AtomicBool,
    }

    impl MemoryTrail {
        /// Everything so far.
        pub fn events(&self) -> Vec<AuditEvent> {
            self.locked().clone()
        }

        /// Whether nothing can be written from now on.
        pub fn set_broken(&self, broken: bool) {
            self.0.broken.store(broken, Relaxed);
        }

        fn locked(&self) -> MutexGuard<'_, Vec<AuditEvent>> {
            self.0.events.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl AuditTrail for MemoryTrail {
        fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<(), AuditUnavailable>> {
            let written = if !self.has_room() && event.outcome == AuditOutcome::Intent {
                Err(AuditUnavailable("it is broken for a test".into()))
            } else {
                self.locked().push(event);
                Ok(())
            };
            Box::pin(async { written })
        }

        fn note(&self, event: AuditEvent) {
            self.locked().push(event);
        }

        fn has_room(&self) -> bool {
            !self.0.broken.load(Relaxed)
        }

        fn problems(&self) -> Vec<AuditProblem> {
            vec![]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_fields_in_order_and_no_others() {
        let mut event = AuditEvent::new(AuditKind::TokenServed, AuditOutcome::Ok);
        event.principal = Some(Principal::loopback_dev());
        event.resources = vec![AuditResource::new("identities/a", None)];
        event.token = Some(TokenHash::new(&[0xab; 32]));
        event.count = Some(3);
        event.first = Some(Wall::from_millis(1_767_225_600_005));
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"kind":"token.served","outcome":"ok","principal":"loopback://dev","resources":[{"name":"identities/a"}],"token":"abababab","count":3,"first":"2026-01-01T00:00:00.005Z"}"#
        );
    }
}
