//! `/api/*`: each path is one or a few RPCs, and their answers as JSON.

mod changes;
mod events;
mod explain;
mod identities;
mod overview;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Request},
    middleware::{Next, from_fn},
    response,
    routing::{get, post},
};
use jeton_proto::v1::{
    access_service_client::AccessServiceClient, authority_service_client::AuthorityServiceClient,
    event_service_client::EventServiceClient, identity_service_client::IdentityServiceClient,
    status_service_client::StatusServiceClient,
};
use serde_json::Value;
use tokio::sync::Semaphore;
use tonic::{Code, Response, Status, transport::Channel};

use crate::failure::Failure;

/// Longer than the broker waits for anything that a page asks.
const CALL_WITHIN: Duration = Duration::from_secs(30);
const MAX_BODY_BYTES: usize = 16 * 1024;
/// For the body of a request, from its head.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// Streams of events at once: one for each tab.
const MAX_STREAMS: usize = 16;

type Answer = Result<Json<Value>, Failure>;

/// The admin plane.
#[derive(Debug, Clone)]
struct Broker {
    channel: Channel,
    streams: Arc<Semaphore>,
}

/// What is below `/api`.
pub(crate) fn routes(channel: Channel) -> Router {
    Router::new()
        .route("/me", get(overview::me))
        .route("/overview", get(overview::overview))
        .route("/history", get(overview::history))
        .route("/authorities", get(overview::authorities))
        .route("/identities", get(identities::list))
        .route("/identities/{id}", get(identities::one))
        .route("/identities/{id}/{verb}", post(changes::change))
        .route("/explain", post(explain::explain))
        .route("/events", get(events::events))
        .fallback(|| async { Failure::nothing_there() })
        .layer(from_fn(with_body))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Broker { channel, streams: Arc::new(Semaphore::new(MAX_STREAMS)) })
}

impl Broker {
    fn status(&self) -> StatusServiceClient<Channel> {
        StatusServiceClient::new(self.channel.clone())
    }

    fn identities(&self) -> IdentityServiceClient<Channel> {
        IdentityServiceClient::new(self.channel.clone())
    }

    fn authorities(&self) -> AuthorityServiceClient<Channel> {
        AuthorityServiceClient::new(self.channel.clone())
    }

    fn access(&self) -> AccessServiceClient<Channel> {
        AccessServiceClient::new(self.channel.clone())
    }

    fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel.clone())
    }
}

/// A handler has the whole body, or is not asked.
async fn with_body(request: Request, next: Next) -> Result<response::Response, Failure> {
    let (head, body) = request.into_parts();
    let body = Bytes::from_request(Request::from_parts(head.clone(), body), &());
    let body = tokio::time::timeout(BODY_WITHIN, body).await.map_err(|_| Failure::body_late())??;
    Ok(next.run(Request::from_parts(head, body.into())).await)
}

/// Waits for an answer, within the bound of a page.
async fn asked<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
    let answer = tokio::time::timeout(CALL_WITHIN, call).await;
    Ok(answer.map_err(|_| Failure::late())??.into_inner())
}

/// The same for what the caller may not be allowed to see: none.
async fn seen<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<Option<T>, Failure> {
    match tokio::time::timeout(CALL_WITHIN, call).await {
        Ok(Err(status)) if status.code() == Code::PermissionDenied => Ok(None),
        Ok(answer) => Ok(Some(answer?.into_inner())),
        Err(_) => Err(Failure::late()),
    }
}
