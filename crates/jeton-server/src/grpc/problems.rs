//! What needs an operator.

use jeton_access::AdminCall;
use jeton_core::{Directory, IdentityState, Object, Uid};
use jeton_engine::{IssueErrorClass, SlotInfo, SlotState};
use jeton_proto::v1;

use super::{convert::wire_duration, permit::object, routes::Broker};

/// More would not be read.
const MOST: usize = 100;

impl Broker {
    /// What needs attention and may be seen, the worst first.
    pub(super) fn problems(&self, call: &AdminCall) -> Vec<v1::Problem> {
        let directory = self.lifecycle.directory();
        let mut problems = self.troubles();
        problems.extend(self.starving(call, &directory));
        for identity in directory.identities_after(None).filter(|i| call.may(object(i))) {
            let Some(operation) = &identity.operation else { continue };
            let failed = identity.state == IdentityState::Failed;
            let shown = failed || operation.permanent || operation.attempts >= 3;
            if let Some(error) = operation.last_error.as_ref().filter(|_| shown) {
                let remedy = if failed {
                    format!("jeton identity enable {}", identity.name)
                } else {
                    format!("jeton identity get {}", identity.name)
                };
                problems.push(problem(identity.name.to_string(), error.clone(), remedy));
            }
        }
        let all = call.may(Object::All);
        for orphan in self.lifecycle.orphans().into_iter().filter(|_| all) {
            let authority =
                directory.authority(orphan.authority).map_or_else(String::new, |a| a.name.to_string());
            let text = match (&orphan.client_id, orphan.repeated) {
                (Some(client_id), _) => format!(
                    "what managed the client {client_id} was lost: it may still exist there, named {}",
                    orphan.client_name
                ),
                (None, 0) => format!(
                    "the answer to a registration was lost: a client named {} may exist there",
                    orphan.client_name
                ),
                (None, more) => format!(
                    "the answers to {} registrations were lost: as many clients named {} may exist there",
                    u64::from(more) + 1,
                    orphan.client_name
                ),
            };
            problems.push(problem(
                authority,
                text,
                "look for it at the authority, and delete it there if it is not in use".into(),
            ));
        }
        for name in self.quarantined.iter().filter(|_| all) {
            let text = "its row in the registry cannot be read and is left out".to_owned();
            problems.push(problem(name.clone(), text, "restore the registry from a backup".into()));
        }
        problems.truncate(MOST);
        problems
    }

    /// What is wrong with the broker itself.
    pub fn troubles(&self) -> Vec<v1::Problem> {
        let mut problems = vec![];
        if let Some(error) = (self.unwritable)() {
            let remedy =
                "make room on the disk of the data directory, or make it writable; no restart is needed"
                    .into();
            problems.push(problem("registry".into(), format!("the last write failed: {error}"), remedy));
        }
        let alarms = self.alarms.raised().into_iter();
        problems.extend(alarms.map(|(subject, alarm)| problem(subject, alarm.message, alarm.remedy)));
        problems.extend((self.failing_issuers)().into_iter().map(|(issuer, failure)| {
            let text = format!(
                "the keys of {issuer} cannot be fetched; those that are known stay in use: {failure}"
            );
            let remedy =
                "see that the issuer, or its jwks_file, can be reached from here ([[access.issuers]])";
            problem("access.issuers".into(), text, remedy.into())
        }));
        let trail = self.trail.problems().into_iter();
        problems.extend(trail.map(|p| problem("audit log".into(), p.message, p.remedy.into())));
        problems
    }

    /// Tokens whose refresh fails: the one that callers will miss first before the others.
    fn starving(&self, call: &AdminCall, directory: &Directory) -> impl Iterator<Item = v1::Problem> {
        let slots = self.engine.slots();
        let mut failing: Vec<_> =
            slots.filter(|slot| is_failing(slot) && sees(call, directory, slot.key.identity)).collect();
        failing.sort_by_key(|slot| slot.served_for);
        failing.truncate(MOST);
        failing.into_iter().filter_map(|slot| {
            let error = slot.last_error?;
            let identity =
                directory.identity(slot.key.identity).map_or_else(String::new, |i| i.name.to_string());
            let authority =
                directory.authority(slot.key.authority).map_or_else(String::new, |a| a.name.to_string());
            let left = match slot.served_for.as_secs() {
                0 => "callers get none".to_owned(),
                left => format!("the present one is served for {left} s more"),
            };
            let message = format!("no fresh token for {}, {left}: {}", slot.key.target, error.message);
            let remedy = match error.class {
                IssueErrorClass::Transient | IssueErrorClass::Throttled => {
                    format!("jeton authority test {authority}")
                }
                IssueErrorClass::Credential => format!("jeton identity rotate {identity}"),
                _ => format!("jeton identity get {identity}"),
            };
            let starves_in = Some(wire_duration(slot.served_for));
            Some(v1::Problem { subject: identity, message, remedy, starves_in })
        })
    }
}

fn problem(subject: String, message: String, remedy: String) -> v1::Problem {
    v1::Problem { subject, message, remedy, starves_in: None }
}

/// Whether its refresh fails although it is due.
pub(super) fn is_failing(slot: &SlotInfo) -> bool {
    slot.last_error.is_some() && slot.state != SlotState::Fresh
}

/// Whether the caller may hear of an identity. One that is gone belongs to nobody's part.
pub(super) fn sees(call: &AdminCall, directory: &Directory, identity: Uid) -> bool {
    call.may(directory.identity(identity).map_or(Object::All, |found| object(found)))
}
