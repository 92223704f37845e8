//! StatusService.

use std::{cmp::Reverse, collections::HashMap, sync::Arc, time::Duration};

use jeton_access::AdminCall;
use jeton_core::{CredentialKind, Directory, Object, Permission, Uid};
use jeton_engine::SlotInfo;
use jeton_proto::v1::{self, status_service_server::StatusService};
use tonic::{Request, Response, Status};

use super::{
    convert::{page_size, timestamp, wire_duration},
    error::Failure,
    permit::object,
    problems::{is_failing, sees},
    routes::Broker,
};
use crate::{History, Rates};

/// Certificates that are shown.
const MAX_CERTIFICATES: usize = 10;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl StatusService for Broker {
    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let call = self.admin_call(&request)?;
        Ok(Response::new(self.looked(move |broker| broker.state(&call)).await?))
    }

    async fn list_identity_statuses(
        &self,
        request: Request<v1::ListIdentityStatusesRequest>,
    ) -> Answer<v1::ListIdentityStatusesResponse> {
        let call = self.admin_call(&request)?;
        Ok(Response::new(self.identity_statuses(call, request.into_inner()).await?))
    }

    async fn get_history(&self, request: Request<v1::GetHistoryRequest>) -> Answer<v1::GetHistoryResponse> {
        let call = self.admin_call(&request)?;
        let points = if call.may(Object::All) { self.history.points() } else { vec![] };
        let point = |(at, of)| v1::HistoryPoint { time: Some(timestamp(at)), rates: Some(rates(&of)) };
        Ok(Response::new(v1::GetHistoryResponse {
            interval: Some(wire_duration(History::INTERVAL)),
            points: points.into_iter().map(point).collect(),
        }))
    }

    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Answer<v1::WhoAmIResponse> {
        let call = self.admin_call(&request)?;
        let has = |object| {
            let all = Permission::ALL.into_iter().filter(|permission| call.has(*permission, object));
            all.map(|permission| permission.to_string()).collect()
        };
        Ok(Response::new(v1::WhoAmIResponse {
            principal: call.principal().to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.node.clone(),
            permissions: has(Object::Something),
            permissions_on_everything: has(Object::All),
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
        let slots = self.engine.slots_in_order(wanted);
        let all = slots.filter(|slot| sees(&call, &directory, slot.key.identity)).skip(skip);
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
            last_error: slot.last_error.map_or_else(String::new, |error| error.message.to_string()),
        });
        Ok(Response::new(v1::ListTokensResponse { tokens: tokens.collect(), next_page_token }))
    }
}

impl Broker {
    /// The state of the broker, as far as the caller may see it.
    fn state(&self, call: &AdminCall) -> v1::StatusResponse {
        let directory = self.lifecycle.directory();
        let problems = self.problems(call);
        let mut identities: HashMap<String, u64> = HashMap::new();
        let mut at: HashMap<Uid, u64> = HashMap::new();
        for identity in directory.identities_after(None).filter(|i| call.may(object(i))) {
            *identities.entry(format!("{:?}", identity.state).to_lowercase()).or_default() += 1;
            *at.entry(identity.authority).or_default() += 1;
        }
        let mut tokens: HashMap<String, u64> = HashMap::new();
        let mut failing: HashMap<Uid, Failing> = HashMap::new();
        for slot in self.engine.slots().filter(|slot| sees(call, &directory, slot.key.identity)) {
            *tokens.entry(slot.state.as_str().to_owned()).or_default() += 1;
            if is_failing(&slot) {
                failing.entry(slot.key.authority).or_default().add(slot);
            }
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
                retry_after: budget.map(|b| b.retry_after).filter(|left| !left.is_zero()).map(wire_duration),
                failing_refreshes: failing.get(&authority.uid).map_or(0, |f| f.count),
                starves_in: failing
                    .get(&authority.uid)
                    .and_then(|f| f.first.as_ref())
                    .map(|f| wire_duration(f.0)),
                last_error: failing
                    .get(&authority.uid)
                    .and_then(|f| f.first.as_ref())
                    .map_or_else(String::new, |f| f.1.to_string()),
                identities: at.get(&authority.uid).copied().unwrap_or_default(),
            }
        });
        let orphans = self.lifecycle.orphans().into_iter().filter(|_| call.may(Object::All));
        let orphans = orphans.map(|orphan| v1::SuspectedOrphan {
            authority: directory.authority(orphan.authority).map_or_else(String::new, |a| a.name.to_string()),
            client_name: orphan.client_name,
            time: Some(timestamp(orphan.at)),
        });
        v1::StatusResponse {
            healthy: problems.is_empty(),
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.node.clone(),
            uptime: Some(wire_duration(self.started.elapsed())),
            problems,
            identities,
            tokens,
            authorities: authorities.collect(),
            suspected_orphans: orphans.collect(),
            certificates: certificates(call, &directory),
            rates: call.may(Object::All).then(|| self.history.rates()).flatten().as_ref().map(rates),
        }
    }
}

/// Of one authority: tokens whose refresh fails, and which of them callers miss first, with the reason.
#[derive(Default)]
struct Failing {
    count: u32,
    first: Option<(Duration, Arc<str>)>,
}

impl Failing {
    fn add(&mut self, slot: SlotInfo) {
        self.count += 1;
        if let Some(error) = slot.last_error
            && self.first.as_ref().is_none_or(|(least, _)| slot.served_for < *least)
        {
            self.first = Some((slot.served_for, error.message));
        }
    }
}

fn rates(of: &Rates) -> v1::Rates {
    let counted = &of.counted;
    v1::Rates {
        over: Some(wire_duration(of.over)),
        lookups_per_second: of.per_second(of.lookups()),
        fresh_ratio: of.fresh_ratio(),
        misses_per_second: of.per_second(counted.missed),
        denied_per_second: of.per_second(counted.denied),
        refreshes_per_second: of.per_second(counted.refreshed),
        failed_refreshes_per_second: of.per_second(counted.failed),
        authority_calls_per_second: of.per_second(counted.calls),
        waiting_callers: counted.waiting,
        connections: counted.connections,
    }
}

/// Those that end first.
fn certificates(call: &AdminCall, directory: &Directory) -> Vec<v1::CertificateStatus> {
    let shown = directory.identities_after(None).filter(|i| call.may(object(i)));
    let mut first = std::collections::BinaryHeap::new();
    for identity in shown {
        let Some(CredentialKind::Certificate(facts)) = identity.current().map(|c| &c.kind) else { continue };
        first.push((facts.not_after, Reverse(&identity.name), identity.pending().is_some()));
        if first.len() > MAX_CERTIFICATES {
            first.pop();
        }
    }
    let status = |(until, Reverse(name), rotating): (_, Reverse<&jeton_core::IdentityName>, _)| {
        v1::CertificateStatus { identity: name.to_string(), expire_time: Some(timestamp(until)), rotating }
    };
    first.into_sorted_vec().into_iter().map(status).collect()
}
