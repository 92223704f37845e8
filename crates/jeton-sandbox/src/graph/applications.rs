//! Applications: create, upsert by unique name, read, change, delete.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, Call, Caller, GraphError, keyed, keys, page, principals};
use crate::{
    model::Application,
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
    if first == "applications" && rest.is_empty() {
        return match method {
            "POST" => create(state, caller, call, None).await,
            "GET" => Ok(list(state, caller, call)),
            _ => Err(GraphError::bad("The method is not allowed here.")),
        };
    }
    if method == "PATCH"
        && rest.is_empty()
        && let Some(unique_name) = keyed(first, "uniqueName")
    {
        return upsert(state, caller, call, &unique_name).await;
    }
    let (segment, rest) = match (first, rest) {
        ("applications", [id, rest @ ..]) => (*id, rest),
        _ => (first, rest),
    };
    let found = find(state, segment, call).ok_or_else(|| GraphError::not_found(segment))?;
    match (method, rest) {
        ("POST", ["addKey"]) => return keys::add(state, caller, call, found).await,
        ("POST", ["removeKey"]) => return keys::remove(state, caller, call, found).await,
        _ => {}
    }
    if !caller.reaches(&found) {
        return Err(GraphError::denied());
    }
    match (method, rest) {
        ("GET", []) => {
            Ok(reply(200, &call.query.selected(shown(&found, call.query.selects("keyCredentials")))))
        }
        ("PATCH", []) => change(state, call, found).await,
        ("DELETE", []) => delete(state, &found).await,
        ("POST", ["addPassword"]) => keys::add_password(state, call, found).await,
        ("POST", ["removePassword"]) => keys::remove_password(state, call, found).await,
        _ => Err(GraphError::bad(format!("Resource not found for the segment '{}'.", rest.join("/")))),
    }
}

/// What has spread by now, under its id, its app id or its unique name.
fn find(state: &State, segment: &str, call: &Call) -> Option<Application> {
    let found = match (keyed(segment, "appId"), keyed(segment, "uniqueName")) {
        (Some(app_id), _) => state.application_by_app_id(&app_id),
        (_, Some(name)) => state.applications.values().find(|a| a.unique_name.as_ref() == Some(&name)),
        _ => state.applications.get(segment),
    };
    found.filter(|a| call.moment.visible(a.created_ms)).cloned()
}

async fn create(state: &mut State, caller: &Caller, call: &Call, unique_name: Option<&str>) -> Answer {
    if !caller.creates() {
        return Err(GraphError::denied());
    }
    let display_name = display_name(&call.body["displayName"])?;
    if unique_name.is_some_and(str::is_empty) {
        return Err(GraphError::bad("Property 'uniqueName' must not be empty."));
    }
    if !call.body["passwordCredentials"].is_null() {
        return Err(GraphError::bad(
            "passwordCredentials are not allowed in a create request; use addPassword.",
        ));
    }
    let application = Application {
        id: Uuid::new_v4().to_string(),
        app_id: Uuid::new_v4().to_string(),
        display_name,
        unique_name: unique_name.map(str::to_owned),
        identifier_uris: vec![],
        app_roles: vec![],
        keys: keys::credentials(&call.body["keyCredentials"], &[])?,
        secrets: vec![],
        owners: vec![caller.principal.clone()],
        created_ms: machine_millis(),
        built_in: false,
    };
    let body = shown(&application, false);
    save(state, application).await?;
    Ok(reply(201, &body))
}

async fn upsert(state: &mut State, caller: &Caller, call: &Call, unique_name: &str) -> Answer {
    let found = state.applications.values().find(|a| a.unique_name.as_deref() == Some(unique_name)).cloned();
    match found {
        Some(found) if caller.reaches(&found) => change(state, call, found).await,
        Some(_) => Err(GraphError::denied()),
        None if call.create_if_missing => create(state, caller, call, Some(unique_name)).await,
        None => Err(GraphError::not_found(unique_name)),
    }
}

async fn change(state: &mut State, call: &Call, mut application: Application) -> Answer {
    if let Some(name) = call.body.get("displayName") {
        application.display_name = display_name(name)?;
    }
    if !call.body["keyCredentials"].is_null() {
        application.keys = keys::credentials(&call.body["keyCredentials"], &application.keys)?;
    }
    save(state, application).await?;
    Ok(empty(204))
}

fn display_name(value: &Value) -> Result<String, GraphError> {
    let name = value.as_str().filter(|name| !name.is_empty() && name.chars().count() <= 256);
    name.map(str::to_owned).ok_or_else(|| {
        GraphError::bad("Property 'displayName' is required, a text of at most 256 characters.")
    })
}

async fn delete(state: &mut State, application: &Application) -> Answer {
    if application.built_in {
        return Err(GraphError::denied());
    }
    let principals =
        state.principals.values().filter(|p| p.app_id == application.app_id).map(|p| p.id.clone()).collect();
    let changes = Changes::default().remove(Kind::Application, &application.id);
    principals::forget(state, changes, principals).await?;
    state.applications.remove(&application.id);
    Ok(empty(204))
}

fn list(state: &State, caller: &Caller, call: &Call) -> crate::reply::Reply {
    let reached =
        state.applications.values().filter(|a| caller.reaches(a) && call.moment.visible(a.created_ms));
    let all = reached.map(|a| shown(a, false)).filter(|a| call.query.finds(a));
    page(call, "applications", all.map(|a| call.query.selected(a)).collect())
}

pub(super) async fn save(state: &mut State, application: Application) -> Result<(), GraphError> {
    let changes = Changes::default().put(Kind::Application, &application.id, &application);
    state.commit(changes).await.map_err(|e| GraphError::unavailable(&e))?;
    state.applications.insert(application.id.clone(), application);
    Ok(())
}

fn shown(application: &Application, keys_selected: bool) -> Value {
    json!({
        "id": application.id, "appId": application.app_id, "displayName": application.display_name,
        "uniqueName": application.unique_name, "identifierUris": application.identifier_uris,
        "signInAudience": "AzureADMyOrg", "api": {"requestedAccessTokenVersion": 2},
        "appRoles": application.app_roles.iter().map(|r| json!({"id": r.id, "value": r.value, "isEnabled": true, "allowedMemberTypes": ["Application"]})).collect::<Vec<_>>(),
        "keyCredentials": application.keys.iter().map(|k| keys::shown(k, keys_selected)).collect::<Vec<_>>(),
        "passwordCredentials": application.secrets.iter().map(|s| json!({"keyId": s.key_id, "displayName": s.display_name, "hint": s.hint})).collect::<Vec<_>>(),
    })
}
