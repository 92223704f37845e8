//! What stands before every answer: whose host it is asked as, from where, by whom; and the headers that keep a page to itself.
//!
//! A page of somebody else can make a browser send requests here. It cannot make it call us by a name that we have (DNS rebinding), send
//! our header along (CSRF), or show a cookie that is `SameSite=Strict`.

use std::net::SocketAddr;

use axum::{
    Json, Router,
    extract::{Query, Request, State, rejection::QueryRejection},
    middleware::{Next, from_fn_with_state, map_response},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{
        self, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, LOCATION, ORIGIN,
        SET_COOKIE,
    },
};
use serde_json::json;

use crate::{login::Login, page, serve::Entered};

const SESSION_COOKIE: &str = "jeton_console";
/// What a page of somebody else cannot send without being let to.
const OUR_HEADER: &str = "x-jeton-console";

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

#[derive(Clone)]
struct Guard {
    address: SocketAddr,
    login: Login,
}

/// The page, the login, and the API for whoever is in; all of it only for those who ask us by our name.
pub(crate) fn guarded(api: Router, address: SocketAddr, login: Login) -> Router {
    let guard = Guard { address, login };
    let api = api.layer(from_fn_with_state(guard.clone(), only_within));
    Router::new()
        .route("/login", get(enter))
        .merge(page::routes())
        .with_state(guard.clone())
        .nest("/api", api)
        .layer(from_fn_with_state(guard, only_ours))
        .layer(map_response(with_headers))
}

async fn with_headers(mut answer: Response) -> Response {
    answer.headers_mut().extend(HEADERS);
    answer
}

/// A browser that was led here by somebody else's name, or a change that somebody else's page asks for, gets nothing.
async fn only_ours(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = text(headers, &HOST);
    if !host.is_some_and(|host| guard.is_called(host)) {
        let text = "this is no name of the console: open the link as `jeton console` printed it\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    let own = text(headers, &ORIGIN).is_none_or(|origin| origin.strip_prefix("http://") == host);
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let asked = headers.contains_key(OUR_HEADER)
        && text(headers, &CONTENT_TYPE).is_some_and(|it| it.split(';').next() == Some("application/json"));
    if !own || !(reads || asked) {
        let text = "the request does not come from the console's own page\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    if let Some(entered) = request.extensions().get::<Entered>()
        && guard.lets_in(headers)
    {
        entered.set();
    }
    next.run(request).await
}

async fn only_within(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if guard.lets_in(request.headers()) {
        return next.run(request).await;
    }
    let error = json!({"error": {
        "reason": "NO_SESSION", "message": "this browser is not logged in, or was for 12 hours",
        "remedy": "run `jeton console` again and open its link",
    }});
    (StatusCode::UNAUTHORIZED, Json(error)).into_response()
}

#[derive(serde::Deserialize)]
struct Code {
    #[serde(default)]
    code: String,
}

async fn enter(State(guard): State<Guard>, shown: Result<Query<Code>, QueryRejection>) -> Response {
    let Some(session) = shown.ok().and_then(|shown| guard.login.enter(&shown.code)) else {
        let text = "<!doctype html><meta charset=utf-8><title>Jeton</title><p>This link was used, or is older than five minutes, or is not whole. Run <code>jeton console</code> again.</p>\n";
        return page::html(StatusCode::FORBIDDEN, text);
    };
    let cookie = format!("{SESSION_COOKIE}={session}; HttpOnly; SameSite=Strict; Path=/");
    (StatusCode::SEE_OTHER, [(SET_COOKIE, cookie), (LOCATION, "/".into())]).into_response()
}

impl Guard {
    /// An IPv6 address stands in brackets, as in a URL.
    fn is_called(&self, host: &str) -> bool {
        host.parse() == Ok(self.address) || host == format!("localhost:{}", self.address.port())
    }

    fn lets_in(&self, headers: &HeaderMap) -> bool {
        cookies(headers).any(|session| self.login.is_in(session))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The sessions that a browser shows: another page on this machine may have set one that is none.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|all| all.split(';')).filter_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == SESSION_COOKIE).then_some(value)
    })
}
