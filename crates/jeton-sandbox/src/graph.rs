//! The directory's Graph API: applications, service principals, key credentials, app role assignments.
//!
//! A call needs a token of this tenant for Graph. With the role Application.ReadWrite.OwnedBy it reaches the applications that the
//! caller owns; creating one makes the caller its owner. An application may replace its own keys, with proof of possession, and
//! needs no role for that.

mod applications;
mod assignments;
mod keys;
mod principals;
mod query;
mod seed;

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State as Extract},
    http::{Method, request::Parts},
    routing::any,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    dates::date,
    entra::{Moment, accepted, correlation},
    model::Application,
    reply::{Reply, bearer, json as reply, with_header},
    start::Shared,
    state::State,
};
use query::Query;
pub(crate) use seed::{GRAPH_API, ORDERS_API, VAULT_API, VAULT_ROLE, furnish};

const MAX_BODY: usize = 256 * 1024;

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/v1.0/{*rest}", any(call))
}

/// An error in Graph's shape.
#[derive(Debug)]
pub(crate) struct GraphError {
    status: u16,
    code: &'static str,
    message: String,
}

impl GraphError {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn not_found(what: &str) -> Self {
        Self::new(
            404,
            "Request_ResourceNotFound",
            format!(
                "Resource '{what}' does not exist or one of its queried reference-property objects are not present."
            ),
        )
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(400, "Request_BadRequest", message)
    }

    fn denied() -> Self {
        Self::new(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
    }

    fn unavailable(error: &sqlx::Error) -> Self {
        Self::new(503, "Service_Unavailable", error.to_string())
    }

    fn reply(&self, request_id: &str, client_request_id: &str, moment: Moment) -> Reply {
        let date = date(moment.secs());
        let inner = json!({"date": date, "request-id": request_id, "client-request-id": client_request_id});
        reply(
            self.status,
            &json!({"error": {"code": self.code, "message": self.message, "innerError": inner}}),
        )
    }
}

type Answer = Result<Reply, GraphError>;

/// Who calls: the application, its service principal, its roles on Graph.
struct Caller {
    app_id: String,
    principal: String,
    roles: Vec<String>,
}

impl Caller {
    fn may(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r == role)
    }

    fn reaches(&self, application: &Application) -> bool {
        let owned = self.may("Application.ReadWrite.OwnedBy") && application.owners.contains(&self.principal);
        owned || self.may("Application.ReadWrite.All")
    }

    fn creates(&self) -> bool {
        self.may("Application.ReadWrite.OwnedBy") || self.may("Application.ReadWrite.All")
    }
}

/// One call, taken apart.
struct Call {
    method: Method,
    path: Vec<String>,
    query: Query,
    create_if_missing: bool,
    body: Value,
    moment: Moment,
    base: String,
    /// Of what was called, without its query.
    url: String,
}

async fn call(Extract(shared): Extract<Arc<Shared>>, request: Request) -> Reply {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, MAX_BODY).await;
    let (request_id, client_request_id) = (Uuid::new_v4().to_string(), correlation(&parts.headers));
    let mut state = shared.state.lock().await;
    let (moment, outcome) = match caller(&shared, &state, bearer(&parts.headers)) {
        Ok((caller, moment)) => {
            let outcome = match read(&shared, &parts, bytes, moment) {
                Ok(call) => dispatch(&mut state, &caller, &call).await,
                Err(error) => Err(error),
            };
            (moment, outcome)
        }
        Err(error) => (Moment::of(&state, ""), Err(error)),
    };
    let answer = outcome.unwrap_or_else(|error| error.reply(&request_id, &client_request_id, moment));
    let answer = with_header(answer, "request-id", &request_id);
    moment.dated(with_header(answer, "client-request-id", &client_request_id))
}

