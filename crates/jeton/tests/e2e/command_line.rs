//! The command line as people and scripts use it.

use std::fs;

use serde_json::Value;

use crate::support::{VAULT, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_one_flat_object_and_opens_the_vault_for_those_who_have_the_role() {
    let world = World::start().await;
    let get = |identity: &str, scope: &str| {
        world.broker.json(&["token", "get", "--identity", identity, "--scope", scope])
    };
    let billing = get("identities/billing", VAULT);
    let mut members: Vec<_> = billing.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(
        members,
        [
            "access_token",
            "client_id",
            "expires_at",
            "identity",
            "issued_at",
            "refresh_at",
            "scopes",
            "state",
            "token_type"
        ]
    );
    assert_eq!(billing["scopes"], serde_json::json!([VAULT]));
    assert_eq!(world.sandbox.vault(billing["access_token"].as_str()).await, 200);
    assert_eq!(world.sandbox.vault(get("identities/reports", VAULT)["access_token"].as_str()).await, 403);
    assert_eq!(world.sandbox.vault(None).await, 401);
    let by_its_name = format!("{}/.default", world.sandbox.text("/vault/named_resource"));
    let named = get("identities/billing", &by_its_name);
    assert_eq!(named["access_token"], billing["access_token"], "another spelling of the same resource");
    let own = world.broker.json(&["token", "get", "--scope", VAULT]);
    assert_eq!(own["identity"], "identities/demo-system");
    assert_eq!(
        get("identities/orders", "orders.read")["client_id"].as_str().unwrap(),
        world.broker.client_id("identities/orders")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_an_exit_code_that_says_what_kind_of_failure_it_was() {
    let world = World::start().await;
    let code = |arguments: &[&str]| world.broker.jeton(arguments).status.code().unwrap();
    assert_eq!(code(&["status"]), 0);
    assert_eq!(code(&["identity", "get", "nobody"]), 5);
    assert_eq!(code(&["identity", "create", "billing", "--authority", "entra"]), 6);
    assert_eq!(code(&["identity", "create", "No Name", "--authority", "entra"]), 2);
    assert_eq!(code(&["token", "get", "--identity", "nobody", "--scope", VAULT]), 4);
    assert_eq!(code(&["token", "get", "--identity", "billing", "--scope", "bare"]), 2);
    world.broker.process.pause(true);
    let silent = world.broker.jeton(&["status"]);
    world.broker.process.pause(false);
    assert_eq!(silent.status.code(), Some(2), "a broker that says nothing is down");
    let nowhere = |command: &[&str]| {
        let mut jeton = std::process::Command::new(crate::support::JETON);
        jeton.args(command).args(["--data-dir", "/nonexistent"]).output().unwrap()
    };
    let list = nowhere(&["identity", "list"]);
    assert_eq!(list.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&list.stderr).contains("jeton dev"), "it says how to start one");
    let status = nowhere(&["status"]);
    assert_eq!(status.status.code(), Some(2), "down");
    assert!(String::from_utf8_lossy(&status.stdout).starts_with("down: no broker is running"));
    let json: serde_json::Value = serde_json::from_slice(&nowhere(&["status", "-o", "json"]).stdout).unwrap();
    assert_eq!((&json["healthy"], &json["down"]), (&false.into(), &true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_exported_is_applied_without_a_change_and_what_is_missing_is_made() {
    let world = World::start().await;
    let broker = &world.broker;
    let exported = broker.jeton(&["export"]);
    assert!(exported.status.success());
    let file = world.folder().join("state.toml");
    fs::write(&file, &exported.stdout).unwrap();
    let path = file.to_str().unwrap();
    let output = |arguments: &[&str]| String::from_utf8(broker.jeton(arguments).stdout).unwrap();
    assert_eq!(output(&["apply", "-f", path, "--prune"]), "nothing to change\n");
    let more = r#"
[[identities]]
name = "identities/applied"
authority = "authorities/entra"

[[role_assignments]]
name = "roleAssignments/applied"
member = "workloads/demo"
role = "token-user"
identity = "identities/applied"
targets = ["resource:https://vault.example"]
"#;
    fs::write(&file, [exported.stdout.as_slice(), more.as_bytes()].concat()).unwrap();
    let planned = "+ identities/applied at authorities/entra\n+ roleAssignments/applied: workloads/demo may use identities/applied for resource:https://vault.example\n";
    assert_eq!(output(&["apply", "-f", path, "--dry-run"]), planned);
    assert_eq!(output(&["apply", "-f", path]), format!("{planned}done\n"));
    assert_eq!(output(&["apply", "-f", path]), "nothing to change\n");
    broker.json(&["token", "get", "--identity", "applied", "--scope", VAULT]);
    fs::write(&file, &exported.stdout).unwrap();
    assert_eq!(
        output(&["apply", "-f", path, "--prune"]),
        "- roleAssignments/applied\n- identities/applied\ndone\n"
    );
    assert_eq!(broker.jeton(&["identity", "get", "applied"]).status.code(), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_a_batch_and_a_report_work_from_the_command_line() {
    let world = World::start().await;
    let broker = &world.broker;
    let watched =
        broker.jeton(&["token", "watch", "--identity", "billing", "--scope", VAULT, "--count", "1"]);
    let line: Value = serde_json::from_slice(&watched.stdout).unwrap();
    assert_eq!(line["identity"], "identities/billing");
    let file = world.folder().join("token");
    fs::write(&file, line["access_token"].as_str().unwrap()).unwrap();
    let report = [
        "token",
        "report-rejected",
        "--identity",
        "billing",
        "--scope",
        VAULT,
        "--token-file",
        file.to_str().unwrap(),
    ];
    assert_eq!(broker.json(&report)["outcome"], "REFRESHING");
    let batch = world.folder().join("batch.json");
    fs::write(
        &batch,
        format!(
            r#"[{{"identity":"billing","scopes":["{VAULT}"]}},{{"identity":"nobody","scopes":["{VAULT}"]}}]"#
        ),
    )
    .unwrap();
    let answers = broker.json(&["token", "batch", "-f", batch.to_str().unwrap()]);
    assert_eq!(
        (answers[0]["identity"].as_str(), answers[1]["reason"].as_str()),
        (Some("identities/billing"), Some("ACCESS_DENIED"))
    );
    let listed = broker.jeton(&["token", "list"]);
    assert!(!String::from_utf8_lossy(&listed.stdout).contains("eyJ"), "a list never shows a token");
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_and_authorities_are_managed_by_command() {
    let world = World::start().await;
    let broker = &world.broker;
    broker.json(&[
        "workload",
        "create",
        "checkout",
        "--principal",
        "unix://other/uid/4242",
        "--label",
        "team=shop",
    ]);
    let enabled = broker.json(&["workload", "enable-system-identity", "checkout", "--authority", "entra"]);
    assert_eq!(enabled["system_identity"], "identities/checkout-system");
    let second = broker.jeton(&["workload", "create", "twin", "--principal", "unix://other/uid/4242"]);
    assert_eq!(
        second.status.code(),
        Some(6),
        "a principal belongs to one workload: {}",
        String::from_utf8_lossy(&second.stderr)
    );
    let own = broker.jeton(&["identity", "delete", "checkout-system"]);
    assert_eq!(own.status.code(), Some(6), "it goes with its workload");
    assert!(broker.jeton(&["workload", "delete", "checkout"]).status.success());
    for authority in ["entra", "oidc"] {
        assert!(broker.jeton(&["authority", "test", authority]).status.success());
        assert_eq!(
            broker.jeton(&["authority", "delete", authority]).status.code(),
            Some(6),
            "identities live there"
        );
    }
    let url = world.sandbox.text("/oidc/issuer").to_owned();
    let token = world.folder().join("initial-access-token");
    fs::write(&token, "not-the-token").unwrap();
    let replace = ["authority", "update", "oidc", "--initial-access-token-file", token.to_str().unwrap()];
    broker.json(&replace);
    assert_eq!(broker.jeton(&["identity", "create", "late", "--authority", "oidc"]).status.code(), Some(1));
    fs::write(&token, world.sandbox.text("/initial_access_token")).unwrap();
    broker.json(&replace);
    assert_eq!(
        broker.json(&["identity", "enable", "late"])["state"],
        "ACTIVE",
        "with the right one it is made"
    );
    let ca_file = world.sandbox.text("/ca_file").to_owned();
    let made = broker.json(&[
        "authority",
        "create",
        "attach-only",
        "--kind",
        "oidc",
        "--url",
        &url,
        "--ca-file",
        &ca_file,
    ]);
    assert_eq!(made["registrar"], "NONE");
    assert!(broker.jeton(&["authority", "delete", "attach-only"]).status.success());
}
