//! The console as browsers meet it, and as pages of others try to.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

mod api;
mod bounds;
mod world;

use world::World;

const API: [&str; 8] = [
    "/api/me",
    "/api/overview",
    "/api/history",
    "/api/identities",
    "/api/identities/x",
    "/api/authorities",
    "/api/events",
    "/api/nothing",
];

#[tokio::test]
async fn the_link_lets_one_browser_in_once() {
    let world = World::start().await;
    for wrong in ["/login?code=guessed", "/login?code=a&code=b", "/login?code=%FF", "/login"] {
        let answer = world.get(wrong, &[]).await;
        assert_eq!(answer.status, 403, "{wrong}");
        assert!(answer.body.contains("jeton console"), "{}", answer.body);
    }
    let cookie = world.enter().await;
    let again = world.get(&world.login(), &[]).await;
    assert_eq!((again.status, again.header("set-cookie")), (403, None));
    assert!(again.body.contains("jeton console"), "{}", again.body);
    let other = format!("jeton_console=another; x=y; {cookie}");
    for (cookie, status) in [("jeton_console=guessed", 401), (&cookie, 404), (&other, 404)] {
        assert_eq!(world.get("/api/nothing", &[("cookie", cookie)]).await.status, status, "{cookie}");
    }
}

#[tokio::test]
async fn without_a_session_the_api_tells_nothing_and_asks_the_broker_nothing() {
    let world = World::start().await;
    for path in API {
        let answer = world.get(path, &[]).await;
        assert_eq!(
            (answer.status, answer.json()["error"]["reason"].as_str()),
            (401, Some("NO_SESSION")),
            "{path}"
        );
    }
    let posted = world.post("/api/identities/x/rotate", "jeton_console=guessed", "{}").await;
    assert_eq!(posted.status, 401);
    assert_eq!(world.plane.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn every_answer_has_the_headers_that_keep_a_page_to_itself() {
    let world = World::start().await;
    let evil = [("host", "evil.example")];
    let answers = [
        world.get("/", &[]).await,
        world.get("/page/app.js", &[]).await,
        world.get("/page/nothing.js", &[]).await,
        world.get("/nothing", &[]).await,
        world.get("/login?code=x", &[]).await,
        world.get("/api/me", &[]).await,
        world.get("/", &evil).await,
        world.send("POST", "/", &[], "").await,
        world.get(&world.login(), &[]).await,
    ];
    assert_eq!(answers.each_ref().map(|a| a.status), [200, 200, 404, 404, 403, 401, 421, 403, 303]);
    for answer in answers {
        let policy = answer.header("content-security-policy").unwrap_or_else(|| panic!("{}", answer.head));
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        let others =
            ["x-content-type-options", "referrer-policy", "cache-control", "cross-origin-opener-policy"];
        let values = others.map(|name| answer.header(name).unwrap_or_default());
        assert_eq!(values, ["nosniff", "no-referrer", "no-store", "same-origin"]);
    }
}

#[tokio::test]
async fn a_name_that_is_not_ours_gets_nothing_and_spends_no_link() {
    let world = World::start().await;
    let port = world.address.port();
    for host in
        ["evil.example".to_owned(), format!("evil.example:{port}"), "127.0.0.1".into(), "127.0.0.1:1".into()]
    {
        let answer = world.get(&world.login(), &[("host", &host)]).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (421, None), "{host}");
    }
    let ours = world.get("/", &[("host", &format!("localhost:{port}"))]).await;
    assert_eq!(ours.status, 200);
    world.enter().await;
}

#[tokio::test]
async fn a_page_of_somebody_else_changes_nothing_even_where_the_cookie_comes_along() {
    let world = World::start().await;
    let cookie = world.enter().await;
    let (json, ours) = (("content-type", "application/json"), ("x-jeton-console", "1"));
    let (cookie, evil) = (("cookie", cookie.as_str()), ("origin", "http://evil.example"));
    let other_port = ("origin", "http://127.0.0.1:1");
    for headers in [
        &[cookie, json][..],
        &[cookie, ours],
        &[cookie, ours, ("content-type", "text/plain")],
        &[cookie, ours, json, evil],
        &[cookie, ours, json, other_port],
        &[cookie, ours, json, ("origin", "null")],
    ] {
        let answer = world.send("POST", "/api/identities/x/disable", headers, "{}").await;
        assert_eq!(answer.status, 403, "{headers:?}");
    }
    assert_eq!(world.get("/api/overview", &[cookie, evil]).await.status, 403);
    assert_eq!(world.plane.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_too_long_is_refused_and_the_broker_is_not_asked() {
    let world = World::start().await;
    let cookie = world.enter().await;
    let long = format!("{{\"principal\": \"{}\"}}", "x".repeat(20 * 1024));
    let refused = world.post("/api/explain", &cookie, &long).await;
    assert_eq!(
        (refused.status, refused.json()["error"]["reason"].as_str()),
        (413, Some("REQUEST_TOO_LARGE"))
    );
    let head = world.get(&format!("/{}", "x".repeat(40 * 1024)), &[]).await;
    assert!(matches!(head.status, 0 | 414 | 431), "{}", head.head);
    assert_eq!(world.plane.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_request_that_cannot_be_read_gets_an_error_as_every_other() {
    let world = World::start().await;
    let cookie = world.enter().await;
    let answers = [
        world.post("/api/explain", &cookie, "{").await,
        world.post("/api/explain", &cookie, "{\"principal\": 1}").await,
        world.post("/api/identities/x/rotate", &cookie, "[]").await,
        world.post("/api/identities/%FF/rotate", &cookie, "{}").await,
        world.get("/api/identities?q=a&q=b", &[("cookie", &cookie)]).await,
        world.get("/api/identities/%FF", &[("cookie", &cookie)]).await,
    ];
    assert_eq!(answers.each_ref().map(|a| a.status), [400, 422, 422, 400, 400, 400]);
    for answer in answers {
        let error = &answer.json()["error"];
        assert_eq!(error["reason"], "MALFORMED_REQUEST");
        assert!(["message", "remedy"].iter().all(|of| error[of].as_str().is_some_and(|it| !it.is_empty())));
    }
    assert_eq!(world.plane.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_but_loopback_is_listened_on() {
    let error = jeton_console::Console::bind(([0, 0, 0, 0], 0).into()).await.unwrap_err();
    assert!(error.to_string().contains("not on loopback"), "{error}");
}
