//! `/api/*`: each path is one or a few RPCs, and their answers as JSON.

mod overview;

use std::time::Duration;

use axum::{Json, Router, extract::DefaultBodyLimit, routing::get};
use jeton_proto::v1::status_service_client::StatusServiceClient;
use serde_json::Value;
use tonic::{Response, Status, transport::Channel};

use crate::failure::Failure;

/// Longer than the broker waits for anything that a page asks.
const CALL_WITHIN: Duration = Duration::from_secs(30);
const MAX_BODY_BYTES: usize = 16 * 1024;

type Answer = Result<Json<Value>, Failure>;

/// The admin plane.
#[derive(Debug, Clone)]
struct Broker(Channel);

/// What is below `/api`.
pub(crate) fn routes(broker: Channel) -> Router {
    Router::new()
        .route("/me", get(overview::me))
        .route("/overview", get(overview::overview))
        .fallback(|| async { Failure::nothing_there() })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Broker(broker))
}

impl Broker {
    fn status(&self) -> StatusServiceClient<Channel> {
        StatusServiceClient::new(self.0.clone())
    }
}

/// Waits for an answer, within the bound of a page.
async fn asked<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
    let answer = tokio::time::timeout(CALL_WITHIN, call).await;
    Ok(answer.map_err(|_| Failure::late())??.into_inner())
}