fn read(
    shared: &Shared,
    parts: &Parts,
    body: Result<Bytes, axum::Error>,
    moment: Moment,
) -> Result<Call, GraphError> {
    let prefer = parts.headers.get("prefer").and_then(|h| h.to_str().ok()).unwrap_or_default();
    let body = if matches!(parts.method, Method::GET | Method::DELETE) {
        Value::Null
    } else {
        let bytes =
            body.map_err(|_| GraphError::new(413, "RequestEntityTooLarge", "The request is too large."))?;
        let read = serde_json::from_slice(&bytes).ok().filter(Value::is_object);
        read.ok_or_else(|| {
            GraphError::bad("Unable to read JSON request payload: a JSON object is expected.")
        })?
    };
    let (base, path) = (shared.description.entra.graph.clone(), parts.uri.path());
    Ok(Call {
        method: parts.method.clone(),
        path: segments(path),
        query: Query::parse(parts.uri.query().unwrap_or_default())?,
        create_if_missing: prefer.contains("create-if-missing"),
        body,
        moment,
        url: format!("{base}{}", path.trim_start_matches("/v1.0")),
        base,
    })
}

fn caller(shared: &Shared, state: &State, token: Option<&str>) -> Result<(Caller, Moment), GraphError> {
    let refused = |message| GraphError::new(401, "InvalidAuthenticationToken", message);
    let token = token.ok_or_else(|| refused("Access token is empty."))?;
    let (claims, moment) = accepted(shared, state, token, seed::GRAPH_APP_ID)
        .ok_or_else(|| refused("Access token validation failure. Invalid audience, signature or time."))?;
    let text = |claim: &str| claims[claim].as_str().unwrap_or_default().to_owned();
    let app_id = text("azp");
    state
        .application_by_app_id(&app_id)
        .ok_or_else(|| refused("The application of the token does not exist any more."))?;
    let roles = claims["roles"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|r| r.as_str().map(str::to_owned))
        .collect();
    Ok((Caller { app_id, principal: text("oid"), roles }, moment))
}

async fn dispatch(state: &mut State, caller: &Caller, call: &Call) -> Answer {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    match (call.method.as_str(), &path[..]) {
        (method, [first, rest @ ..]) if first.starts_with("applications") => {
            applications::route(state, caller, call, method, first, rest).await
        }
        (method, [first, rest @ ..]) if first.starts_with("servicePrincipals") => {
            principals::route(state, caller, call, method, first, rest).await
        }
        _ => Err(GraphError::bad(format!("Resource not found for the segment '{}'.", path.join("/")))),
    }
}

fn segments(path: &str) -> Vec<String> {
    let decode = |s: &str| {
        url::form_urlencoded::parse(format!("x={}", s.replace('+', "%2B")).as_bytes())
            .next()
            .map_or_else(String::new, |(_, v)| v.into_owned())
    };
    path.trim_start_matches("/v1.0/").split('/').filter(|s| !s.is_empty()).map(decode).collect()
}

/// The value in `collection(key='value')`.
fn keyed(segment: &str, key: &str) -> Option<String> {
    let inner = segment.split_once('(')?.1.strip_suffix(')')?;
    let (name, value) = inner.split_once('=')?;
    if name.trim() == key { query::literal(value) } else { None }
}

/// The next values after those that were seen, in the order of their ids.
fn page(call: &Call, collection: &str, mut values: Vec<Value>) -> Reply {
    let top = call.query.top.unwrap_or(100);
    values.retain(|value| value["id"].as_str() > call.query.after.as_deref());
    let more = values.len() > top;
    values.truncate(top);
    let last = values.last().and_then(|value| value["id"].as_str()).unwrap_or_default();
    let next = more.then(|| format!("{}?{}", call.url, call.query.next(last)));
    let mut body =
        json!({"@odata.context": format!("{}/$metadata#{collection}", call.base), "value": values});
    if let Some(next) = next {
        body["@odata.nextLink"] = next.into();
    }
    reply(200, &body)
}
