//! Why somebody may, or may not.

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use jeton_proto::v1;
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Broker, asked};
use crate::shown;

/// How a canonical target says that it is a resource, and not scopes.
const RESOURCE: &str = "resource:";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Question {
    correlation_id: String,
    principal: String,
    identity: String,
    target: String,
}

pub(super) async fn explain(
    State(broker): State<Broker>,
    question: Result<Json<Question>, JsonRejection>,
) -> Answer {
    let Json(question) = question?;
    let told = asked(broker.access().explain(question.request())).await?;
    let allowed_by = told.allowed.then(|| format!("{} allows it", told.role_assignment));
    let refused = (!told.allowed).then(|| told.reason.clone());
    let near = told.near_misses.iter().map(|miss| format!("{}: {}", miss.role_assignment, miss.problem));
    Ok(Json(json!({
        "allowed": told.allowed,
        "because": allowed_by.into_iter().collect::<Vec<_>>(),
        "missing": refused.into_iter().chain(near).collect::<Vec<_>>(),
        "command": shown::some(&told.remedy),
        "principal": told.principal,
        "identity": shown::some(&told.identity),
        "target": shown::some(&told.target),
        "method": shown::some(&told.method),
        "denied_time": shown::time(told.denied_time.as_ref()),
    })))
}

impl Question {
    fn request(self) -> v1::ExplainRequest {
        let (mut scopes, mut resources) = (vec![], vec![]);
        match self.target.strip_prefix(RESOURCE) {
            Some(resource) => resources.push(resource.to_owned()),
            None => scopes.extend(self.target.split_whitespace().map(str::to_owned)),
        }
        let identity = match self.identity.as_str() {
            id if id.is_empty() || id.starts_with("identities/") => self.identity,
            id => format!("identities/{id}"),
        };
        v1::ExplainRequest {
            correlation_id: self.correlation_id,
            principal: self.principal,
            identity,
            scopes,
            resources,
        }
    }
}
