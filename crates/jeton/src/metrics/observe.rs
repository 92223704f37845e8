//! Reads what the crates counted, under the names of the table.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jeton_audit::Trail;
use jeton_authority::AuthorityClient;
use jeton_core::{
    CredentialKind, CredentialState, Directory, Identity, IdentityState, Now, OperationKind, Uid,
};
use jeton_engine::{Census, SlotState};
use jeton_keys::Keys;
use jeton_server::{
    door::{AuthenticationFailure, Calls},
    grpc::Broker,
};
use jeton_telemetry::{Instrument, Snapshot, TelemetrySettings, instrument};

use super::Doors;

/// Authorities with series of their own; as many as the crates tell apart.
const MOST_AUTHORITIES: usize = 1_000;
const OTHER: &str = "_other";

/// Everything that is read.
pub(super) struct Observed {
    pub(super) broker: Broker,
    pub(super) keys: Keys,
    pub(super) authorities: AuthorityClient,
    pub(super) log: Trail,
    pub(super) calls: Arc<Calls>,
    pub(super) doors: Doors,
    pub(super) settings: TelemetrySettings,
}

impl Observed {
    /// Reads it.
    pub(super) fn read(&self, to: &mut Snapshot) {
        let (directory, now) = (self.broker.lifecycle.directory(), self.broker.clock.now());
        self.calls(to);
        self.tokens(to, &directory);
        self.slots(to, &directory);
        self.budgets(to, &directory);
        self.assertions(to);
        self.credentials(to, &directory, now);
        self.lifecycle(to);
        self.access(to);
        self.audit(to);
        self.doors(to);
        let alarms = self.broker.alarms.raised().len() + (self.broker.failing_issuers)().len();
        to.count(&instrument::ALARMS, [], alarms as u64);
        to.count(&instrument::DRAINING, [], self.broker.drain.has_begun().into());
    }

