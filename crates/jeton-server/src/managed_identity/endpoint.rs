//! The way of one request.

use std::sync::Arc;

use axum::{Router, extract::State};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use jeton_engine::{Hit, Rejected};
use jeton_proto::v1;
use serde_json::Value;
use tonic::{body::Body, service::Routes};

use super::{
    Challenges, Flavour, Hosts, answer,
    asked::Asked,
    chosen::chosen,
    flavour::Proof,
    gce,
    guard::{guard, one, proves},
    refusal::{Kind, Refusal},
};
use crate::{
    correlation,
    door::{AuthenticationFailure, Caller, Peer},
    grpc::Broker,
    seldom::Seldom,
};

/// Largest form of Cloud Shell, in bytes.
const MAX_FORM: usize = 8 * 1024;
/// By which clients find out whether an endpoint speaks a newer version: a 400, to a request without the header, would say that it does.
const NEWER: &str = "/getplatformmetadata";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");

/// What an endpoint is made of.
#[derive(Debug)]
pub struct Endpoint {
    /// Which clients it serves.
    pub flavour: Flavour,
    /// For which hosts it takes requests.
    pub hosts: Hosts,
    /// The files by which callers of Arc show that they may read them; none elsewhere.
    pub challenges: Option<Challenges>,
    /// What a caller at Compute Engine's gets that names no scope.
    pub default_scopes: Vec<String>,
    /// The project that Compute Engine's names.
    pub project: String,
}

/// The routes of an endpoint, for a [`Door`](crate::door::Door) of HTTP/1.1.
pub fn routes(broker: &Broker, endpoint: Endpoint) -> Routes {
    let state = Arc::new(Served { broker: broker.clone(), endpoint, log: Seldom::default() });
    Router::new().fallback(answer_to).with_state(state).into()
}

pub(super) struct Served {
    pub(super) broker: Broker,
    pub(super) endpoint: Endpoint,
    log: Seldom,
}

async fn answer_to(State(served): State<Arc<Served>>, request: Request<axum::body::Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let asked_as = head.headers.get(REQUEST_ID).cloned();
    let flavour = served.endpoint.flavour;
    let mut response = served.answered(&head, body).await.unwrap_or_else(|mut refusal| {
        if refusal.correlation_id.is_empty() {
            refusal.correlation_id = correlation::id();
        }
        jeton_trace::current().text("jeton.correlation_id", &refusal.correlation_id);
        served.tell(&head, &refusal);
        refusal.into_response(flavour)
    });
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    if let Some(id) = asked_as {
        headers.insert(REQUEST_ID, id);
    }
    if flavour == Flavour::Gce {
        headers.insert("metadata-flavor", HeaderValue::from_static("Google"));
    }
    response
}

/// A response of JSON.
pub(super) fn json(status: StatusCode, body: &Value) -> Response<Body> {
    typed(status, "application/json; charset=utf-8", body.to_string())
}

