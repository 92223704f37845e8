//! ListIdentityStatuses; and looks at everything, beside the threads that serve.
//!
//! The directory is an immutable snapshot and the slots are read as a refresh reads them, so nobody who serves waits for it; one such look
//! goes on at a time, on a thread for work that blocks.

#[cfg(test)]
mod tests;

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jeton_access::AdminCall;
use jeton_core::{
    AuthorityName, Directory, Identity, IdentityName, IdentityState, Object, Permission, Uid, Wall,
};
use jeton_engine::Standing;
use jeton_lifecycle::page_of;
use jeton_proto::v1::{self, IdentityOrder};

use super::{
    convert::{identity_kind, page_size, state, timestamp, wanted_state, wire_duration},
    error::{Failure, Reason},
    permit::object,
    routes::Broker,
};

/// How long a look waits for those before it.
const TURN_WITHIN: Duration = Duration::from_secs(10);
const MAX_QUERY_BYTES: usize = 200;

/// What is asked for, read.
struct Wanted {
    query: String,
    state: Option<IdentityState>,
    authority: Option<Uid>,
    only: Option<IdentityName>,
    order: IdentityOrder,
    descending: bool,
    skip: usize,
    size: usize,
}

/// An identity, its tokens, and its place in the order: the rest is by name.
struct Row<'a> {
    place: (u8, i64),
    identity: &'a Arc<Identity>,
    standing: Option<Standing>,
}

impl Broker {
    pub(super) async fn identity_statuses(
        &self,
        call: AdminCall,
        request: v1::ListIdentityStatusesRequest,
    ) -> Result<v1::ListIdentityStatusesResponse, Failure> {
        let directory = self.lifecycle.directory();
        let wanted = Wanted::read(request, &directory)?;
        if let Some(name) = &wanted.only {
            self.must_on_identity(&call, name)?;
        }
        self.looked(move |broker| broker.look(&call, &wanted)).await
    }

    /// A look at everything, on a thread for work that blocks: one at a time.
    pub(super) async fn looked<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = tokio::time::timeout(TURN_WITHIN, Arc::clone(&self.looking).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Failure::new(Reason::Overloaded, "too many look at everything at once"));
        };
        let broker = self.clone();
        let looked = tokio::task::spawn_blocking(move || {
            // Until it is done, whoever asked may have gone.
            let _turn = turn;
            look(&broker)
        });
        looked.await.map_err(|e| Failure::new(Reason::Internal, e.to_string()))
    }

    fn look(&self, call: &AdminCall, wanted: &Wanted) -> v1::ListIdentityStatusesResponse {
        let (directory, now) = (self.lifecycle.directory(), self.clock.now().wall);
        let standings = match &wanted.only {
            None => self.engine.standings(),
            Some(name) => {
                let uid = directory.identity_named(name).map(|identity| identity.uid);
                uid.and_then(|uid| Some((uid, self.engine.standing(uid)?))).into_iter().collect()
            }
        };
        let mut rows = rows(&directory, standings, wanted, |identity| call.may(object(identity)));
        let total = rows.len();
        let page = page(&mut rows, wanted);
        let next = wanted.skip + page.len();
        let next_page_token = if next < total { next.to_string() } else { String::new() };
        let before = wanted.skip.min(total).saturating_sub(wanted.size);
        let previous_page_token = if wanted.skip > 0 { before.to_string() } else { String::new() };
        let identities = page.iter().map(|row| self.fares(call, &directory, row, now)).collect();
        v1::ListIdentityStatusesResponse {
            identities,
            next_page_token,
            previous_page_token,
            total: total as u64,
        }
    }

    fn fares(&self, call: &AdminCall, directory: &Directory, row: &Row<'_>, now: Wall) -> v1::IdentityStatus {
        let (identity, standing) = (row.identity, row.standing.as_ref());
        let current = identity.current();
        let consumers = call.has(Permission::ReadAssignments, object(identity)).then(|| {
            let snapshot = self.access.snapshot();
            let members: BTreeSet<_> = snapshot
                .covering(identity)
                .filter(|a| !a.expired(now))
                .map(|a| a.member.shown(directory))
                .collect();
            u32::try_from(members.len()).unwrap_or(u32::MAX)
        });
        let failing = standing.and_then(|standing| standing.failing.as_ref());
        let operation = identity.operation.as_ref().and_then(|operation| operation.last_error.clone());
        let workload = identity.workload.and_then(|uid| directory.workload(uid));
        let workload = workload.filter(|it| call.has(Permission::ReadWorkloads, Object::Workload(&it.name)));
        v1::IdentityStatus {
            name: identity.name.to_string(),
            display_name: identity.display_name.clone(),
            kind: identity_kind(identity.kind).into(),
            state: state(identity.state).into(),
            authority: directory
                .authority(identity.authority)
                .map_or_else(String::new, |a| a.name.to_string()),
            workload: workload.map_or_else(String::new, |it| it.name.to_string()),
            client_id: identity.client_id.as_deref().unwrap_or_default().to_owned(),
            starves_in: failing.map(|(left, _)| wire_duration(*left)),
            last_error: failing.map(|(_, error)| error.message.to_string()).or(operation).unwrap_or_default(),
            credential_create_time: current.map(|c| timestamp(c.created_at)),
            credential_expire_time: current.and_then(|c| c.expires_at()).map(timestamp),
            next_refresh_time: standing.and_then(|standing| standing.next_refresh).map(timestamp),
            last_use_time: standing.map(|standing| timestamp(standing.last_used)),
            consumers,
            tokens: standing.map_or(0, |standing| standing.tokens),
            may_change: call.has(Permission::ChangeIdentities, object(identity)),
        }
    }
}