    fn calls(&self, to: &mut Snapshot) {
        let errors =
            ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];
        for call in self.calls.calls() {
            let error = if errors.contains(&call.code) { call.code } else { "" };
            to.buckets(&instrument::RPC_DURATION, ["grpc", &call.method, call.code, error], call.took);
        }
        for (kind, took) in self.calls.requests() {
            let status = kind.status.to_string();
            let error = if kind.status >= 500 { &status } else { "" };
            let with = [kind.method, kind.scheme, &status, error, kind.door];
            to.buckets(&instrument::HTTP_DURATION, with, took);
        }
    }

    fn tokens(&self, to: &mut Snapshot, directory: &Directory) {
        let counts = self.broker.engine.counts();
        let denied = self.broker.access.denial_counts();
        let denied = denied.iter().filter(|(plane, ..)| *plane == "data").map(|(.., count)| count).sum();
        for (result, count) in
            [("fresh", counts.fresh), ("stale", counts.stale), ("miss", counts.missed), ("denied", denied)]
        {
            to.count(&instrument::LOOKUPS, [result], count);
        }
        to.count(&instrument::WAITING, [], counts.waiting.into());
        to.count(&instrument::WATCHES, [], counts.watches.into());
        for (limit, count) in counts.limits {
            to.count(&instrument::QUOTA, [limit], count);
        }
        for (uid, of) in counts.authorities {
            let none = of.ended.iter().all(|(.., count)| *count == 0);
            let Some(authority) = named(directory, uid).filter(|_| uid.is_some() || !none) else { continue };
            for (cause, outcome, count) in of.ended {
                to.count(&instrument::REFRESHES, [authority, cause, outcome], count);
            }
            to.buckets(&instrument::REFRESH_DELAY, [authority], of.delay);
        }
        for call in self.authorities.calls() {
            if let Some(authority) = named(directory, call.authority) {
                to.buckets(&instrument::AUTHORITY_CALLS, [authority, call.operation, call.class], call.took);
            }
        }
    }

    fn slots(&self, to: &mut Snapshot, directory: &Directory) {
        let Census { states, failing, starving, starving_identities } = self.broker.engine.census();
        for state in [SlotState::Fresh, SlotState::Stale, SlotState::Expired, SlotState::Empty] {
            let count = states.get(&state).copied().unwrap_or_default();
            to.count(&instrument::SLOTS, [state.as_str()], count);
        }
        for authority in directory.authorities_after(None).take(MOST_AUTHORITIES) {
            let count = failing.get(&authority.uid).copied().unwrap_or_default();
            to.count(&instrument::FAILING, [authority.name.as_str()], count);
            if let Some(left) = starving.get(&authority.uid) {
                to.value(&instrument::STARVATION, [authority.name.as_str()], left.as_secs_f64());
            }
        }
        let starving = starving_identities
            .into_iter()
            .filter_map(|(uid, left)| Some((directory.identity(uid)?.name.as_str(), left)));
        self.worst(to, &instrument::IDENTITY_STARVATION, starving.collect());
        let stats = self.broker.engine.stats();
        to.count(&instrument::SLOT_BYTES, [], stats.bytes);
        to.count(&instrument::DROPPED_WRITES, [], stats.dropped_writes);
    }

    fn budgets(&self, to: &mut Snapshot, directory: &Directory) {
        let mut longest = HashMap::<Uid, Duration>::new();
        for budget in self.broker.engine.stats().budgets.into_iter().take(MOST_AUTHORITIES) {
            let Some(authority) = named(directory, Some(budget.authority)) else { continue };
            to.value(&instrument::BUDGET_RATE, [authority], budget.requests_per_second);
            to.value(&instrument::BUDGET_USED, [authority], budget.used);
            to.count(&instrument::AUTHORITY_ACTIVE, [authority], budget.in_flight.into());
            to.count(&instrument::HELD, [authority], budget.held_identities.into());
            longest.insert(budget.authority, budget.retry_after);
        }
        // Of registrars too, and of what is no request for a token.
        for (owner, left) in self.authorities.held() {
            let authority = directory.identity(owner).map_or(owner, |identity| identity.authority);
            let known = longest.entry(authority).or_default();
            *known = left.max(*known);
        }
        for authority in directory.authorities_after(None).take(MOST_AUTHORITIES) {
            let left = longest.get(&authority.uid).copied().unwrap_or_default();
            to.value(&instrument::RETRY_AFTER, [authority.name.as_str()], left.as_secs_f64());
        }
    }

    fn assertions(&self, to: &mut Snapshot) {
        let stats = self.keys.stats();
        to.count(&instrument::POOLED, ["ready"], stats.presigned as u64);
        to.count(&instrument::POOLED, ["coming"], stats.coming as u64);
        to.buckets(&instrument::SIGNING, [], self.keys.signing());
        to.count(&instrument::SPENT, ["pool"], stats.taken_from_pool);
        to.count(&instrument::SPENT, ["signed"], stats.signed_while_waited);
        to.count(&instrument::EXPIRED, [], stats.expired_unused);
    }

    fn credentials(&self, to: &mut Snapshot, directory: &Directory, now: Now) {
        let mut all = Identities::default();
        directory.identities_after(None).for_each(|identity| all.add(identity, now));
        for (state, count) in STATES.into_iter().zip(all.states) {
            to.count(&instrument::IDENTITIES, [state], count);
        }
        for (kind, states) in ["certificate", "secret"].into_iter().zip(all.credentials) {
            for (state, count) in ["pending", "current", "overlap"].into_iter().zip(states) {
                to.count(&instrument::CREDENTIALS, [kind, state], count);
            }
        }
        for (operation, states) in
            ["provision", "attach", "rotate", "verify", "delete"].into_iter().zip(all.operations)
        {
            for (state, count) in ["running", "retrying", "failed"].into_iter().zip(states) {
                to.count(&instrument::OPERATIONS, [operation, state], count);
            }
        }
        for authority in directory.authorities_after(None).take(MOST_AUTHORITIES) {
            let name = authority.name.as_str();
            if let Some(age) = all.oldest.get(&authority.uid) {
                to.value(&instrument::CREDENTIAL_AGE, [name], age.as_secs_f64());
            }
            if let Some(left) = all.first_to_end.get(&authority.uid) {
                to.value(&instrument::CREDENTIAL_LEFT, [name], left.as_secs_f64());
            }
        }
        self.worst(to, &instrument::IDENTITY_CREDENTIAL_LEFT, all.left);
    }

    /// The named identities, and those that are worst off beside them.
    fn worst(&self, to: &mut Snapshot, of: &'static Instrument, all: Vec<(&str, Duration)>) {
        let named = |name: &str| self.settings.named_identities.iter().any(|named| named == name);
        let (chosen, mut others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(name, _)| named(name));
        let most = self.settings.worst_identities;
        if others.len() > most {
            others.select_nth_unstable_by_key(most, |(_, left)| *left);
            others.truncate(most);
        }
        for (name, left) in chosen.into_iter().chain(others) {
            to.value(of, [name], left.as_secs_f64());
        }
    }

    fn lifecycle(&self, to: &mut Snapshot) {
        for step in self.broker.lifecycle.step_counts() {
            for (outcome, count) in step.ended {
                to.count(&instrument::STEPS, [step.step.as_str(), outcome], count);
            }
            to.buckets(&instrument::STEP_DURATION, [step.step.as_str()], step.took);
        }
        to.count(&instrument::ORPHANS, [], self.broker.lifecycle.orphans().len() as u64);
    }

    fn access(&self, to: &mut Snapshot) {
        for (plane, denial, count) in self.broker.access.denial_counts() {
            to.count(&instrument::DENIALS, [plane, denial], count);
        }
    }

    fn audit(&self, to: &mut Snapshot) {
        let stats = self.log.stats();
        to.value(&instrument::AUDIT_LAG, [], stats.lag.as_secs_f64());
        to.count(&instrument::AUDIT_QUEUED, [], stats.queued as u64);
        to.count(&instrument::AUDIT_LOST, [], stats.lost);
        to.count(&instrument::AUDIT_WRITTEN, [], stats.written);
    }

    fn doors(&self, to: &mut Snapshot) {
        for (door, stats) in self.doors.stats() {
            to.count(&instrument::CONNECTIONS, [door], stats.open);
            to.count(&instrument::ACCEPTED, [door], stats.accepted);
            let closed = [("full", stats.full), ("silent", stats.silent), ("misused", stats.misused)];
            for (reason, count) in closed {
                to.count(&instrument::CLOSED, [door, reason], count);
            }
            to.count(&instrument::STREAMS, [door], stats.streams);
            to.count(&instrument::RESETS, [door], stats.cancelled);
            to.count(&instrument::LATE, [door], stats.late);
            for (why, count) in AuthenticationFailure::NAMES.into_iter().zip(stats.failures) {
                to.count(&instrument::AUTHENTICATION_FAILURES, [door, why], count);
            }
        }
    }
}

