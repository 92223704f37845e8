//! Very many identities: made through the API, one token each, kept over a restart, refreshed for a whole round.
//!
//! `JETON_SCALE=100000` makes it the large one, which wants an optimised broker (`cargo test --profile fast`). What it prints are the
//! figures; what it asserts holds at any size.
#![allow(clippy::print_stdout, reason = "the figures are what it is run for")]

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    time::{Duration, Instant},
};

use jeton_proto::v1::{
    self, access_service_client::AccessServiceClient, batch_get_tokens_result::Outcome,
    identity_service_client::IdentityServiceClient, status_service_client::StatusServiceClient,
    token_service_client::TokenServiceClient,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::support::{Broker, VAULT, World, left};

const USUAL: usize = 200;
/// Requests under way at once, whoever asks.
const LANES: usize = 16;
const BATCH: usize = 100;
/// Refreshes a second that the tokens' life is chosen for.
const REFRESHES_PER_SECOND: usize = 160;
/// The authorities' budget: more than the machine can do, so that it is the machine that is measured.
const BUDGET: u64 = 5_000;

/// The nth identity; nine in ten are at the OIDC-shaped tenant.
fn id(n: usize) -> String {
    format!("scale.n{n:06}")
}

fn is_oidc(n: usize) -> bool {
    !n.is_multiple_of(10)
}

fn wanted(n: usize) -> v1::GetTokenRequest {
    let (scopes, resources) = if is_oidc(n) {
        (vec![], vec!["https://orders.example".into()])
    } else {
        (vec![VAULT.into()], vec![])
    };
    v1::GetTokenRequest { identity: format!("identities/{}", id(n)), scopes, resources, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_identities_are_made_kept_over_a_restart_and_refreshed() {
    let count = std::env::var("JETON_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(USUAL);
    let lifetime = (2 * count / REFRESHES_PER_SECOND).max(20) as u64;
    // A place for each token, which all belong to one caller, and nobody's limits in the way.
    let (entries, bytes) = (count + 1_000, (count + 1_000) * 10_000);
    let settings = [
        format!("engine.max_entries={entries}"),
        format!("engine.max_bytes={bytes}"),
        "engine.caller_share_percent=100".into(),
        "engine.misses_per_second=1000000".into(),
        "engine.miss_burst=1000000".into(),
    ];
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting.as_str()]).collect();
    let mut world = World::with(&arguments, json!({})).await;
    raise_budgets(&world);
    report(count, "before", &world.broker, json!({}));

    let start = Instant::now();
    load(&world.broker, count).await;
    let acknowledged = start.elapsed();
    all_active(&world.broker, count, start).await;
    let figures =
        json!({"acknowledged_s": acknowledged.as_secs_f64(), "active_s": start.elapsed().as_secs_f64()});
    report(count, "identities made", &world.broker, figures);

    world.sandbox.settings(json!({"token_lifetime_seconds": lifetime})).await;
    let start = Instant::now();
    let tokens = ask_all(&world.broker, count, 1).await;
    let seconds = start.elapsed().as_secs_f64();
    report(count, "one token each", &world.broker, json!({"seconds": seconds}));
    report(count, "a page of the console", &world.broker, console_page(&world.broker, count).await);

    let before = world.sandbox.totals().await;
    let start = Instant::now();
    assert!(world.broker.process.stop().success());
    let stopped = start.elapsed();
    let start = Instant::now();
    world.restart(&arguments);
    let ready = start.elapsed();
    let again = ask_all(&world.broker, count, BATCH).await;
    let warm = start.elapsed();
    assert!(again == tokens, "another token after the restart");
    assert_eq!(world.sandbox.totals().await, before, "the authority was asked");
    let figures = json!({
        "stop_s": stopped.as_secs_f64(), "ready_s": ready.as_secs_f64(), "warm_s": warm.as_secs_f64(), "authority_calls": 0,
    });
    report(count, "started again", &world.broker, figures);
    assert!(warm < Duration::from_secs(10), "{warm:?} until every token was served");

    let figures = refreshed(&world, count, lifetime).await;
    report(count, "refreshed", &world.broker, figures);
    let status = status(&world.broker).await;
    assert!(status.healthy, "{status:?}");
}

/// As an operator does for an authority that allows more.
fn raise_budgets(world: &World) {
    for authority in ["entra", "oidc"] {
        let mut profile = world.broker.json(&["authority", "get", authority])["profile"].clone();
        for member in ["requests_per_second", "warm_up_per_second"] {
            profile["limits"][member] = BUDGET.into();
        }
        let file = world.folder().join(format!("{authority}.json"));
        fs::write(&file, profile.to_string()).unwrap();
        world.broker.json(&["authority", "update", authority, "--profile", file.to_str().unwrap()]);
    }
}

/// Creates every identity and a role assignment for each, as fast as they are acknowledged.
async fn load(broker: &Broker, count: usize) {
    let channel = broker.unix("admin_socket").await;
    in_lanes(count, |n| {
        let (mut identities, mut access) =
            (IdentityServiceClient::new(channel.clone()), AccessServiceClient::new(channel.clone()));
        async move {
            let authority = if is_oidc(n) { "authorities/oidc" } else { "authorities/entra" };
            let create = v1::CreateIdentityRequest {
                identity_id: id(n),
                authority: authority.into(),
                request_id: format!("create-{n}"),
                ..Default::default()
            };
            identities.create_identity(create).await.unwrap();
            let assign = v1::CreateRoleAssignmentRequest {
                assignment_id: id(n).replace('.', "-"),
                member: "loopback://dev".into(),
                identity: format!("identities/{}", id(n)),
                targets: vec!["*".into()],
                request_id: format!("assign-{n}"),
                ..Default::default()
            };
            access.create_role_assignment(assign).await.unwrap();
        }
    })
    .await;
}

/// What the console asks for: the worst, a search, and the last page by name; how long the slowest took.
async fn console_page(broker: &Broker, count: usize) -> Value {
    let mut client = StatusServiceClient::new(broker.unix("admin_socket").await);
    let mut slowest = Duration::ZERO;
    let (last, all) = (id(count - 1), count as u64 + 4);
    for (query, order, descending, total) in [
        ("", v1::IdentityOrder::Worst, false, all),
        (last.as_str(), v1::IdentityOrder::Worst, false, 1),
        ("", v1::IdentityOrder::Name, true, all),
    ] {
        let (query, order) = (query.to_owned(), order.into());
        let request = v1::ListIdentityStatusesRequest { query, order, descending, ..Default::default() };
        let began = Instant::now();
        let page = client.list_identity_statuses(request).await.unwrap().into_inner();
        slowest = slowest.max(began.elapsed());
        assert_eq!(page.total, total);
        assert_eq!(page.identities.len() as u64, total.min(100));
        assert!(descending || total > 1 || page.identities[0].name == format!("identities/{last}"));
    }
    json!({"slowest_s": slowest.as_secs_f64()})
}

/// Waits until nothing is under way any more, and says how it goes on.
async fn all_active(broker: &Broker, count: usize, start: Instant) {
    let end =
        Instant::now() + Duration::from_secs(120) + Duration::from_millis(40) * u32::try_from(count).unwrap();
    let mut next = count / 10;
    loop {
        let states = status(broker).await.identities;
        let active = states.get("active").copied().unwrap_or(0) as usize;
        if active >= next.max(1) {
            println!("{active:>7} active after {:.1} s", start.elapsed().as_secs_f64());
            next = active + count / 10;
        }
        // The demo has four of its own.
        if active == count + 4 {
            return;
        }
        assert!(Instant::now() < end, "{states:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Every token once, in requests of so many; a digest of each.
async fn ask_all(broker: &Broker, count: usize, batch: usize) -> BTreeMap<usize, u64> {
    let channel = broker.tcp().await;
    let parts = in_lanes(count.div_ceil(batch), |part| {
        let client = TokenServiceClient::new(channel.clone());
        async move {
            let range = part * batch..count.min((part + 1) * batch);
            let tokens = ask(client, range.clone()).await;
            range.zip(tokens.iter().map(digest)).collect::<Vec<_>>()
        }
    });
    parts.await.into_iter().flatten().collect()
}

async fn ask(mut client: TokenServiceClient<Channel>, range: Range<usize>) -> Vec<v1::Token> {
    if range.len() == 1 {
        return vec![client.get_token(wanted(range.start)).await.unwrap().into_inner().token.unwrap()];
    }
    let requests = range.map(wanted).collect();
    let results =
        client.batch_get_tokens(v1::BatchGetTokensRequest { requests }).await.unwrap().into_inner().results;
    let token = |result: v1::BatchGetTokensResult| match result.outcome.unwrap() {
        Outcome::Response(response) => response.token.unwrap(),
        Outcome::Failure(failure) => panic!("a caller got no token: {failure:?}"),
    };
    results.into_iter().map(token).collect()
}

fn digest(token: &v1::Token) -> u64 {
    let mut hasher = DefaultHasher::new();
    token.access_token.hash(&mut hasher);
    hasher.finish()
}

/// Callers go round while every token is refreshed once; nobody gets an error, or a token under its floor.
async fn refreshed(world: &World, count: usize, lifetime: u64) -> Value {
    let floor = (lifetime as f64 / 4.0).min(30.0);
    let client = world.broker.tokens().await;
    let asked = async || world.sandbox.totals().await["token_requests"]["total"].as_u64().unwrap();
    let (before, start) = (asked().await, Instant::now());
    let (mut round, mut answers, mut least, mut backlog, mut refreshes) = (0, 0, f64::MAX, 0, 0);
    let (mut first, mut every) = (None, tokio::time::interval(Duration::from_millis(50)));
    while refreshes < count as u64 {
        every.tick().await;
        let part = round % count.div_ceil(BATCH);
        let range = part * BATCH..count.min((part + 1) * BATCH);
        round += 1;
        let began = Instant::now();
        let tokens = ask(client.clone(), range).await;
        let way = began.elapsed().as_secs_f64();
        // At some moment between the question and now.
        least = tokens.iter().map(|token| left(token) + way).fold(least, f64::min);
        assert!(least >= floor, "{least} s left of {lifetime}");
        answers += tokens.len();
        if round.is_multiple_of(20) {
            refreshes = asked().await - before;
            backlog = backlog.max(status(&world.broker).await.tokens.get("stale").copied().unwrap_or(0));
            first = first.or((refreshes > 0).then(Instant::now));
        }
        assert!(
            start.elapsed() < Duration::from_secs(lifetime + 60),
            "{refreshes} refreshes after {:?}",
            start.elapsed()
        );
    }
    let seconds = first.unwrap().elapsed().as_secs_f64();
    // Nobody is refreshed before two fifths of its life are over.
    let most = count as f64 * (start.elapsed().as_secs_f64() / (0.4 * lifetime as f64) + 1.0);
    assert!(refreshes as f64 <= most, "{refreshes} refreshes in {:?}", start.elapsed());
    json!({
        "lifetime_s": lifetime, "refreshes": refreshes, "seconds": seconds, "answers": answers, "errors": 0,
        "largest_backlog": backlog, "least_life_left_s": least,
    })
}

/// Runs so many jobs, a few at once; their results.
async fn in_lanes<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    jobs: usize,
    job: impl Fn(usize) -> F,
) -> Vec<T> {
    let (mut running, mut done) = (JoinSet::new(), Vec::with_capacity(jobs));
    for n in 0..jobs {
        if running.len() == LANES {
            done.push(running.join_next().await.unwrap().unwrap());
        }
        running.spawn(job(n));
    }
    done.extend(running.join_all().await);
    done
}

async fn status(broker: &Broker) -> v1::StatusResponse {
    let mut client = StatusServiceClient::new(broker.unix("admin_socket").await);
    client.status(v1::StatusRequest {}).await.unwrap().into_inner()
}

/// Prints what was found, the broker's memory, and the processor time that it has used since it started.
fn report(count: usize, what: &str, broker: &Broker, mut figures: Value) {
    let pid = &broker.endpoints["pid"];
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    figures["resident_mib"] = (kib("VmRSS:") / 1_024).into();
    figures["peak_mib"] = (kib("VmHWM:") / 1_024).into();
    figures["cpu_s"] = cpu_seconds(pid).into();
    println!("{count} identities, {what}: {figures}");
    let bound = 128 * 1_024 + count as u64 * 9;
    assert!(kib("VmRSS:") <= bound, "{} KiB resident for {count} identities", kib("VmRSS:"));
}

/// What the broker used; the sandbox is a process of its own.
fn cpu_seconds(pid: &Value) -> f64 {
    ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap()) as f64 / 100.0
}

/// User and system time, fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
fn ticks(stat: &str) -> u64 {
    let (_, behind_the_name) = stat.rsplit_once(')').unwrap();
    let field = |place: usize| behind_the_name.split_whitespace().nth(place).unwrap().parse::<u64>().unwrap();
    field(11) + field(12)
}
