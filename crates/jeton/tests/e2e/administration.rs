//! Roles on the admin plane, with the real binary: what a refusal says, and that the commands that it prints are the right ones.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use jeton_proto::v1::{self, watch_tokens_request::Action, watch_tokens_response::Event};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{Broker, JETON, Process, VAULT, World, request, token};

/// A local user that is nobody else.
pub(crate) const UID: u32 = 47_114;

/// Another local user, who can reach the admin socket and nothing else of the broker.
pub(crate) struct Other {
    folder: TempDir,
    binary: PathBuf,
}

impl Other {
    /// None where tests do not run as root: then nobody can become another user, and the tests in the binary show the same without
    /// sockets.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let binary = folder.path().join("jeton");
        fs::hard_link(JETON, &binary).or_else(|_| fs::copy(JETON, &binary).map(drop)).unwrap();
        Some(Self { folder, binary })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    fn jeton(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// One that goes on.
    pub(crate) fn process(&self, arguments: &[&str], log: &Path) -> Process {
        Process::of(&mut self.command(arguments), log)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--admin-socket").arg(self.socket()).current_dir("/");
        command.uid(UID).gid(UID);
        command
    }

    /// What a command is refused with; its correlation id.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.jeton(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{arguments:?}: {error}");
        assert!(error.contains("[NOT_PERMITTED]"), "{error}");
        error.split("--correlation ").nth(1).unwrap().split(['`', ' ']).next().unwrap().to_owned()
    }

