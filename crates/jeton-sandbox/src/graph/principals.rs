//! Service principals.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Answer, Call, Caller, GraphError,
    assignments::{self, Side},
    keyed, page,
};
use crate::{
    model::{RoleGrant, ServicePrincipal},
    reply::{empty, json as reply},
    state::{Changes, Kind, State, machine_millis},
};

pub(super) async fn route(
    state: &mut State,
    caller: &Caller,
    call: &Call,
    method: &str,
    first: &str,
    rest: &[&str],
) -> Answer {
    if first == "servicePrincipals" && rest.is_empty() {
        return match method {
            "POST" => create(state, caller, call).await,
            "GET" => Ok(list(state, caller, call)),
            _ => Err(GraphError::bad("The method is not allowed here.")),
        };
    }
    let (segment, rest) = match (first, rest) {
        ("servicePrincipals", [id, rest @ ..]) => (*id, rest),
        _ => (first, rest),
    };
    let found = match keyed(segment, "appId") {
        Some(app_id) => state.principal_of(&app_id),
        None => state.principals.get(segment),
    };
    let found = found
        .filter(|p| call.moment.visible(p.created_ms))
        .cloned()
        .ok_or_else(|| GraphError::not_found(segment))?;
    match (method, rest) {
        ("GET", []) if caller.creates() => Ok(reply(200, &call.query.selected(shown(state, &found)))),
        ("PATCH", []) if reaches(state, caller, &found) => change(state, call, found).await,
        ("DELETE", []) if reaches(state, caller, &found) => {
            forget(state, Changes::default(), vec![found.id]).await?;
            Ok(empty(204))
        }
        (_, [side, rest @ ..]) => match Side::named(side) {
            Some(side) => assignments::route(state, caller, call, method, &found, side, rest).await,
            None => Err(GraphError::bad(format!("Resource not found for the segment '{side}'."))),
        },
        _ => Err(GraphError::denied()),
    }
}

fn reaches(state: &State, caller: &Caller, principal: &ServicePrincipal) -> bool {
    state.application_by_app_id(&principal.app_id).is_some_and(|a| caller.reaches(a))
}

async fn create(state: &mut State, caller: &Caller, call: &Call) -> Answer {
    let app_id = call.body["appId"].as_str().unwrap_or_default();
    let application = state.application_by_app_id(app_id).filter(|a| call.moment.visible(a.created_ms));
    let application = application.ok_or_else(|| {
        GraphError::bad(format!(
            "The appId '{app_id}' of the service principal does not reference a valid application object."
        ))
    })?;
    if !caller.reaches(application) {
        return Err(GraphError::denied());
    }
    if state.principal_of(app_id).is_some() {
        return Err(GraphError::new(
            409,
            "Request_MultipleObjectsWithSameKeyValue",
            "The service principal cannot be created because the appId is already in use.",
        ));
    }
    let made = ServicePrincipal {
        id: Uuid::new_v4().to_string(),
        app_id: app_id.to_owned(),
        enabled: true,
        assignment_required: false,
        created_ms: machine_millis(),
    };
    let body = shown(state, &made);
    save(state, made).await?;
    Ok(reply(201, &body))
}

async fn change(state: &mut State, call: &Call, mut principal: ServicePrincipal) -> Answer {
    for (name, member) in [
        ("accountEnabled", &mut principal.enabled),
        ("appRoleAssignmentRequired", &mut principal.assignment_required),
    ] {
        if let Some(value) = call.body.get(name) {
            *member = value
                .as_bool()
                .ok_or_else(|| GraphError::bad(format!("Property '{name}' must be a Boolean.")))?;
        }
    }
    save(state, principal).await?;
    Ok(empty(204))
}

async fn save(state: &mut State, principal: ServicePrincipal) -> Result<(), GraphError> {
    let changes = Changes::default().put(Kind::Principal, &principal.id, &principal);
    state.commit(changes).await.map_err(|e| GraphError::unavailable(&e))?;
    state.principals.insert(principal.id.clone(), principal);
    Ok(())
}

/// Removes service principals, with what was granted to them and on them, and whatever else changes with that.
pub(super) async fn forget(
    state: &mut State,
    mut changes: Changes,
    principals: Vec<String>,
) -> Result<(), GraphError> {
    let concerned = |g: &&RoleGrant| principals.contains(&g.principal) || principals.contains(&g.resource);
    let grants: Vec<_> = state.grants.values().filter(concerned).map(|g| g.id.clone()).collect();
    changes = principals.iter().fold(changes, |changes, id| changes.remove(Kind::Principal, id));
    changes = grants.iter().fold(changes, |changes, id| changes.remove(Kind::Grant, id));
    state.commit(changes).await.map_err(|e| GraphError::unavailable(&e))?;
    principals.iter().for_each(|id| drop(state.principals.remove(id)));
    grants.iter().for_each(|id| drop(state.grants.remove(id)));
    Ok(())
}

fn list(state: &State, caller: &Caller, call: &Call) -> crate::reply::Reply {
    let seen = state.principals.values().filter(|p| caller.creates() && call.moment.visible(p.created_ms));
    let all = seen.map(|p| shown(state, p)).filter(|p| call.query.finds(p));
    page(call, "servicePrincipals", all.map(|p| call.query.selected(p)).collect())
}

fn shown(state: &State, principal: &ServicePrincipal) -> Value {
    let application = state.application_by_app_id(&principal.app_id);
    let roles = application.map(|a| {
        a.app_roles
            .iter()
            .map(|r| json!({"id": r.id, "value": r.value, "isEnabled": true}))
            .collect::<Vec<_>>()
    });
    json!({
        "id": principal.id, "appId": principal.app_id, "accountEnabled": principal.enabled, "appRoleAssignmentRequired": principal.assignment_required,
        "displayName": application.map(|a| a.display_name.clone()), "appRoles": roles.unwrap_or_default(),
        "servicePrincipalNames": application.map(|a| [vec![a.app_id.clone()], a.identifier_uris.clone()].concat()).unwrap_or_default(),
    })
}
