//! Another sealing key takes over.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{Broker, JETON, Process, VAULT, World, token};

fn key(path: &Path, bytes: [u8; 32]) -> [u8; 32] {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    bytes
}

fn everything_in(folder: &Path, but: &[&Path]) -> Vec<u8> {
    let mut all = vec![];
    for entry in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        if entry.is_dir() {
            all.extend(everything_in(&entry, but));
        } else if entry.is_file() && !but.contains(&entry.as_path()) {
            all.extend(fs::read(&entry).unwrap());
        }
    }
    all
}

/// As bytes, or as somebody may write them.
fn is_in(all: &[u8], secret: &[u8; 32]) -> bool {
    let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
    let list = format!("{secret:?}");
    let forms = [secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes(), list.into_bytes()];
    let base64 = STANDARD.encode(&secret[..30]).into_bytes();
    forms.iter().chain([&base64]).any(|form| all.windows(form.len()).any(|part| part == form))
}

fn rotate(data_dir: &Path, arguments: &[&str]) -> Output {
    let data_dir = data_dir.to_str().unwrap();
    Command::new(JETON).args(["seal", "rotate", "--data-dir", data_dir]).args(arguments).output().unwrap()
}

fn error(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_under_load_loses_nothing_and_the_old_key_alone_opens_nothing_afterwards() {
    let mut world = World::start().await;
    let old_file = world.broker.data_dir.join("sealing.key");
    let old: [u8; 32] = fs::read(&old_file).unwrap().try_into().unwrap();
    let new_file = world.folder().join("new.key");
    let new = key(&new_file, std::array::from_fn(|n| 200 - u8::try_from(n).unwrap() * 3));
    let kept = token(&mut world.broker.tokens().await, "identities/billing", VAULT).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let mut caller = world.broker.tokens().await;
    let calling = {
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            let mut calls = 0_u32;
            while !done.load(Relaxed) || calls < 100 {
                token(&mut caller, "identities/billing", VAULT).await.unwrap();
                calls += 1;
            }
        })
    };
    let broker = &world.broker;
    let (rotated, created) = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let create = ["identity", "create", "meanwhile", "--authority", "authorities/entra"];
            let creating = scope.spawn(move || broker.json(&create));
            let rotated = broker.json(&["seal", "rotate", "--new-key-file", new_file.to_str().unwrap()]);
            (rotated, creating.join().unwrap())
        })
    });
    done.store(true, Relaxed);
    calling.await.unwrap();
    assert_eq!(created["state"], "ACTIVE", "{created}");
    assert_eq!((&rotated["left"], &rotated["unreadable"]), (&json!(0), &json!([])), "{rotated}");
    let (new_id, old_id) =
        (rotated["key_id"].as_str().unwrap(), rotated["previous_key_id"].as_str().unwrap());
    let again = broker.json(&["seal", "rotate", "--new-key-file", new_file.to_str().unwrap()]);
    assert_eq!((&again["key_id"], &again["previous_key_id"]), (&json!(new_id), &Value::Null));
    let status = String::from_utf8(broker.jeton(&["status"]).stdout).unwrap();
    assert!(status.contains("sealing.key_file") && status.contains(new_file.to_str().unwrap()), "{status}");
    let before = world.sandbox.requests(&broker.client_id("identities/billing"), VAULT).await;
    let printed = broker.jeton(&["seal", "rotate", "--new-key-file", new_file.to_str().unwrap()]).stdout;
    world.broker.process.kill();
    let mut refused = Broker::spawn(&world.broker.data_dir, Some(&world.sandbox), &[]);
    assert!(!refused.ended().success());
    for part in ["sealing key does not fit", new_id, old_id] {
        assert!(refused.log().contains(part), "{part} in {}", refused.log());
    }
    let set = format!("sealing.key_file={}", new_file.display());
    let first_log = fs::read(world.broker.data_dir.with_extension("log")).unwrap();
    world.restart(&["--set", &set]);
    let mut tokens = world.broker.tokens().await;
    assert_eq!(
        token(&mut tokens, "identities/billing", VAULT).await.unwrap(),
        kept,
        "nothing is asked for anew"
    );
    let after = world.sandbox.requests(&world.broker.client_id("identities/billing"), VAULT).await;
    assert_eq!(before, after);
    assert_eq!(world.broker.json(&["identity", "rotate", "meanwhile"])["state"], "ACTIVE");
    assert!(world.broker.jeton(&["status"]).status.success(), "no alarm is left");
    let verified = world.broker.jeton(&["audit", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
    let data_dir = world.broker.data_dir.clone();
    let mut all = everything_in(&data_dir, &[&old_file]);
    let text = String::from_utf8_lossy(&all).into_owned();
    for part in ["jeton.v1.SealingService/RotateSealingKey", "rotate/sealing_key", new_id, old_id] {
        assert!(text.contains(part), "{part} is on the audit log");
    }
    all.extend([first_log, printed, world.broker.process.log().into_bytes()].concat());
    assert!(!is_in(&all, &old) && !is_in(&all, &new), "a sealing key was kept or shown");
    assert!(is_in(&fs::read(&old_file).unwrap(), &old), "the search finds what is there");
}

#[test]
fn serve_rotates_by_its_configuration_and_a_command_does_without_a_broker() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (data_dir, config) = (at("data"), at("jeton.toml"));
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        key(&at(name), [u8::try_from(n).unwrap() + 1; 32]);
    }
    let configure = |sealing: &[(&str, &str)]| {
        let keys: String = sealing.iter().map(|(name, file)| format!("{name} = {:?}\n", at(file))).collect();
        fs::write(&config, format!("data_dir = {data_dir:?}\n[sealing]\n{keys}")).unwrap();
    };
    let (config, log) = (config.to_str().unwrap(), at("log"));
    let serve = || Process::start(&["serve", "--config", config], &log);
    let runs = || {
        let mut process = serve();
        process.announces(&data_dir.join("endpoints.json"));
        process
    };
    let file = |name: &str| at(name).to_str().unwrap().to_owned();
    configure(&[("key_file", "a")]);
    let (code, text) = error(&rotate(&data_dir, &["--new-key-file", &file("b"), "--config", config]));
    assert!(code == Some(2) && text.contains("there is no data"), "{text}");
    let mut process = runs();
    // A running broker: what it refuses changes nothing.
    let inside = data_dir.join("inside.key");
    key(&inside, [9; 32]);
    let (code, text) = error(&rotate(&data_dir, &["--new-key-file", inside.to_str().unwrap()]));
    assert!(code == Some(2) && text.contains("inside of the data directory"), "{text}");
    fs::set_permissions(at("c"), fs::Permissions::from_mode(0o640)).unwrap();
    let (code, text) = error(&rotate(&data_dir, &["--new-key-file", &file("c")]));
    assert!(code == Some(2) && text.contains("chmod 600"), "{text}");
    fs::write(at("short"), [1; 31]).unwrap();
    fs::set_permissions(at("short"), fs::Permissions::from_mode(0o600)).unwrap();
    let (code, text) = error(&rotate(&data_dir, &["--new-key-file", &file("short")]));
    assert!(code == Some(2) && text.contains("exactly 32 random bytes"), "{text}");
    let (_, text) = error(&rotate(&data_dir, &["--new-key-file", &file("b"), "--config", config]));
    assert!(text.contains("is in use by process") && text.contains("the running broker does it"), "{text}");
    assert!(process.stop().success());
    // Without one.
    let (code, text) = error(&rotate(&data_dir, &["--new-key-file", &file("b")]));
    assert!(code == Some(3) && text.contains("--config FILE"), "{text}");
    let done = rotate(&data_dir, &["--new-key-file", &file("b"), "--config", config]);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && text.contains("1 wrapped anew, 0 left"), "{done:?}");
    assert!(text.contains("set sealing.key_file = ") && text.contains("backups made before"), "{text}");
    let mut refused = serve();
    assert!(!refused.ended().success());
    assert!(refused.log().contains("sealing key does not fit"), "{}", refused.log());
    // By the configuration alone: the start opens with the key before, and rotates.
    fs::set_permissions(at("c"), fs::Permissions::from_mode(0o600)).unwrap();
    configure(&[("key_file", "c"), ("previous_key_file", "b")]);
    let mut process = runs();
    process.says("the sealing key was rotated");
    assert!(process.stop().success());
    let mut process = runs();
    assert!(process.stop().success(), "both keys are given, and one is of no use any more");
    configure(&[("key_file", "c")]);
    assert!(runs().stop().success());
    configure(&[("key_file", "a"), ("previous_key_file", "b")]);
    let mut refused = serve();
    assert!(!refused.ended().success());
    assert!(refused.log().contains("the previous one"), "{}", refused.log());
    configure(&[("previous_key_file", "missing")]);
    let check = Command::new(JETON).args(["check-config", "--config", config]).output().unwrap();
    let (code, text) = error(&check);
    assert_eq!(code, Some(2));
    for part in
        ["2 error(s)", "sealing.key_file: name", "sealing.previous_key_file: ", "missing cannot be read"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}
