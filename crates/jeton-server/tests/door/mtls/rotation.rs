//! Certificates that are replaced under load.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use jeton_server::{
    Alarms,
    door::{Certificates, DoorSettings, TlsSettings, TrustSettings},
};
use tokio::task::JoinSet;

use super::made::{Made, Pair, Wanted, as_whom, connect};
use crate::support::{Callers, open_for, request, until};

/// A bundle holds so many of the latest authorities: whoever has a certificate has time to take the next.
const OVERLAP: usize = 8;
const WORKERS: usize = 4;

fn settings(made: &Made) -> TlsSettings {
    let shown = |name: &str| made.path(name).display().to_string();
    TlsSettings {
        cert_file: shown("live.pem"),
        key_file: shown("live.key"),
        client_trust: vec![TrustSettings {
            name: "prod".into(),
            bundle_file: shown("bundle.pem"),
            trust_domain: "prod.example".into(),
            names: None,
        }],
        ..TlsSettings::default()
    }
}

/// Replaces a file as careful programs do.
fn replace(made: &Made, name: &str, content: &[u8]) {
    fs::write(made.path("next"), content).unwrap();
    fs::rename(made.path("next"), made.path(name)).unwrap();
}

fn show(made: &Made, pair: &Pair) {
    replace(made, "live.pem", &fs::read(&pair.cert).unwrap());
    replace(made, "live.key", &fs::read(&pair.key).unwrap());
}

/// The next authority, a caller's certificate of it, and another certificate of the server.
fn generation(made: &Made, n: usize) -> Pair {
    let name = format!("ca{n}");
    made.authority(&name);
    let bundle =
        (n.saturating_sub(OVERLAP - 1)..=n).map(|n| fs::read(made.path(&format!("ca{n}.pem"))).unwrap());
    replace(made, "bundle.pem", &bundle.collect::<Vec<_>>().concat());
    show(made, &made.server(&format!("server{n}")));
    made.signed(&format!("api{n}"), &name, &Wanted::default())
}

#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    failures: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// Connects again and again with what there is now, and asks.
async fn load(address: std::net::SocketAddr, ca: std::path::PathBuf, now: Arc<Mutex<Pair>>, seen: Arc<Seen>) {
    while !seen.stop.load(Relaxed) {
        let pair = now.lock().unwrap().clone();
        let failed = |what: String| seen.failures.lock().unwrap().push(what);
        let mut peer = match connect(address, &ca, Some(&pair)).await {
            Ok(peer) => peer,
            Err(error) => {
                failed(format!("handshake: {error}"));
                continue;
            }
        };
        for _ in 0..20 {
            match peer.call(request("1")).await {
                Ok(answer) if answer.headers()["grpc-status"] == "0" => {
                    _ = seen.requests.fetch_add(1, Relaxed)
                }
                other => failed(format!("request: {other:?}")),
            }
        }
    }
}

/// Rotates every second, for so long and until two were seen in use. Nothing fails.
async fn rotate(least: Duration) {
    let made = Made::new();
    let (ca, first) = (made.path("ca.pem"), generation(&made, 0));
    let certificates = Certificates::load("data.tls", &settings(&made)).unwrap();
    let (alarms, mut following) = (Alarms::default(), JoinSet::new());
    let tls = Some(Arc::clone(&certificates.tls));
    certificates.follow(&alarms, &mut following);
    let door = open_for(DoorSettings::default(), false, Callers { tls, ..Callers::default() }).await;
    let (now, seen) = (Arc::new(Mutex::new(first.clone())), Arc::<Seen>::default());
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(load(door.address, ca.clone(), Arc::clone(&now), Arc::clone(&seen)));
    }
    let (start, mut taken, mut n, mut made_already) = (Instant::now(), 0, 0, vec![]);
    while start.elapsed() < least || taken < 2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        n += 1;
        made_already.push(tokio::task::block_in_place(|| generation(&made, n)));
        // Whoever hands out certificates does so when their authority is trusted: the latest that is.
        for (age, next) in made_already.iter().rev().enumerate() {
            if as_whom(door.address, &ca, Some(next)).await.is_ok() {
                *now.lock().unwrap() = next.clone();
                taken += 1;
                made_already.drain(..made_already.len() - age);
                break;
            }
        }
        assert!(n < 300, "no rotation comes into use: {:?}", alarms.raised());
    }
    seen.stop.store(true, Relaxed);
    while workers.join_next().await.is_some() {}
    let (requests, failures) = (seen.requests.load(Relaxed), seen.failures.lock().unwrap().clone());
    println!("{n} rotations, {taken} taken up, {requests} requests");
    assert!(failures.is_empty() && requests > 0, "{} of {requests}: {:?}", failures.len(), failures.first());
    // One that is many authorities old is let in no more.
    for more in 1..=OVERLAP {
        generation(&made, n + more);
    }
    let end = Instant::now() + Duration::from_secs(60);
    while as_whom(door.address, &ca, Some(&first)).await.is_ok() {
        assert!(Instant::now() < end, "its authority is gone");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_authorities_rotate_under_load_and_nothing_fails() {
    let seconds = std::env::var("JETON_ROTATE_SECONDS").map_or(0, |text| text.parse().unwrap());
    rotate(Duration::from_secs(seconds)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_no_use_is_said_and_what_was_there_stays_in_use() {
    let made = Made::new();
    let api = generation(&made, 0);
    let certificates = Certificates::load("data.tls", &settings(&made)).unwrap();
    let (alarms, mut following) = (Alarms::default(), JoinSet::new());
    let tls = Some(Arc::clone(&certificates.tls));
    certificates.follow(&alarms, &mut following);
    let door = open_for(DoorSettings::default(), false, Callers { tls, ..Callers::default() }).await;
    let raised = |subject: &str, part: &str| {
        alarms.raised().iter().any(|(of, alarm)| of == subject && alarm.message.contains(part))
    };
    let whole = fs::read(made.path("bundle.pem")).unwrap();
    replace(&made, "bundle.pem", &whole[..whole.len() / 2]);
    replace(&made, "live.key", &fs::read(made.path("ca.key")).unwrap());
    until("half a bundle", || raised("data.tls.client_trust.prod", "bundle.pem cannot be used")).await;
    until("another's key", || raised("data.tls.cert_file", "live.key")).await;
    assert_eq!(
        as_whom(door.address, &made.path("ca.pem"), Some(&api)).await.as_deref(),
        Ok("spiffe://prod.example/api")
    );
    fs::remove_file(made.path("bundle.pem")).unwrap();
    until("none", || raised("data.tls.client_trust.prod", "cannot be read")).await;
    replace(&made, "bundle.pem", &whole);
    show(&made, &made.server("again"));
    until("it is over", || alarms.raised().is_empty()).await;
    assert_eq!(
        as_whom(door.address, &made.path("ca.pem"), Some(&api)).await.as_deref(),
        Ok("spiffe://prod.example/api")
    );
}