pub(super) fn typed(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl Served {
    async fn answered(&self, head: &Parts, body: axum::body::Body) -> Result<Response<Body>, Refusal> {
        let flavour = self.endpoint.flavour;
        guard(flavour, &self.endpoint.hosts, head)?;
        let path = squeezed(head.uri.path());
        if path.ends_with(NEWER) {
            return Err(Refusal::new(Kind::NoPath, "this endpoint speaks the first version alone"));
        }
        if !proves(flavour.proof(), &head.headers) {
            return Err(unproven(flavour));
        }
        if flavour == Flavour::Gce {
            return gce::answered(self, head).await;
        }
        if !path.ends_with(flavour.path()) {
            return Err(Refusal::invalid(format!("nothing is at {path}: tokens are at {}", flavour.path())));
        }
        let caller = self.caller(head)?;
        if let Some(challenges) = &self.endpoint.challenges {
            challenges.met(&head.headers).await?;
        }
        let form = if head.method == http::Method::POST { Some(read(body).await?) } else { None };
        let parameters = form.as_deref().unwrap_or(head.uri.query().unwrap_or_default().as_bytes());
        let asked = Asked::parse(parameters)?;
        let hit = self.hit(&caller, &asked).await?;
        Ok(json(StatusCode::OK, &answer::azure(&asked, &hit, self.broker.clock.now())))
    }

    /// Who asks: whose secret it is, or who the connection is.
    pub(super) fn caller(&self, head: &Parts) -> Result<Arc<Caller>, Refusal> {
        let known = head.extensions.get::<Arc<Caller>>().cloned();
        let Proof::Secret(names) = self.endpoint.flavour.proof() else {
            return known.ok_or_else(|| unproven(self.endpoint.flavour));
        };
        let mut shown = names.iter().filter_map(|name| one(&head.headers, name));
        let (Some(secret), None) = (shown.next(), shown.next()) else {
            return Err(unproven(self.endpoint.flavour));
        };
        let principal = self.broker.lifecycle.principal_of_secret(secret);
        let peer = head.extensions.get::<Peer>().cloned();
        let (Some(principal), Some(peer)) = (principal, peer) else {
            let text = "the secret is not one of a workload, or does not count any more: `jeton env` gives the present one";
            return Err(Refusal::new(Kind::Unproven, text));
        };
        correlation::is_from(&principal);
        Ok(Arc::new(Caller { principal, peer, until: None }))
    }

    async fn hit(&self, caller: &Caller, asked: &Asked) -> Result<Hit, Refusal> {
        let mut request = v1::GetTokenRequest {
            resources: vec![asked.resource.clone()],
            claims: asked.claims(),
            ..v1::GetTokenRequest::default()
        };
        if let Some(selector) = &asked.selector {
            request.identity = chosen(&self.broker, caller, selector, &request)?;
        }
        if let Some(refused) = &asked.refused {
            self.replaced(caller, &request, refused).await?;
        }
        self.token(caller, &request).await
    }

    pub(super) async fn token(&self, caller: &Caller, request: &v1::GetTokenRequest) -> Result<Hit, Refusal> {
        let wait = self.endpoint.flavour.longest_wait();
        Ok(self.broker.hit(caller, request, Some(wait)).await?)
    }

    /// Has a new token fetched in the place of one that a resource refused. Where that cannot be had, the present one is what there is.
    async fn replaced(
        &self,
        caller: &Caller,
        request: &v1::GetTokenRequest,
        refused: &[u8],
    ) -> Result<(), Refusal> {
        match self.broker.report(caller, request, refused) {
            Ok((key, Rejected::Refreshing)) => {
                drop(self.broker.engine.settled(&key, self.endpoint.flavour.longest_wait()).await);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(failure) => {
                let refusal = Refusal::from(failure);
                if refusal.retry_after.is_some() { Ok(()) } else { Err(refusal) }
            }
        }
    }

    /// What an operator needs to know of a request that was refused; tokens that are not given are on the audit log.
    fn tell(&self, head: &Parts, refusal: &Refusal) {
        if matches!(refusal.kind, Kind::Invalid | Kind::Unproven) && refusal.challenge.is_none() {
            let (door, peer) = (self.endpoint.flavour.door(), head.extensions.get::<Peer>());
            let (reason, correlation_id) = (&refusal.message, &refusal.correlation_id);
            self.log.line(door, peer.map(Peer::subject), |left_out| {
                tracing::warn!(door, peer = peer.map(tracing::field::display), %reason, %correlation_id, left_out, "a request for a token is refused");
            });
        }
    }
}

fn unproven(flavour: Flavour) -> Refusal {
    match flavour.proof() {
        Proof::Header("metadata", _) => Refusal::invalid("Required metadata header not specified"),
        Proof::Header(name, value) => {
            Refusal::new(Kind::Refused, format!("Missing required header: {name}: {value}"))
        }
        Proof::Secret(names) => {
            let text =
                format!("the header {} is missing: it carries the secret that `jeton env` gives", names[0]);
            Refusal { failure: AuthenticationFailure::Missing, ..Refusal::new(Kind::Unproven, text) }
        }
    }
}

/// Without doubled slashes and without one at the end: clients join bases and paths in their own ways.
fn squeezed(path: &str) -> String {
    path.split('/').filter(|segment| !segment.is_empty()).flat_map(|segment| ["/", segment]).collect()
}

async fn read(body: axum::body::Body) -> Result<Vec<u8>, Refusal> {
    let read = Limited::new(body, MAX_FORM).collect().await;
    let whole = read
        .map_err(|_| Refusal::invalid(format!("the form has more than {MAX_FORM} bytes, or was cut off")))?;
    Ok(whole.to_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_that_clients_add_mean_nothing() {
        for path in ["/msi/token", "//msi//token/", "/msi/token//"] {
            assert_eq!(squeezed(path), "/msi/token");
        }
        assert_eq!(squeezed("/"), "");
    }
}
