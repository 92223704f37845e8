//! Identities: the broker searches, orders and pages; and everything about one.

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use jeton_proto::v1;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Broker, asked, seen};
use crate::{failure::Failure, shown};

const COLLECTION: &str = "identities/";
/// Of one identity, what is shown of its tokens, its assignments and its life.
const MOST_SHOWN: i32 = 200;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    q: String,
    state: String,
    authority: String,
    sort: String,
    descending: bool,
    page_size: i32,
    page_token: String,
}

pub(super) async fn list(
    State(broker): State<Broker>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Answer {
    let Query(asked_for) = query?;
    let found = asked(broker.status().list_identity_statuses(asked_for.request()?)).await?;
    let token = |text: String| (!text.is_empty()).then_some(text);
    Ok(Json(json!({
        "identities": found.identities.iter().map(shown::identity_status).collect::<Vec<_>>(),
        "total": found.total,
        "next_page_token": token(found.next_page_token),
        "previous_page_token": token(found.previous_page_token),
    })))
}

impl Asked {
    fn request(self) -> Result<v1::ListIdentityStatusesRequest, Failure> {
        let state = match self.state.as_str() {
            "" => v1::IdentityState::Unspecified,
            name => v1::IdentityState::from_str_name(&format!("IDENTITY_STATE_{}", name.to_uppercase()))
                .ok_or_else(|| Failure::wrong("state", name))?,
        };
        let order = match self.sort.as_str() {
            "" => v1::IdentityOrder::Worst,
            name => v1::IdentityOrder::from_str_name(&format!("IDENTITY_ORDER_{}", name.to_uppercase()))
                .ok_or_else(|| Failure::wrong("sort", name))?,
        };
        Ok(v1::ListIdentityStatusesRequest {
            page_size: self.page_size,
            page_token: self.page_token,
            query: self.q,
            state: state.into(),
            authority: self.authority,
            order: order.into(),
            descending: self.descending,
            name: String::new(),
        })
    }
}

pub(super) async fn one(State(broker): State<Broker>, path: Result<Path<String>, PathRejection>) -> Answer {
    let Path(id) = path?;
    let name = format!("{COLLECTION}{id}");
    let mut shown = row(&broker, &name).await?;
    let get = v1::GetIdentityRequest { name: name.clone() };
    let tokens =
        v1::ListTokensRequest { identity: name.clone(), page_size: MOST_SHOWN, ..Default::default() };
    let events =
        v1::ListEventsRequest { identity: name.clone(), page_size: MOST_SHOWN, ..Default::default() };
    let (mut identities, mut status, mut life) = (broker.identities(), broker.status(), broker.events());
    let (identity, tokens, events, assignments) = tokio::join!(
        asked(identities.get_identity(get)),
        asked(status.list_tokens(tokens)),
        asked(life.list_events(events)),
        assignments(&broker, &id),
    );
    let identity = identity?.identity.unwrap_or_default();
    shown["create_time"] = shown::time(identity.create_time.as_ref()).into();
    shown["update_time"] = shown::time(identity.update_time.as_ref()).into();
    shown["labels"] = json!(identity.labels);
    shown["operation"] = identity.operation.as_ref().map(shown::operation).into();
    shown["credentials"] = identity.credentials.iter().map(credential).collect();
    // What was used before a restart, too.
    shown["last_use_time"] = shown::time(identity.last_use_time.as_ref()).into();
    shown["tokens_in_memory"] = tokens?.tokens.iter().map(token).collect();
    shown["role_assignments"] = assignments?.map(|all| all.iter().map(assignment).collect::<Vec<_>>()).into();
    shown["timeline"] = events?.events.iter().map(shown::event).collect();
    Ok(Json(shown))
}

/// How one identity fares.
pub(super) async fn row(broker: &Broker, name: &str) -> Result<Value, Failure> {
    let one = v1::ListIdentityStatusesRequest { name: name.to_owned(), ..Default::default() };
    let found = asked(broker.status().list_identity_statuses(one)).await?;
    found.identities.first().map(shown::identity_status).ok_or_else(|| Failure::not_found(name))
}

/// Those on the identity itself, on each group that it is in, and on everything. None: the caller may not see these.
async fn assignments(broker: &Broker, id: &str) -> Result<Option<Vec<v1::RoleAssignment>>, Failure> {
    let groups = id.match_indices('.').map(|(end, _)| format!("{COLLECTION}{}.*", &id[..end]));
    let mut all = vec![];
    for scope in [format!("{COLLECTION}{id}")].into_iter().chain(groups).chain(["*".to_owned()]) {
        let request =
            v1::ListRoleAssignmentsRequest { identity: scope, page_size: MOST_SHOWN, ..Default::default() };
        match seen(broker.access().list_role_assignments(request)).await? {
            Some(page) => all.extend(page.role_assignments),
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

fn credential(of: &v1::Credential) -> Value {
    let (kind, algorithm, thumbprint) = match &of.kind {
        Some(v1::credential::Kind::Certificate(c)) => ("certificate", Some(&c.key), Some(&c.x5t_s256)),
        Some(v1::credential::Kind::Secret(_)) => ("secret", None, None),
        Some(v1::credential::Kind::Federated(_)) => ("federated", None, None),
        Some(v1::credential::Kind::Mtls(c)) => ("mtls", None, Some(&c.x5t_s256)),
        None => ("", None, None),
    };
    json!({
        "state": shown::lower(of.state().as_str_name(), "CREDENTIAL_STATE_"),
        "kind": kind,
        "create_time": shown::time(of.create_time.as_ref()),
        "expire_time": shown::time(of.expire_time.as_ref()),
        "algorithm": algorithm,
        "thumbprint": thumbprint,
    })
}

fn token(of: &v1::TokenInfo) -> Value {
    json!({
        "target": of.target,
        "state": of.state,
        "expires_at": shown::time(of.expires_at.as_ref()),
        "refresh_at": shown::time(of.refresh_at.as_ref()),
        "last_used": shown::time(of.last_used.as_ref()),
        "pinned": of.pinned,
        "last_error": shown::some(&of.last_error),
    })
}

fn assignment(of: &v1::RoleAssignment) -> Value {
    json!({
        "name": of.name,
        "member": of.member,
        "role": of.role,
        "scope": of.identity,
        "targets": of.targets,
        "expire_time": shown::time(of.expire_time.as_ref()),
    })
}
