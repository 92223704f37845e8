//! App role assignments: what a client was granted on an API. Both of them show it.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, Call, Caller, GraphError, page};
use crate::{
    dates::date,
    model::{RoleGrant, ServicePrincipal},
    reply::{empty, json as reply},
    state::{Changes, Kind, State, machine_millis},
};

/// Assigned without a role of its own.
const DEFAULT_ACCESS: &str = "00000000-0000-0000-0000-000000000000";

/// From which of the two it is looked at.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Client,
    Api,
}

impl Side {
    pub(super) fn named(segment: &str) -> Option<Self> {
        match segment {
            "appRoleAssignments" => Some(Self::Client),
            "appRoleAssignedTo" => Some(Self::Api),
            _ => None,
        }
    }

    fn of(self, grant: &RoleGrant) -> &str {
        match self {
            Self::Client => &grant.principal,
            Self::Api => &grant.resource,
        }
    }

    const fn member(self) -> &'static str {
        match self {
            Self::Client => "principalId",
            Self::Api => "resourceId",
        }
    }
}

pub(super) async fn route(
    state: &mut State,
    caller: &Caller,
    call: &Call,
    method: &str,
    found: &ServicePrincipal,
    side: Side,
    rest: &[&str],
) -> Answer {
    let administers = caller.may("AppRoleAssignment.ReadWrite.All");
    match (method, rest) {
        ("GET", []) if caller.creates() || administers => {
            let seen = state.grants.values().filter(|g| side.of(g) == found.id);
            Ok(page(call, "appRoleAssignments", seen.map(|g| shown(state, g)).collect()))
        }
        ("POST", []) if administers => grant(state, call, found, side).await,
        ("DELETE", [id]) if administers => {
            let there = state.grants.get(*id).is_some_and(|g| side.of(g) == found.id);
            if there { revoke(state, id).await } else { Err(GraphError::not_found(id)) }
        }
        _ => Err(GraphError::denied()),
    }
}

async fn grant(state: &mut State, call: &Call, found: &ServicePrincipal, side: Side) -> Answer {
    let text = |name: &str| call.body[name].as_str().unwrap_or_default().to_owned();
    if text(side.member()) != found.id {
        return Err(GraphError::bad(format!("{} must be the object in the path.", side.member())));
    }
    let (principal, resource, role) = (text("principalId"), text("resourceId"), text("appRoleId"));
    let api = state.principals.get(&resource).and_then(|p| state.application_by_app_id(&p.app_id));
    let api = api.ok_or_else(|| GraphError::not_found(&resource))?;
    if !state.principals.contains_key(&principal) {
        return Err(GraphError::not_found(&principal));
    }
    if role != DEFAULT_ACCESS && !api.app_roles.iter().any(|r| r.id == role) {
        return Err(GraphError::bad(format!(
            "Permission being assigned was not found on application: '{role}'."
        )));
    }
    if state.granted(&principal, &resource).any(|g| g.role == role) {
        return Err(GraphError::bad("Permission being assigned already exists on the object."));
    }
    let made = RoleGrant {
        id: Uuid::new_v4().simple().to_string(),
        principal,
        resource,
        role,
        created_ms: machine_millis(),
    };
    let body = shown(state, &made);
    state
        .commit(Changes::default().put(Kind::Grant, &made.id, &made))
        .await
        .map_err(|e| GraphError::unavailable(&e))?;
    state.grants.insert(made.id.clone(), made);
    Ok(reply(201, &body))
}

async fn revoke(state: &mut State, id: &str) -> Answer {
    state
        .commit(Changes::default().remove(Kind::Grant, id))
        .await
        .map_err(|e| GraphError::unavailable(&e))?;
    state.grants.remove(id);
    Ok(empty(204))
}

fn shown(state: &State, grant: &RoleGrant) -> Value {
    let name = |id: &str| {
        state
            .principals
            .get(id)
            .and_then(|p| state.application_by_app_id(&p.app_id))
            .map(|a| a.display_name.clone())
    };
    json!({
        "id": grant.id, "principalType": "ServicePrincipal", "principalId": grant.principal, "resourceId": grant.resource,
        "appRoleId": grant.role, "principalDisplayName": name(&grant.principal), "resourceDisplayName": name(&grant.resource),
        "createdDateTime": date(grant.created_ms / 1_000),
    })
}