impl Wanted {
    fn read(r: v1::ListIdentityStatusesRequest, directory: &Directory) -> Result<Self, Failure> {
        if r.query.len() > MAX_QUERY_BYTES {
            return Err(Failure::field("query", format!("at most {MAX_QUERY_BYTES} bytes")));
        }
        let authority = match r.authority.as_str() {
            "" => None,
            name => {
                let name: AuthorityName = name.parse().map_err(|e| Failure::field("authority", e))?;
                Some(directory.authority_named(&name).ok_or_else(|| Failure::not_found(&name))?.uid)
            }
        };
        let only = match r.name.as_str() {
            "" => None,
            name => Some(name.parse().map_err(Failure::from)?),
        };
        let skip = match r.page_token.as_str() {
            "" => 0,
            token => token.parse().map_err(|_| Failure::field("page_token", "not one that a list gave"))?,
        };
        Ok(Self {
            query: r.query.to_lowercase(),
            state: wanted_state(r.state()),
            authority,
            only,
            order: r.order(),
            descending: r.descending,
            skip,
            size: page_of(page_size(r.page_size)?),
        })
    }

    fn fits(&self, identity: &Identity) -> bool {
        let found = |text: &str| text.to_lowercase().contains(&self.query);
        self.state.is_none_or(|state| identity.state == state)
            && self.authority.is_none_or(|authority| identity.authority == authority)
            && (self.query.is_empty()
                || found(identity.name.as_str())
                || found(&identity.display_name)
                || identity.client_id.as_deref().is_some_and(found))
    }

    /// Where an identity stands; among equals it is by name.
    fn place(&self, identity: &Identity, standing: Option<&Standing>) -> (u8, i64) {
        let first = |at: Option<Wall>| at.map_or((1, 0), |at| (0, at.as_millis()));
        let end = || identity.current().and_then(|credential| credential.expires_at());
        match self.order {
            IdentityOrder::Unspecified | IdentityOrder::Worst => worst(identity, standing, end()),
            IdentityOrder::Name => (0, 0),
            IdentityOrder::Credential => first(end()),
            IdentityOrder::NextRefresh => first(standing.and_then(|standing| standing.next_refresh)),
            IdentityOrder::LastUse => standing.map_or((0, 0), |standing| (1, standing.last_used.as_millis())),
        }
    }
}

/// Who needs somebody most is first.
fn worst(identity: &Identity, standing: Option<&Standing>, end: Option<Wall>) -> (u8, i64) {
    if let Some((left, _)) = standing.and_then(|standing| standing.failing.as_ref()) {
        return (0, i64::try_from(left.as_millis()).unwrap_or(i64::MAX));
    }
    if identity.state == IdentityState::Failed {
        return (1, 0);
    }
    match &identity.operation {
        Some(operation) if operation.last_error.is_some() => (2, -i64::from(operation.attempts)),
        _ => (3, end.map_or(i64::MAX, Wall::as_millis)),
    }
}

/// Whatever fits and may be seen.
fn rows<'a>(
    directory: &'a Directory,
    mut standings: HashMap<Uid, Standing>,
    wanted: &Wanted,
    may: impl Fn(&Identity) -> bool,
) -> Vec<Row<'a>> {
    let row = |identity: &'a Arc<Identity>| {
        let standing = standings.remove(&identity.uid);
        Row { place: wanted.place(identity, standing.as_ref()), identity, standing }
    };
    let fits = |identity: &&Arc<Identity>| wanted.fits(identity) && may(identity);
    match &wanted.only {
        Some(name) => directory.identity_named(name).into_iter().filter(fits).map(row).collect(),
        None => directory.identities_after(None).filter(fits).map(row).collect(),
    }
}

/// The page that is asked for, in order. Only it is sorted.
fn page<'r, 'a>(rows: &'r mut [Row<'a>], wanted: &Wanted) -> &'r [Row<'a>] {
    let order = |a: &Row<'_>, b: &Row<'_>| -> Ordering {
        let order = a.place.cmp(&b.place).then_with(|| a.identity.name.cmp(&b.identity.name));
        if wanted.descending { order.reverse() } else { order }
    };
    let from = wanted.skip.min(rows.len());
    let to = from.saturating_add(wanted.size).min(rows.len());
    if from < to {
        rows.select_nth_unstable_by(from, order);
        let rest = &mut rows[from..];
        if to - from < rest.len() {
            rest.select_nth_unstable_by(to - from, order);
        }
    }
    let page = &mut rows[from..to];
    page.sort_unstable_by(order);
    page
}
