//! Service principals and their app role assignments.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, Call, Caller, GraphError, keyed, page};
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
        Some(app_id) => state.principal_of(app_id),
        None => state.principals.get(segment),
    };
    let found = found
        .filter(|p| call.moment.visible(p.created_ms))
        .cloned()
        .ok_or_else(|| GraphError::not_found(segment))?;
    match (method, rest) {
        ("GET", []) if caller.creates() => Ok(reply(200, &call.query.selected(shown(state, &found)))),
        ("PATCH", []) if reaches(state, caller, &found) => enable(state, call, found).await,
        ("DELETE", []) if reaches(state, caller, &found) => delete(state, &found).await,
        ("GET", ["appRoleAssignments"]) if caller.creates() => {
            let granted = state
                .grants
                .values()
                .filter(|g| g.principal == found.id)
                .map(|g| grant_shown(state, g))
                .collect();
            Ok(page(call, "appRoleAssignments", granted))
        }
        ("POST", ["appRoleAssignments" | "appRoleAssignedTo"]) => grant(state, caller, call).await,
        ("DELETE", ["appRoleAssignments" | "appRoleAssignedTo", id]) => revoke(state, caller, id).await,
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
        created_ms: machine_millis(),
    };
    let body = shown(state, &made);
    save(state, made).await?;
    Ok(reply(201, &body))
}

async fn enable(state: &mut State, call: &Call, mut principal: ServicePrincipal) -> Answer {
    if let Some(enabled) = call.body["accountEnabled"].as_bool() {
        principal.enabled = enabled;
        save(state, principal).await?;
    }
    Ok(empty(204))
}

async fn save(state: &mut State, principal: ServicePrincipal) -> Result<(), GraphError> {
    let changes = Changes::default().put(Kind::Principal, &principal.id, &principal);
    state.commit(changes).await.map_err(|e| GraphError::unavailable(&e))?;
    state.principals.insert(principal.id.clone(), principal);
    Ok(())
}

async fn delete(state: &mut State, principal: &ServicePrincipal) -> Answer {
    state
        .commit(Changes::default().remove(Kind::Principal, &principal.id))
        .await
        .map_err(|e| GraphError::unavailable(&e))?;
    state.principals.remove(&principal.id);
    Ok(empty(204))
}

fn list(state: &State, caller: &Caller, call: &Call) -> crate::reply::Reply {
    let seen = state.principals.values().filter(|p| caller.creates() && call.moment.visible(p.created_ms));
    let all =
        seen.map(|p| shown(state, p)).filter(|p| call.query.filter.as_ref().is_none_or(|f| f.matches(p)));
    page(call, "servicePrincipals", all.map(|p| call.query.selected(p)).collect())
}

async fn grant(state: &mut State, caller: &Caller, call: &Call) -> Answer {
    if !caller.may("AppRoleAssignment.ReadWrite.All") {
        return Err(GraphError::denied());
    }
    let text = |name: &str| call.body[name].as_str().unwrap_or_default().to_owned();
    let (principal, resource, role) = (text("principalId"), text("resourceId"), text("appRoleId"));
    let api = state.principals.get(&resource).and_then(|p| state.application_by_app_id(&p.app_id));
    let api = api.ok_or_else(|| GraphError::not_found(&resource))?;
    if !state.principals.contains_key(&principal) {
        return Err(GraphError::not_found(&principal));
    }
    if !api.app_roles.iter().any(|r| r.id == role) {
        return Err(GraphError::bad(format!(
            "Permission being assigned was not found on application: '{role}'."
        )));
    }
    let same = |g: &&RoleGrant| g.principal == principal && g.resource == resource && g.role == role;
    if state.grants.values().find(same).is_some() {
        return Err(GraphError::bad("Permission being assigned already exists on the object."));
    }
    let made = RoleGrant {
        id: Uuid::new_v4().simple().to_string(),
        principal,
        resource,
        role,
        created_ms: machine_millis(),
    };
    let body = grant_shown(state, &made);
    state
        .commit(Changes::default().put(Kind::Grant, &made.id, &made))
        .await
        .map_err(|e| GraphError::unavailable(&e))?;
    state.grants.insert(made.id.clone(), made);
    Ok(reply(201, &body))
}

async fn revoke(state: &mut State, caller: &Caller, id: &str) -> Answer {
    if !caller.may("AppRoleAssignment.ReadWrite.All") {
        return Err(GraphError::denied());
    }
    if !state.grants.contains_key(id) {
        return Err(GraphError::not_found(id));
    }
    state
        .commit(Changes::default().remove(Kind::Grant, id))
        .await
        .map_err(|e| GraphError::unavailable(&e))?;
    state.grants.remove(id);
    Ok(empty(204))
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
        "id": principal.id, "appId": principal.app_id, "accountEnabled": principal.enabled, "appRoleAssignmentRequired": false,
        "displayName": application.map(|a| a.display_name.clone()), "appRoles": roles.unwrap_or_default(),
        "servicePrincipalNames": application.map(|a| [vec![a.app_id.clone()], a.identifier_uris.clone()].concat()).unwrap_or_default(),
    })
}

fn grant_shown(state: &State, grant: &RoleGrant) -> Value {
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
    })
}