const STATES: [&str; 5] = ["provisioning", "active", "disabled", "deleting", "failed"];

/// What identities have in common.
#[derive(Default)]
struct Identities<'a> {
    states: [u64; STATES.len()],
    credentials: [[u64; 3]; 2],
    operations: [[u64; 3]; 5],
    oldest: HashMap<Uid, Duration>,
    first_to_end: HashMap<Uid, Duration>,
    left: Vec<(&'a str, Duration)>,
}

impl<'a> Identities<'a> {
    fn add(&mut self, identity: &'a Identity, now: Now) {
        let state = match identity.state {
            IdentityState::Provisioning => 0,
            IdentityState::Active => 1,
            IdentityState::Disabled => 2,
            IdentityState::Deleting => 3,
            IdentityState::Failed => 4,
        };
        self.states[state] += 1;
        for credential in &identity.credentials {
            let kind = usize::from(matches!(credential.kind, CredentialKind::Secret { .. }));
            let state = match credential.state {
                CredentialState::Pending => 0,
                CredentialState::Current => 1,
                CredentialState::Overlap => 2,
            };
            self.credentials[kind][state] += 1;
        }
        if let Some(operation) = &identity.operation {
            let kind = match operation.kind {
                OperationKind::Provision => 0,
                OperationKind::Attach => 1,
                OperationKind::Rotate => 2,
                OperationKind::Verify => 3,
                OperationKind::Delete => 4,
            };
            let failed = operation.permanent || identity.state == IdentityState::Failed;
            let state = if failed { 2 } else { usize::from(operation.attempts > 0) };
            self.operations[kind][state] += 1;
        }
        let Some(current) = identity.current() else { return };
        let age = now.wall.saturating_since(current.created_at);
        let oldest = self.oldest.entry(identity.authority).or_default();
        *oldest = age.max(*oldest);
        if let Some(end) = current.expires_at() {
            let left = end.saturating_since(now.wall);
            let first = self.first_to_end.entry(identity.authority).or_insert(left);
            *first = left.min(*first);
            self.left.push((identity.name.as_str(), left));
        }
    }
}

/// The name of an authority; none: it is gone.
fn named(directory: &Directory, uid: Option<Uid>) -> Option<&str> {
    match uid {
        Some(uid) => directory.authority(uid).map(|authority| authority.name.as_str()),
        None => Some(OTHER),
    }
}
