//! The page itself, inside the binary: plain files, as a browser reads them. They tell nothing of the broker, so everybody may have them.

use axum::{
    Router,
    extract::Path,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header::CONTENT_TYPE};

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

const INDEX: &str = include_str!("../page/index.html");

/// What is at `/page/NAME`: name, media type, content.
const FILES: &[(&str, &str, &[u8])] = &[
    ("app.js", SCRIPT, include_bytes!("../page/app.js")),
    ("app.css", STYLE, include_bytes!("../page/app.css")),
];

pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/", get(|| async { html(StatusCode::OK, INDEX) })).route("/page/{name}", get(file))
}

/// A page of our own.
pub(crate) fn html(status: StatusCode, text: impl Into<String>) -> Response {
    (status, [(CONTENT_TYPE, HTML)], text.into()).into_response()
}

async fn file(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, media, content)) => ([(CONTENT_TYPE, *media)], *content).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
