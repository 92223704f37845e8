//! One caller that asks for too much.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use jeton_proto::v1::{self, token_service_client::TokenServiceClient};
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{VAULT, World, reason, token};

/// A request that is a miss, and no other's.
fn miss(of: &str, n: u64) -> v1::GetTokenRequest {
    let claims = format!(r#"{{"access_token":{{"nbf":{{"essential":true,"value":"{of}-{n}"}}}}}}"#);
    v1::GetTokenRequest {
        identity: "identities/billing".into(),
        scopes: vec![VAULT.into()],
        claims,
        ..Default::default()
    }
}

/// How long each of a neighbour's misses takes, five a second; none may fail.
async fn neighbour(world: &World, of: &str, seconds: u64) -> Vec<Duration> {
    let mut client = world.broker.local_tokens().await;
    let (mut took, mut tick) = (vec![], tokio::time::interval(Duration::from_millis(200)));
    // After a pause it goes on as before, or it would be over its own limit.
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for n in 0..seconds * 5 {
        tick.tick().await;
        let began = Instant::now();
        client.get_token(miss(of, n)).await.unwrap();
        took.push(began.elapsed());
    }
    took.sort_unstable();
    took
}

/// `JETON_FAIR_SECONDS` makes it long enough for its figures to say something; they are printed, and not asserted.
#[tokio::test(flavor = "multi_thread")]
async fn beside_a_caller_at_fifty_times_its_limit_no_miss_of_another_fails() {
    let seconds = std::env::var("JETON_FAIR_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2_u64);
    // Little enough that what is granted is no load for the machine.
    let limits = ["--set", "engine.misses_per_second=10", "--set", "engine.miss_burst=20"];
    let world = World::with(&limits, serde_json::json!({})).await;
    let alone = neighbour(&world, "alone", seconds).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut floods = vec![];
    for lane in 0..50 {
        let mut client = TokenServiceClient::new(world.broker.tcp().await);
        let stopped = Arc::clone(&stop);
        // Ten a second on each of fifty lanes, whatever becomes of them.
        floods.push(tokio::spawn(async move {
            let (mut sent, mut refused) = (0_u64, 0_u64);
            let mut tick = tokio::time::interval(Duration::from_millis(100));
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
            while !stopped.load(Relaxed) {
                tick.tick().await;
                sent += 1;
                refused += u64::from(client.get_token(miss(&format!("flood-{lane}"), sent)).await.is_err());
            }
            (sent, refused)
        }));
    }
    let beside = neighbour(&world, "beside", seconds).await;
    stop.store(true, Relaxed);
    let (mut sent, mut refused) = (0, 0);
    for flood in floods {
        let (of_it, no) = flood.await.unwrap();
        (sent, refused) = (sent + of_it, refused + no);
    }
    let p99 = |took: &[Duration]| took[took.len() * 99 / 100];
    let ratio = p99(&beside).as_secs_f64() / p99(&alone).as_secs_f64();
    println!(
        "p99 of a miss: {:?} alone, {:?} beside {} requests a second, of which {refused} of {sent} were refused: {ratio:.2} times",
        p99(&alone),
        p99(&beside),
        sent / seconds.max(1)
    );
    assert!(refused > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_assignment_gives_limits_of_its_own() {
    let world = World::start().await;
    let broker = &world.broker;
    broker.json(&["identity", "create", "payroll", "--authority", "entra"]);
    let assign =
        ["access", "assign", "--member", "loopback://dev", "--identity", "payroll", "--target", VAULT];
    let wrong = broker.jeton(&[&assign[..], &["--limit", "misses=3"]].concat());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("misses_per_second"), "{wrong:?}");
    let none = broker.jeton(&[&assign[..], &["--limit", "miss_burst=0"]].concat());
    assert!(String::from_utf8_lossy(&none.stderr).contains("at least 1"), "{none:?}");
    let own = ["--limit", "miss_burst=2", "--limit", "misses_per_second=1"];
    let made = broker.json(&[&assign[..], &own].concat());
    assert_eq!(made["limits"], serde_json::json!({"miss_burst": 2, "misses_per_second": 1}));
    let mut client = broker.tokens().await;
    let mut asked = async |n| {
        let request = v1::GetTokenRequest { identity: "identities/payroll".into(), ..miss("own", n) };
        client.get_token(request).await
    };
    let mut over = None;
    for n in 0..50 {
        over = over.or(asked(n).await.err());
    }
    let over = over.expect("fifty at once are over a limit of two");
    assert_eq!((over.code(), reason(&over).as_str()), (Code::ResourceExhausted, "CALLER_OVER_LIMIT"));
    assert!(over.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some_and(|d| !d.is_zero())));
    assert_eq!(over.get_details_error_info().unwrap().metadata["limit"], "misses_per_second");
    // What it asks otherwise is counted apart.
    token(&mut broker.tokens().await, "identities/billing", "https://orders.example/.default").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_claims_of_one_caller_are_refused_and_nobody_else_notices() {
    // So little that it does not matter how long a busy machine takes for what is granted.
    let limits = ["--set", "engine.misses_per_second=1", "--set", "engine.miss_burst=100"];
    let world = World::with(&limits, serde_json::json!({})).await;
    let mut other = world.broker.local_tokens().await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let neighbour = tokio::spawn(async move {
        let mut answers = 0;
        while !stopped.load(Relaxed) {
            token(&mut other, "identities/billing", VAULT).await?;
            answers += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<u64, tonic::Status>(answers)
    });
    let mut floods = vec![];
    for connection in 0..10 {
        let channel = world.broker.tcp().await;
        for lane in 0..10 {
            let mut client = TokenServiceClient::new(channel.clone());
            floods.push(tokio::spawn(async move {
                let mut refused = 0_u32;
                for n in 0..500 {
                    let claims = format!(r#"{{"access_token":{{"nbf":{{"essential":true,"value":"{connection}-{lane}-{n}"}}}}}}"#);
                    let request = v1::GetTokenRequest {
                        identity: "identities/billing".into(),
                        scopes: vec![VAULT.into()],
                        claims,
                        min_validity: None,
                        resources: vec![],
                    };
                    match client.get_token(request).await {
                        Ok(_) => {}
                        // On a busy machine the flood waits for itself.
                        Err(status) if status.code() == Code::DeadlineExceeded => {}
                        Err(status) => {
                            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                            // Its own limit; and the authority's budget, for which what is within the limit waits.
                            assert!(matches!(reason(&status).as_str(), "CALLER_OVER_LIMIT" | "OVERLOADED"), "{status}");
                            let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
                            assert!(delay.is_some_and(|d| !d.is_zero()), "{status}");
                            refused += 1;
                        }
                    }
                }
                refused
            }));
        }
    }
    let mut refused = 0;
    for flood in floods {
        refused += flood.await.unwrap();
    }
    stop.store(true, Relaxed);
    assert!(refused > 40_000, "{refused} of 50,000 refused");
    assert!(neighbour.await.unwrap().unwrap() > 0);
}
