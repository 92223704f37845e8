//! State as a file that people write.

use std::fs;

use serde_json::json;

use crate::support::{VAULT, World};

#[tokio::test(flavor = "multi_thread")]
async fn what_people_write_is_applied_once_and_then_there_is_nothing_to_change() {
    let world = World::start().await;
    let broker = &world.broker;
    let file = world.folder().join("state.toml");
    let path = file.to_str().unwrap().to_owned();
    let apply = |text: &str, more: &[&str]| {
        fs::write(&file, text).unwrap();
        let output = broker.jeton(&[&["apply", "-f", &path], more].concat());
        let shown = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&shown).into_owned())
    };
    let file_at = |authority: &str| {
        format!(
            r#"
            [[workloads]]
            name = "checkout"
            principals = ["unix://other/uid/2", "unix://other/uid/1"]
            system_identity_authority = "{authority}"
            [[identities]]
            name = "written"
            authority = "entra"
            [[role_assignments]]
            name = "q2"
            member = "workloads/checkout"
            identity = "written"
            targets = ["{VAULT}", "resource:https://orders.example"]
            expires = "2099-01-31T02:00:00+02:00"
            "#
        )
    };
    let (code, shown) = apply(&file_at("entra"), &[]);
    assert!(code == Some(0) && shown.contains("+ roleAssignments/q2"), "{shown}");
    assert_eq!(apply(&file_at("entra"), &[]), (Some(0), "nothing to change\n".into()));
    let moved = apply(&file_at("oidc"), &[]);
    assert_eq!(
        moved,
        (
            Some(0),
            "- system identity of workloads/checkout\n+ system identity of workloads/checkout at authorities/oidc\ndone\n"
                .into()
        )
    );
    let without = "[[workloads]]\nname = \"checkout\"\nprincipals = [\"unix://other/uid/1\"]\n";
    let (_, shown) = apply(without, &[]);
    let change = "~ workloads/checkout: principals [\"unix://other/uid/1\",\"unix://other/uid/2\"] -> [\"unix://other/uid/1\"]\n";
    assert_eq!(shown, format!("{change}done\n"), "a system-assigned identity stays unless it is pruned");
    let (code, shown) = apply("[[identities]]\nname = \"lost\"\nauthority = \"nowhere\"\n", &["--dry-run"]);
    assert!(code == Some(2) && shown.contains("neither there nor in the file"), "{shown}");
    let (code, shown) = apply("[[nonsense]]\n", &[]);
    assert!(code == Some(2) && shown.contains("is not a state file"), "{shown}");
    // A step that fails is named: nothing listens on the discard port.
    let unreachable = "[[authorities]]\nname = \"new\"\nkind = \"oidc\"\nurl = \"https://localhost:9\"\n";
    let (_, shown) = apply(unreachable, &[]);
    assert!(shown.contains("error: + authorities/new: failed") && shown.contains("localhost:9"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_could_be_a_scope_or_a_resource_is_not_guessed() {
    let world = World::start().await;
    let broker = &world.broker;
    broker.json(&["identity", "create", "shop", "--authority", "oidc"]);
    let assign = |target: &str| {
        broker.jeton(&[
            "access",
            "assign",
            "--member",
            "workloads/demo",
            "--identity",
            "shop",
            "--target",
            target,
        ])
    };
    let refused = assign("https://orders.example");
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("say scope:https://orders.example or resource:")
    );
    assert!(assign("resource:https://orders.example").status.success());
    broker.json(&["token", "get", "--identity", "shop", "--resource", "https://orders.example"]);
    let explained = |target: &str| {
        let who =
            ["access", "explain", "--principal", "loopback://dev", "--identity", "shop", "--target", target];
        broker.json(&who)["allowed"].clone()
    };
    assert_eq!(explained("resource:https://orders.example"), json!(true));
    assert_eq!(explained("scope:https://orders.example"), json!(false));
}
