//! The audit log of a running broker: what is on it, what it stops, and how it is read.

use std::{
    fs,
    path::PathBuf,
    process::Output,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    metrics::got,
    support::{Broker, VAULT, World, reason, token, until},
};

/// The records that fit.
fn records(broker: &Broker, filter: &[&str]) -> Vec<Value> {
    let list = [&["audit", "list", "--limit", "100000"], filter].concat();
    broker.json(&list).as_array().unwrap().clone()
}

fn methods(records: &[Value]) -> Vec<(String, String)> {
    let text = |record: &Value, name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let method = |r| text(r, "method").rsplit('/').next().unwrap_or_default().to_owned();
    records.iter().map(|r| (method(r), text(r, "outcome"))).collect()
}

fn segments(broker: &Broker) -> Vec<PathBuf> {
    let all = fs::read_dir(broker.data_dir.join("audit")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = all.filter(|path| path.extension().is_some_and(|e| e == "jsonl")).collect();
    found.sort();
    found
}

fn verdict(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_made_served_and_refused_is_on_the_log_and_the_log_is_whole() {
    let mut world = World::start().await;
    let broker = &world.broker;
    let made = broker.json(&["identity", "create", "payroll", "--authority", "entra"]);
    let exists = broker.jeton(&["identity", "create", "payroll", "--authority", "entra"]);
    assert_eq!(exists.status.code(), Some(6));
    let assign =
        ["access", "assign", "--member", "workloads/demo", "--identity", "payroll", "--target", VAULT];
    broker.json(&assign);
    let mut client = broker.tokens().await;
    let mut issued = None;
    for _ in 0..25 {
        issued = Some(token(&mut client, "identities/payroll", VAULT).await.unwrap().access_token);
    }
    let refused = token(&mut client, "identities/nobody", VAULT).await.unwrap_err();
    assert_eq!(reason(&refused), "ACCESS_DENIED");

    let changes = records(broker, &["--kind", "admin.change", "--identity", "payroll"]);
    let of = |method: &str, outcome: &str| (method.to_owned(), outcome.to_owned());
    let all = [
        of("CreateIdentity", "intent"),
        of("CreateIdentity", "ok"),
        of("CreateIdentity", "intent"),
        of("CreateIdentity", "failed"),
        of("CreateRoleAssignment", "intent"),
        of("CreateRoleAssignment", "ok"),
    ];
    assert_eq!(methods(&changes), all, "{changes:#?}");
    assert_eq!(changes[3]["reason"], "ALREADY_EXISTS");
    assert_eq!(changes[1]["resources"][0]["uid"], made["uid"]);
    assert!(changes[0]["principal"].as_str().unwrap().starts_with("unix://"));
    let steps =
        methods(&records(broker, &["--kind", "key.step", "--identity", made["uid"].as_str().unwrap()]));
    for step in ["key_made", "registered", "switched"] {
        assert!(
            steps.contains(&of(step, "intent")) && steps.contains(&of(step, "ok")),
            "{step} in {steps:?}"
        );
    }
    until("the uses are written", || {
        let served = records(broker, &["--kind", "token.served", "--identity", "payroll"]);
        served.iter().filter_map(|record| record["count"].as_u64()).sum::<u64>() == 25
    });
    let served = records(broker, &["--kind", "token.served", "--identity", "payroll"]);
    assert!(served.len() < 25 && served[0]["principal"] == "loopback://dev", "{served:#?}");
    assert_eq!(served[0]["workload"]["name"], "workloads/demo");
    assert_eq!(served[0]["token"].as_str().unwrap().len(), 8);
    until("the denial is written", || {
        let denied = records(broker, &["--kind", "access.denied", "--principal", "loopback://dev"]);
        denied.iter().any(|record| {
            let id = record["correlation_id"].as_str().unwrap_or_default();
            record["resources"][0]["name"] == "identities/nobody" && refused.message().contains(id)
        })
    });
    assert!(!records(broker, &["--kind", "assertion.sent", "--outcome", "ok"]).is_empty());
    assert!(records(broker, &["--since", "1h"]).len() > 10 && records(broker, &["--since", "0s"]).is_empty());

    let running = verdict(&broker.jeton(&["audit", "verify"]));
    assert!(running.0 == Some(0) && running.1.starts_with("whole: "), "{running:?}");
    let tail = broker.jeton(&["audit", "tail", "-n", "3", "--no-follow"]);
    assert_eq!(String::from_utf8_lossy(&tail.stdout).lines().count(), 3);
    assert!(world.broker.process.stop().success());
    let stopped = world.broker.json(&["audit", "verify"]);
    assert!(stopped["intact"] == true && stopped["signed"] == stopped["last"], "{stopped}");
    let written: String =
        segments(&world.broker).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    assert!(!written.contains(&issued.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_the_place_that_somebody_changed_with_the_key_that_was_kept_elsewhere() {
    let mut world = World::start().await;
    let key = world.folder().join("key.pem");
    fs::write(&key, world.broker.jeton(&["audit", "key"]).stdout).unwrap();
    assert!(world.broker.process.stop().success());
    let path = segments(&world.broker).pop().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().position(|line| line.contains("identities/billing")).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines[line] = lines[line].replace("identities/billing", "identities/biliing");
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    let (key, place) = (key.to_str().unwrap().to_owned(), format!("{}:{}", path.display(), line + 1));
    let (code, said) = verdict(&world.broker.jeton(&["audit", "verify", "--key", &key]));
    assert!(code == Some(1) && said.contains(&place), "{place} in {said}");
    fs::write(&path, text.lines().take(line).collect::<Vec<_>>().join("\n") + "\n").unwrap();
    let (code, said) = verdict(&world.broker.jeton(&["audit", "verify", "--key", &key]));
    assert!(code == Some(1) && said.contains("truncated"), "{said}");
    // Somebody cuts the log off, and a broker goes on with it: it says so, then and later.
    world.restart(&[]);
    let (code, said) = verdict(&world.broker.jeton(&["status"]));
    assert!(code == Some(1) && said.contains("audit log") && said.contains("cut off"), "{said}");
    let (code, said) = verdict(&world.broker.jeton(&["audit", "verify"]));
    assert!(code == Some(1) && said.contains("cut off"), "{said}");
    let other = world.broker.jeton(&["audit", "verify", "--key", path.to_str().unwrap()]);
    assert_eq!(other.status.code(), Some(2), "what is no key is wrong use");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_refuses_changes_and_serves_tokens_and_comes_back_by_itself() {
    let world = World::with(&["--set", "audit.head_interval_seconds=1"], json!({})).await;
    let broker = &world.broker;
    let mut client = broker.tokens().await;
    token(&mut client, "identities/billing", VAULT).await.unwrap();
    let before = records(broker, &["--kind", "key.step"]).len();
    broker.process.may_write(false);
    for change in [&["identity", "rotate", "billing"][..], &["workload", "create", "late"]] {
        let refused = broker.jeton(change);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(7) && said.contains("AUDIT_UNAVAILABLE"), "{said}");
        assert!(said.contains("make room"), "{said}");
        token(&mut client, "identities/billing", VAULT).await.unwrap();
    }
    // As long as it lasts, whether somebody asks for a change or not.
    for _ in 0..3 {
        assert!(verdict(&broker.jeton(&["status"])).1.contains("the audit log cannot be written"));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(records(broker, &["--kind", "key.step"]).len(), before, "no key was touched");
    broker.process.may_write(true);
    // Nobody asks for a change meanwhile.
    until("the log is written again", || {
        !verdict(&broker.jeton(&["status"])).1.contains("the audit log cannot be written")
    });
    assert_eq!(broker.json(&["workload", "create", "late"])["name"], "workloads/late");
    let whole = verdict(&broker.jeton(&["audit", "verify"]));
    assert_eq!(whole.0, Some(0), "{}", whole.1);
    until("what was served meanwhile is on it", || {
        let served = records(broker, &["--kind", "token.served", "--identity", "billing"]);
        served.iter().filter_map(|record| record["count"].as_u64()).sum::<u64>() >= 3
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_may_be_lost_a_full_log_hands_out_no_token_until_there_is_room() {
    let arguments = ["--set", "audit.on_full=refuse", "--set", "audit.max_queued=16"];
    let world = World::with(&arguments, json!({})).await;
    let mut client = world.broker.tokens().await;
    token(&mut client, "identities/billing", VAULT).await.unwrap();
    world.broker.process.may_write(false);
    // Each denial is one more that waits.
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < Duration::from_secs(60), "it never gets full");
        let _ = token(&mut client, "identities/nobody", VAULT).await.unwrap_err();
        let asked = token(&mut client, "identities/billing", VAULT).await;
        if asked.is_err_and(|refused| reason(&refused) == "AUDIT_UNAVAILABLE") {
            break;
        }
    }
    let metrics = world.broker.endpoints["metrics"].as_str().unwrap();
    let (status, _, body) = got(metrics, "/readyz").await;
    assert!(status == 503 && body.contains("audit log"), "who can hand out nothing is not ready: {body}");
    world.broker.process.may_write(true);
    while token(&mut client, "identities/billing", VAULT).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(120), "it never gets empty");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(got(metrics, "/readyz").await.0, 200);
    let report = world.broker.json(&["audit", "verify"]);
    assert!(report["intact"] == true && report["lost"] == 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_was_used_lately_is_not_deleted_by_mistake_and_a_restart_forgets_no_use() {
    let mut world = World::start().await;
    let mut client = world.broker.tokens().await;
    token(&mut client, "identities/billing", VAULT).await.unwrap();
    let uses = |broker: &Broker| broker.json(&["identity", "get", "billing"])["uses"].clone();
    let first = uses(&world.broker);
    assert_eq!(first[0]["principal"], "loopback://dev");
    assert_eq!(first[0]["target"], "resource:https://vault.example");
    assert!(world.broker.process.stop().success());
    world.restart(&[]);
    assert_eq!(uses(&world.broker), first);
    token(&mut world.broker.tokens().await, "identities/billing", VAULT).await.unwrap();
    let later = uses(&world.broker);
    assert_eq!(later[0]["first_use_time"], first[0]["first_use_time"]);
    assert_ne!(later[0]["last_use_time"], first[0]["last_use_time"]);

    let kept = world.broker.jeton(&["identity", "delete", "billing"]);
    let said = String::from_utf8_lossy(&kept.stderr).into_owned();
    assert!(
        kept.status.code() == Some(6) && said.contains("loopback://dev") && said.contains("--yes"),
        "{said}"
    );
    assert_eq!(world.broker.json(&["identity", "get", "billing"])["state"], "ACTIVE");
    // Nobody ever used this one.
    assert!(world.broker.jeton(&["identity", "delete", "reports"]).status.success());
    assert!(world.broker.jeton(&["identity", "delete", "billing", "--yes"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_over_its_bound_loses_its_oldest_segment_and_stays_whole() {
    let arguments = [
        "--set",
        "audit.max_segment_bytes=65536",
        "--set",
        "audit.max_segments=2",
        "--set",
        "audit.batch_ms=10",
    ];
    let world = World::with(&arguments, json!({})).await;
    let mut client = world.broker.tokens().await;
    let start = Instant::now();
    // Some hundred bytes each.
    while !segments(&world.broker).iter().all(|path| !path.ends_with("00000000000000000001.jsonl")) {
        assert!(start.elapsed() < Duration::from_secs(120), "{:?}", segments(&world.broker));
        for name in ["a", "b"] {
            token(&mut client, &format!("identities/{name}"), VAULT).await.unwrap_err();
        }
        world.broker.json(&["workload", "create", &format!("w{}", start.elapsed().as_nanos())]);
    }
    let report = world.broker.json(&["audit", "verify"]);
    assert!(report["intact"] == true && report["first"].as_u64() > Some(1), "{report}");
    assert!(segments(&world.broker).len() <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_removed_stops_changes_and_stays_visible_after_a_restart() {
    let mut world = World::start().await;
    let folder = world.broker.data_dir.join("audit");
    fs::remove_dir_all(&folder).unwrap();
    let refused = world.broker.jeton(&["workload", "create", "late"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(7) && said.contains("AUDIT_UNAVAILABLE"), "{said}");
    for _ in 0..2 {
        world.broker.process.stop();
        world.restart(&[]);
        let (code, said) = verdict(&world.broker.jeton(&["status"]));
        assert!(code == Some(1) && said.contains("audit log"), "{said}");
        assert!(said.contains("keep a copy") && !said.contains("make room"), "{said}");
        let (code, said) = verdict(&world.broker.jeton(&["audit", "verify"]));
        assert!(code == Some(1) && said.contains("it was removed"), "{said}");
    }
}
