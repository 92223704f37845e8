//! `/metrics`, `/livez` and `/readyz`.

use std::{fmt, sync::Arc};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header::CACHE_CONTROL, header::CONTENT_TYPE};

use crate::{Gathered, Resource, Snapshot, prometheus};

/// Whether the broker can serve what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It can, and something needs an operator.
    Degraded,
    /// It cannot, or is about to stop; why.
    Unready(&'static str),
}

/// Who says it, of what was told last.
pub type Judge = Arc<dyn Fn(&Snapshot) -> Readiness + Send + Sync>;

#[derive(Clone)]
struct Served {
    gathered: Gathered,
    resource: Arc<Resource>,
    ready: Judge,
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").finish_non_exhaustive()
    }
}

/// What stands behind the listener.
pub fn routes(gathered: Gathered, resource: Resource, ready: Judge) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { text(StatusCode::OK, "alive\n") }))
        .route("/readyz", get(readiness))
        .with_state(Served { gathered, resource: Arc::new(resource), ready })
}

async fn metrics(State(served): State<Served>) -> Response {
    let snapshot = served.gathered.snapshot().await;
    ([(CONTENT_TYPE, prometheus::MEDIA_TYPE)], prometheus::text(&snapshot, &served.resource)).into_response()
}

async fn readiness(State(served): State<Served>) -> Response {
    let snapshot = served.gathered.snapshot().await;
    match (served.ready)(&snapshot) {
        Readiness::Ready => text(StatusCode::OK, "ready\n"),
        Readiness::Degraded => {
            text(StatusCode::OK, "ready, degraded: `jeton status` says what needs attention\n")
        }
        Readiness::Unready(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

fn text(status: StatusCode, text: impl Into<String>) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], text.into()).into_response()
}
