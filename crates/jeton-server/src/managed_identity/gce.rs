//! Compute Engine's metadata server: a tree of paths, of which clients ask for tokens and look around a little before.

use http::{Response, StatusCode, request::Parts};
use jeton_core::{Identity, IdentityName};
use jeton_proto::v1;
use serde_json::json;
use tonic::body::Body;
use url::form_urlencoded;

use super::{
    answer,
    chosen::unknown,
    endpoint::{Served, json as reply, typed},
    refusal::{Kind, Refusal},
};
use crate::door::Caller;

const ROOT: &str = "/computeMetadata/v1";
const ACCOUNTS: &str = "instance/service-accounts";
/// What stands after the `@` of an account's address, behind the project.
const DOMAIN: &str = "jeton.internal";
const MAX_SCOPES: usize = 50;

pub(super) async fn answered(served: &Served, head: &Parts) -> Result<Response<Body>, Refusal> {
    let path = head.uri.path();
    if path.is_empty() || path == "/" {
        return Ok(text("computeMetadata/\n"));
    }
    let below = under(path, ROOT).ok_or_else(|| nothing_at(path))?.trim_end_matches('/');
    match below {
        "" => Ok(text("instance/\nproject/\nuniverse/\n")),
        "instance" => Ok(text("service-accounts/\n")),
        "project" => Ok(text("project-id\n")),
        "project/project-id" => Ok(text(&served.endpoint.project)),
        "universe/universe-domain" => Ok(text("googleapis.com")),
        _ => {
            let account = under(below, ACCOUNTS).ok_or_else(|| nothing_at(path))?;
            account_of(served, head, account).await
        }
    }
}

/// Below `service-accounts`.
async fn account_of(served: &Served, head: &Parts, below: &str) -> Result<Response<Body>, Refusal> {
    let caller = served.caller(head)?;
    let (account, what) = below.split_once('/').unwrap_or((below, ""));
    let query = head.uri.query().unwrap_or_default();
    if account.is_empty() && !recursive(query) {
        return Ok(text("default/\n"));
    }
    if what == "token" {
        return token(served, &caller, account, query).await;
    }
    let scopes = &served.endpoint.default_scopes;
    if account.is_empty() {
        let own = email(served, &caller, "default")?;
        let facts = json!({"aliases": ["default"], "email": own, "scopes": scopes});
        return Ok(reply(StatusCode::OK, &json!({"default": facts, own: facts})));
    }
    let email = email(served, &caller, account)?;
    match what {
        "" if recursive(query) => {
            let aliases: &[&str] = if account == "default" { &["default"] } else { &[] };
            Ok(reply(StatusCode::OK, &json!({"aliases": aliases, "email": email, "scopes": scopes})))
        }
        "" => Ok(text("aliases\nemail\nscopes\ntoken\n")),
        "aliases" => Ok(text("default\n")),
        "email" => Ok(text(&email)),
        "scopes" => Ok(text(&scopes.join("\n"))),
        "identity" => {
            let problem = "identity tokens are not issued here: ask for an access token, under /token";
            Err(Refusal::new(Kind::Refused, problem))
        }
        _ => Err(nothing_at(head.uri.path())),
    }
}

async fn token(
    served: &Served,
    caller: &Caller,
    account: &str,
    query: &str,
) -> Result<Response<Body>, Refusal> {
    let asked = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "scopes");
    let scopes: Vec<_> = match &asked {
        Some((_, list)) => list.split(',').filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
        None => served.endpoint.default_scopes.clone(),
    };
    if scopes.is_empty() || scopes.len() > MAX_SCOPES {
        return Err(Refusal::invalid(format!("the parameter scopes names from 1 to {MAX_SCOPES} scopes")));
    }
    let mut request = v1::GetTokenRequest { scopes, ..v1::GetTokenRequest::default() };
    request.identity = match named(served, account) {
        None => String::new(),
        Some(Some(name)) => name.to_string(),
        // What is no name names nothing, and is refused as an identity that is not there.
        Some(None) => return Err(unknown(&served.broker, caller, account, &request).into()),
    };
    let hit = served.token(caller, &request).await?;
    Ok(reply(StatusCode::OK, &answer::google(&hit, served.broker.clock.now())))
}

/// The name of the identity behind an account, if it is one; none: the caller's own.
fn named(served: &Served, account: &str) -> Option<Option<IdentityName>> {
    let domain = format!("@{}.{DOMAIN}", served.endpoint.project);
    let id = account.strip_suffix(&domain).unwrap_or(account);
    (account != "default").then(|| format!("identities/{id}").parse().ok())
}

/// The address of an account that the caller may use for something.
fn email(served: &Served, caller: &Caller, account: &str) -> Result<String, Refusal> {
    let directory = served.broker.lifecycle.directory();
    let workload = directory.workload_of(&caller.principal);
    let own = workload.and_then(|w| w.system_identity).and_then(|uid| directory.identity(uid));
    let found = match named(served, account) {
        None => own.cloned(),
        Some(name) => name.and_then(|name| directory.identity_named(&name).cloned()),
    };
    let may_see = |identity: &Identity| served.broker.access.reaches(&caller.principal, identity);
    let found = found.filter(|identity| may_see(identity)).ok_or_else(|| {
        let problem = format!(
            "Identity not found: {account} is not there, or this caller may not use it, or its workload has no system-assigned identity"
        );
        Refusal::new(Kind::Unknown, problem)
    })?;
    Ok(format!("{}@{}.{DOMAIN}", found.name.id(), served.endpoint.project))
}

/// What follows a folder in a path; the folder itself: nothing.
fn under<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(folder)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

fn recursive(query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| name == "recursive" && value.eq_ignore_ascii_case("true"))
}

fn nothing_at(path: &str) -> Refusal {
    Refusal::new(Kind::NoPath, format!("nothing is at {path}"))
}

fn text(body: &str) -> Response<Body> {
    typed(StatusCode::OK, "application/text", body.to_owned())
}