    fn done(&self, arguments: &[&str]) {
        let output = self.jeton(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Runs the commands of an explanation, as a shell does.
fn follow(broker: &Broker, explained: &Value) {
    let remedy = explained["remedy"].as_str().unwrap();
    assert!(!remedy.is_empty(), "{explained}");
    let path = format!("{}:{}", Path::new(JETON).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", remedy]).env("PATH", path).env("JETON_DATA_DIR", &broker.data_dir);
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{remedy}: {}", String::from_utf8_lossy(&output.stderr));
}

fn explained(broker: &Broker, correlation_id: &str) -> Value {
    broker.json(&["access", "explain", "--correlation", correlation_id])
}

#[tokio::test(flavor = "multi_thread")]
async fn another_local_user_does_what_its_roles_say_and_the_printed_command_is_what_was_missing() {
    let Some(other) = Other::new() else { return };
    let socket = format!("admin.socket={}", other.socket().display());
    let world = World::with(&["--set", &socket, "--set", "admin.socket_mode=0666"], json!({})).await;
    let broker = &world.broker;
    let id = other.refused(&["identity", "list"]);
    let why = explained(broker, &id);
    assert_eq!(why["method"], "IdentityService/ListIdentities");
    let principal = why["principal"].as_str().unwrap().to_owned();
    assert!(principal.ends_with(&format!("/uid/{UID}")), "{principal}");
    follow(broker, &why);
    other.done(&["identity", "list"]);
    assert!(explained(broker, &id)["reason"].as_str().unwrap().contains("meanwhile"));
    for (arguments, near) in [
        (
            &["identity", "disable", "reports"][..],
            "gives the role reader, which does not have identities.change",
        ),
        (&["access", "list"], "gives the role reader, which does not have assignments.read"),
        (
            &["workload", "create", "payments.api"],
            "gives the role reader, which does not have workloads.change",
        ),
    ] {
        let why = explained(broker, &other.refused(arguments));
        let problems = why["near_misses"].to_string();
        assert!(problems.contains(near), "{problems}");
        follow(broker, &why);
        other.done(arguments);
    }
    // What was given is no more than that.
    other.refused(&["identity", "disable", "billing"]);
    other.refused(&["authority", "delete", "entra"]);
    other.refused(&["access", "assign", "--member", &principal, "--identity", "payments.*", "--target", "*"]);
    // An operator uses no tokens, and is told so.
    let asked = ["access", "explain", "--principal", &principal, "--identity", "reports", "--target", VAULT];
    let dry = broker.json(&asked);
    assert_eq!(dry["allowed"], false);
    let near = dry["near_misses"].to_string();
    assert!(near.contains("gives the role identity-operator, which uses no tokens"), "{near}");
    // What is taken back stops the next call.
    let all = broker.json(&["access", "list", "--member", &principal, "--role", "identity-operator"]);
    let name = all[0]["name"].as_str().unwrap();
    assert!(broker.jeton(&["access", "remove", name]).status.success());
    other.refused(&["identity", "enable", "reports"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_an_explanation_make_the_request_allowed() {
    let world = World::start().await;
    let broker = &world.broker;
    let assign = |identity: &str, more: &[&str]| {
        let base = ["access", "assign", "--member", "workloads/demo", "--identity", identity];
        broker.json(&[&base, more].concat());
    };
    for name in ["plain", "targets", "disabled", "other", "another", "role"] {
        broker.json(&["identity", "create", name, "--authority", "entra"]);
    }
    assign("targets", &["--target", "https://orders.example/.default"]);
    assign("another", &["--target", VAULT]);
    assign("role", &["--role", "reader"]);
    broker.json(&["identity", "disable", "disabled"]);
    let mut client = broker.tokens().await;
    for (name, near) in [
        ("plain", ""),
        ("targets", "is for resource:https://orders.example"),
        ("disabled", ""),
        ("other", "is on identities/another"),
        ("role", "gives the role reader, which uses no tokens"),
    ] {
        let identity = format!("identities/{name}");
        let refused = token(&mut client, &identity, VAULT).await.unwrap_err();
        let id = refused.get_details_error_info().unwrap().metadata["correlation_id"].clone();
        let why = explained(broker, &id);
        assert_eq!(why["allowed"], false, "{why}");
        let misses = why["near_misses"].to_string();
        assert!(misses.contains(near), "{name}: {why}");
        follow(broker, &why);
        token(&mut client, &identity, VAULT).await.unwrap_or_else(|status| panic!("{name}: {status:?}"));
        assert_eq!(explained(broker, &id)["allowed"], true, "{name}");
    }
}

/// Watches one token until the stream ends; the reasons of the failures, and the code of the end.
async fn watched(broker: &Broker, identity: &str, scope: &str, then: impl FnOnce()) -> (Vec<String>, Code) {
    let add = v1::WatchTokensAdd { id: "a".into(), request: Some(request(identity, scope)) };
    let (tell, told) = tokio::sync::mpsc::channel(1);
    tell.send(v1::WatchTokensRequest { action: Some(Action::Add(add)) }).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(told);
    let mut events = broker.tokens().await.watch_tokens(stream).await.unwrap().into_inner();
    let first = events.message().await.unwrap().unwrap();
    assert!(matches!(first.event, Some(Event::Token(_))), "{first:?}");
    then();
    let mut reasons = vec![];
    loop {
        match events.message().await {
            Ok(Some(event)) => {
                if let Some(Event::Failure(failure)) = event.event {
                    reasons.push(failure.reason);
                }
            }
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => return (reasons, status.code()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_watch_ends_when_its_assignment_expires_and_when_only_shorter_tokens_are_left_to_it() {
    let world = World::start().await;
    let broker = &world.broker;
    let assign = |id: &str, identity: &str, more: &[&str]| {
        let base = ["access", "assign", "--id", id, "--member", "workloads/demo", "--identity", identity];
        broker.json(&[&base[..], &["--target", VAULT], more].concat());
    };
    broker.json(&["identity", "create", "brief", "--authority", "entra"]);
    assign("wide", "brief", &[]);
    assign("narrow", "brief", &["--max-token-lifetime", "60"]);
    let mut client = broker.tokens().await;
    token(&mut client, "identities/brief", VAULT).await.unwrap();
    let remove = || assert!(broker.jeton(&["access", "remove", "wide"]).status.success());
    let (reasons, code) = watched(broker, "identities/brief", VAULT, remove).await;
    assert_eq!((reasons, code), (vec!["FAILED_PRECONDITION".to_owned()], Code::FailedPrecondition));
    let refused = token(&mut client, "identities/brief", VAULT).await.unwrap_err();
    assert!(refused.message().contains("allows 60 s at most"), "{refused:?}");
    let end = std::time::SystemTime::now() + std::time::Duration::from_secs(6);
    let end = prost_types::Timestamp::from(end).to_string();
    assign("ending", "brief", &["--expires", &end]);
    let (reasons, code) = watched(broker, "identities/brief", VAULT, || ()).await;
    assert_eq!((reasons, code), (vec!["FAILED_PRECONDITION".to_owned()], Code::FailedPrecondition));
    assert!(broker.jeton(&["access", "remove", "narrow"]).status.success());
    let end = std::time::SystemTime::now() + std::time::Duration::from_secs(6);
    let end = prost_types::Timestamp::from(end).to_string();
    assign("alone", "brief", &["--expires", &end]);
    let (reasons, code) = watched(broker, "identities/brief", VAULT, || ()).await;
    assert_eq!((reasons, code), (vec!["ACCESS_DENIED".to_owned()], Code::PermissionDenied));
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_expiries_lifetimes_and_patterns_are_exported_applied_again_and_wrong_ones_are_told() {
    let world = World::start().await;
    let broker = &world.broker;
    let file = world.folder().join("roles.toml");
    let path = file.to_str().unwrap().to_owned();
    let apply = |text: &str| {
        fs::write(&file, text).unwrap();
        let output = broker.jeton(&["apply", "-f", &path]);
        let shown = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&shown).into_owned())
    };
    let wanted = r#"
        [[role_assignments]]
        name = "operators"
        member = "unix://other/uid/"
        role = "identity-operator"
        identity = "payments.*"
        expires = "2099-01-31T00:00:00Z"
        [[role_assignments]]
        name = "auditors"
        member = "spiffe://prod/audit/"
        role = "auditor"
        identity = "*"
        [[role_assignments]]
        name = "short"
        member = "spiffe://prod/pay/"
        identity = "payments.*"
        targets = ["scope:a"]
        max_token_lifetime_seconds = 600
        "#;
    let (code, shown) = apply(wanted);
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(apply(wanted).1, "nothing to change\n");
    let exported = broker.jeton(&["export"]).stdout;
    let exported = String::from_utf8(exported).unwrap();
    for part in [
        "\"identity-operator\"",
        "\"spiffe://prod/audit/\"",
        "identity = \"*\"",
        "2099-01-31T00:00:00Z",
        "= 600",
    ] {
        assert!(exported.contains(part), "{part} in {exported}");
    }
    assert_eq!(apply(&exported).1, "nothing to change\n");
    let (code, shown) = apply(
        r#"
        [[role_assignments]]
        name = "wrong-1"
        member = "unix://other/uid/*"
        role = "owner"
        identity = "identities/*"
        [[role_assignments]]
        name = "wrong-2"
        member = "unix://other/uid/1"
        role = "reader"
        identity = "*"
        targets = ["*"]
        expires = "2001-01-01T00:00:00Z"
        [[role_assignments]]
        name = "wrong-3"
        member = "unix://other/uid/1"
        identity = "*"
        targets = ["*"]
        max_token_lifetime_seconds = 0
        "#,
    );
    assert_eq!(code, Some(2), "{shown}");
    for part in [
        "\"owner\" is no role; the roles are token-user, identity-operator",
        "ends at a '/'",
        "everything is '*' alone",
        "are for token-user alone",
        "lies in the past",
        "'*' is for roles of the admin plane",
        "must be at least 1",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let bad = broker.jeton(&["access", "assign", "--member", "a", "--identity", "*", "--role", "owner"]);
    let error = String::from_utf8_lossy(&bad.stderr);
    assert!(bad.status.code() == Some(2) && error.contains("access-administrator"), "{error}");
}
