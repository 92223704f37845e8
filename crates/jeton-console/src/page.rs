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
const PICTURE: &str = "image/svg+xml";

const INDEX: &str = include_str!("../page/index.html");

macro_rules! embedded {
    ($($name:literal),* $(,)?) => { &[$(($name, include_bytes!(concat!("../page/", $name)))),*] };
}

/// What is at `/page/NAME`.
const FILES: &[(&str, &[u8])] = embedded![
    "actions.js",
    "api.js",
    "app.js",
    "authorities.js",
    "base.css",
    "chart.css",
    "chart.js",
    "dom.js",
    "events.js",
    "explain.js",
    "format.js",
    "icon.svg",
    "identities.js",
    "identity.js",
    "keys.js",
    "layout.css",
    "overview.js",
    "pages.js",
    "parts.css",
    "parts.js",
    "poll.js",
    "problems.js",
    "pulse.js",
    "table.css",
    "table.js",
    "theme.js",
    "timeline.js",
];

pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/", get(|| async { html(StatusCode::OK, INDEX) })).route("/page/{name}", get(file))
}

/// A page of our own.
pub(crate) fn html(status: StatusCode, text: impl Into<String>) -> Response {
    (status, [(CONTENT_TYPE, HTML)], text.into()).into_response()
}

async fn file(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(known, _)| *known == name) {
        Some((known, content)) => ([(CONTENT_TYPE, media(known))], *content).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn media(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("css") => STYLE,
        Some("svg") => PICTURE,
        _ => SCRIPT,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    #[test]
    fn every_file_of_the_page_is_embedded() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/page");
        let there =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let known = FILES.iter().map(|(name, _)| (*name).to_owned()).chain(["index.html".to_owned()]);
        assert_eq!(there.collect::<BTreeSet<_>>(), known.collect());
    }

    #[test]
    fn nothing_of_the_page_stands_inline_or_comes_from_elsewhere() {
        assert!(!INDEX.contains("<style") && !INDEX.contains(" style=") && !INDEX.contains("://"));
        assert_eq!(
            INDEX.matches("<script").count(),
            INDEX.matches("src=\"/page/").count() - INDEX.matches("<img").count()
        );
        for (name, content) in FILES.iter().filter(|(name, _)| name.ends_with(".js")) {
            let text = std::str::from_utf8(content).unwrap();
            for banned in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text.contains(banned), "{name} has {banned}");
            }
        }
    }
}
