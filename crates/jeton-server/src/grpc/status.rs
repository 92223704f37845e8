//! StatusService.

use std::collections::HashMap;

use jeton_access::AdminCall;
use jeton_core::{Directory, IdentityState, Object, Uid};
use jeton_engine::SlotState;
use jeton_proto::v1::{self, status_service_server::StatusService};
use tonic::{Request, Response, Status};

use super::{
    convert::{page_size, timestamp, wire_duration},
    error::Failure,
    permit::object,
    routes::Broker,
};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl StatusService for Broker {
    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let call = self.admin_call(&request)?;
        let directory = self.lifecycle.directory();
        let problems = self.problems(&call);
        let mut identities: HashMap<String, u64> = HashMap::new();
        for identity in directory.identities_after(None).filter(|i| call.may(object(i))) {
            *identities.entry(format!("{:?}", identity.state).to_lowercase()).or_default() += 1;
        }
        let mut tokens: HashMap<String, u64> = HashMap::new();
        for slot in self.engine.slots().into_iter().filter(|slot| sees(&call, &directory, slot.key.identity))
        {
            *tokens.entry(slot.state.as_str().to_owned()).or_default() += 1;
        }
        let budgets = self.engine.stats().budgets;
        let authorities = directory.authorities_after(None).map(|authority| {
            let budget = budgets.iter().find(|b| b.authority == authority.uid);
            v1::AuthorityStatus {
                name: authority.name.to_string(),
                requests_per_second: budget
                    .map_or(f64::from(authority.profile.limits.requests_per_second), |b| {
                        b.requests_per_second
                    }),
                in_flight: budget.map_or(0, |b| b.in_flight),
                held_identities: budget.map_or(0, |b| b.held_identities),
            }
        });
        let orphans = self.lifecycle.orphans().into_iter().filter(|_| call.may(Object::All));
        let orphans = orphans.map(|orphan| v1::SuspectedOrphan {
            authority: directory.authority(orphan.authority).map_or_else(String::new, |a| a.name.to_string()),
            client_name: orphan.client_name,
            time: Some(timestamp(orphan.at)),
        });
        Ok(Response::new(v1::StatusResponse {
            healthy: problems.is_empty(),
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.node.clone(),
            uptime: Some(wire_duration(self.started.elapsed())),
            problems,
            identities,
            tokens,
            authorities: authorities.collect(),
            suspected_orphans: orphans.collect(),
        }))
    }

    async fn list_tokens(&self, request: Request<v1::ListTokensRequest>) -> Answer<v1::ListTokensResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let directory = self.lifecycle.directory();
        let wanted = match r.identity.as_str() {
            "" => None,
            name => {
                let name: jeton_core::IdentityName = name.parse().map_err(Failure::from)?;
                self.must_on_identity(&call, &name)?;
                Some(directory.identity_named(&name).ok_or_else(|| Failure::not_found(&name))?.uid)
            }
        };
        let skip: usize = match r.page_token.as_str() {
            "" => 0,
            token => token.parse().map_err(|_| Failure::field("page_token", "not one that a list gave"))?,
        };
        let all = self
            .engine
            .slots()
            .into_iter()
            .filter(|slot| wanted.is_none_or(|uid| slot.key.identity == uid))
            .filter(|slot| sees(&call, &directory, slot.key.identity))
            .skip(skip);
        let page = jeton_lifecycle::page(all, page_size(r.page_size)?);
        let next_page_token = if page.more { (skip + page.items.len()).to_string() } else { String::new() };
        let tokens = page.items.into_iter().map(|slot| v1::TokenInfo {
            identity: directory
                .identity(slot.key.identity)
                .map_or_else(|| slot.key.identity.to_string(), |i| i.name.to_string()),
            authority: directory
                .authority(slot.key.authority)
                .map_or_else(String::new, |a| a.name.to_string()),
            target: slot.key.target.to_string(),
            claims: slot.key.claims.map_or_else(String::new, |c| c.as_str().to_owned()),
            state: slot.state.as_str().into(),
            expires_at: slot.expires_at.map(timestamp),
            refresh_at: slot.refresh_at.map(timestamp),
            last_used: Some(timestamp(slot.last_used)),
            pinned: slot.pinned,
            last_error: slot.last_error.as_deref().unwrap_or_default().to_owned(),
        });
        Ok(Response::new(v1::ListTokensResponse { tokens: tokens.collect(), next_page_token }))
    }
}

/// Whether the caller may hear of an identity. One that is gone belongs to nobody's part.
fn sees(call: &AdminCall, directory: &Directory, identity: Uid) -> bool {
    call.may(directory.identity(identity).map_or(Object::All, |found| object(found)))
}

impl Broker {
    /// What needs attention and may be seen, the worst first.
    fn problems(&self, call: &AdminCall) -> Vec<v1::Problem> {
        let directory = self.lifecycle.directory();
        let problem =
            |subject: String, message: String, remedy: String| v1::Problem { subject, message, remedy };
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
        for slot in self.engine.slots().into_iter().filter(|slot| sees(call, &directory, slot.key.identity)) {
            let (Some(error), true) = (slot.last_error, slot.state != SlotState::Fresh) else { continue };
            let name = directory.identity(slot.key.identity).map_or_else(String::new, |i| i.name.to_string());
            let text = format!("no fresh token for {} ({}): {error}", slot.key.target, slot.state.as_str());
            problems.push(problem(name.clone(), text, format!("jeton identity get {name}")));
        }
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
        problems.truncate(100);
        problems
    }
}
