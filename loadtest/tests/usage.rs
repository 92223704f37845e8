//! What is asked of the program in a way that makes no sense is refused before anything is sent, with what is allowed.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

mod support;

use std::{
    fs,
    io::pipe,
    process::{Command, Stdio},
};

use support::{Baseline, PROGRAM, load};

/// Nobody listens there: who gets so far as to connect says something else.
const NOWHERE: &str = "127.0.0.1:1";
const TARGET: [&str; 6] = ["--endpoint", NOWHERE, "--identity", "i", "--scope", "s"];

/// What a command says to standard error that fails, and says nothing else.
fn refused(arguments: &[&str]) -> String {
    let outcome = Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(outcome.stderr).unwrap();
    assert!(!outcome.status.success() && outcome.stdout.is_empty(), "{arguments:?}: {said}");
    said
}

#[test]
fn a_number_beyond_its_bounds_is_refused_with_its_option_and_with_what_is_allowed() {
    let huge = "999999999";
    let streams = "1 to 10000";
    let (run, ramp, compare) = (&["run"][..], &["ramp"][..], &["compare"][..]);
    let baseline = &["baseline", "--identity", "i", "--scope", "s"][..];
    for (command, option, wrong, allowed) in [
        (run, "--connections", &["0", "-1", huge, "1.5", "many"][..], "1 to 100000"),
        (run, "-c", &["-1"], "1 to 100000"),
        (run, "--streams", &["0", "-1", huge], streams),
        (run, "-m", &[huge], streams),
        (run, "--rate", &["0", "-5", "1e300", "1e-300", "inf", "nan"], "0.001 to 10000000"),
        (run, "--threads", &["0", "-1", huge], "1 to 1024"),
        (run, "--warmup", &["-1", "1e300", "nan"], "0 to 86400"),
        (run, "--seconds", &["0", "-1", "1e-300", "1e300"], "0.001 to 86400"),
        (run, "--seed", &["-1", "x"], "0 to 18446744073709551615"),
        (run, "--skew", &["-1", "nan", "1e300"], "0 to 100"),
        (run, "--server-pid", &["0", "-1"], "1 to 4294967295"),
        (ramp, "--streams", &[huge], streams),
        (ramp, "--from", &["0", "1e300"], "1 to 10000000"),
        (ramp, "--to", &["0", "1e300", "inf"], "1 to 10000000"),
        (ramp, "--step", &["0", "1e-300", "1e300"], "1 to 10000"),
        (ramp, "--kept", &["0", "200", "-1"], "1 to 100"),
        (ramp, "--within", &["0", "1e-300", "200"], "0.1 to 100"),
        (compare, "--rounds", &["0", "-1", huge], "1 to 1000"),
        (compare, "--shape", &["1x999999999"], streams),
        (compare, "--shape", &["1x1@1e300"], "0.001 to 10000000"),
        (compare, "--at-half", &["0", huge], "1 to 100000"),
        (compare, "--seconds", &["0", "1e300"], "0.001 to 86400"),
        (compare, "--token-bytes", &["0", huge], "1 to 10000"),
        (baseline, "--token-bytes", &["0", huge], "1 to 65535"),
        (baseline, "--max-connection-age", &["-1", "1e300"], "0 to 86400"),
        (baseline, "--threads", &["0", huge], "1 to 1024"),
    ] {
        for wrong in wrong {
            let said = refused(&[command, &[option, wrong]].concat());
            let told = said.lines().next().unwrap();
            assert!(told.contains(&format!("invalid value '{wrong}' for '--")), "{option}: {said}");
            assert!(told.contains(&format!("number from {allowed}")), "{option}: {said}");
        }
    }
}

#[test]
fn a_processor_that_is_not_there_is_refused_with_those_that_are() {
    for (command, option) in [("run", "--core"), ("compare", "--server-core"), ("compare", "--client-core")] {
        let said = refused(&[command, option, "99999"]);
        assert!(said.contains("no such processor") && said.contains("give one of "), "{said}");
    }
}

#[test]
fn numbers_that_do_not_go_together_are_refused_before_anybody_connects() {
    for (wrong, said) in [
        (&["run", "-c", "1000", "-m", "10000"][..], "1000000 are the most"),
        (&["run", "-c", "1", "--threads", "2"], "give it no more threads"),
        (&["run", "--core", "0", "--core", "0"], "once for each thread"),
        (&["ramp", "--from", "10", "--to", "9"], "--from 10 is more than --to 9"),
        (&["compare", "--shape", "1x1@5", "--client", "h2load"], "leave @RATE away"),
    ] {
        let target = if wrong[0] == "compare" { &[][..] } else { &TARGET };
        let told = refused(&[wrong, target].concat());
        assert!(told.contains(said), "{wrong:?}: {told}");
    }
}

#[test]
fn options_that_would_be_without_effect_beside_each_other_are_refused() {
    for wrong in [
        &["run", "--unix", "--ca", "ca.pem"][..],
        &["ramp", "--unix", "--ca", "ca.pem"],
        &["run", "--socket", "s", "--ca", "ca.pem"],
        &["compare", "--at-half", "5", "--shape", "1x1"],
    ] {
        let said = refused(wrong);
        assert!(said.contains("cannot be used with"), "{wrong:?}: {said}");
    }
    // A ramp goes through rates of its own.
    let said = refused(&["ramp", "--rate", "5"]);
    assert!(said.contains("unexpected argument '--rate'"), "{said}");
}

#[test]
fn a_report_that_cannot_be_written_is_known_before_anybody_connects() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("file"), "").unwrap();
    for option in ["--json", "--html"] {
        for wrong in [path(""), path("absent/r"), path("absent/"), path("file/r")] {
            for command in [&["run"][..], &["ramp"], &["compare"]] {
                let target = if command[0] == "compare" { &[][..] } else { &TARGET };
                let said = refused(&[command, target, &[option, &wrong]].concat());
                assert!(
                    said.contains(&format!("{option} {wrong}: no report can be written there")),
                    "{said}"
                );
            }
        }
    }
    let both = path("r");
    let said = refused(&[&["run"][..], &TARGET, &["--json", &both, "--html", &both]].concat());
    assert!(said.contains("name the same file"), "{said}");
}

#[test]
fn a_run_that_fails_leaves_the_report_before_it_as_it_was_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
    fs::write(&old, "older").unwrap();
    let files = ["--json", old.to_str().unwrap(), "--html", new.to_str().unwrap()];
    let said = refused(&[&["run"][..], &TARGET, &files].concat());
    assert!(said.contains(&format!("connecting to {NOWHERE}")), "{said}");
    assert_eq!(fs::read_to_string(&old).unwrap(), "older");
    assert!(!new.exists());
}

#[test]
fn whoever_stops_reading_ends_nothing_but_the_output() {
    let (server, folder) = (Baseline::start(&[]), tempfile::tempdir().unwrap());
    let json = folder.path().join("r.json");
    for (identity, code) in [("identities/a", 0), ("identities/nobody", 1)] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut command = Command::new(PROGRAM);
        command.args(["run", "--endpoint", &server.address, "--identity", identity, "--scope", "s", "-q"]);
        command.args(["--rate", "50", "--warmup", "0", "--seconds", "0.2", "--json"]).arg(&json);
        let outcome =
            command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert!(outcome.status.code() == Some(code) && !said.contains("panicked"), "{said}");
        fs::remove_file(&json).unwrap();
    }
    // What is said meanwhile goes to standard error.
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut command = Command::new(PROGRAM);
    let missing = folder.path().join("missing");
    command
        .args(["compare", "--jeton"])
        .arg(missing)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(writer);
    assert_eq!(command.status().unwrap().code(), Some(1));
}

#[test]
fn a_comparison_says_of_a_debug_build_that_its_figures_say_nothing_before_it_begins() {
    let said = refused(&["compare", "--jeton", "/nowhere"]);
    assert_eq!(said.starts_with("warning: this is a debug build"), cfg!(debug_assertions), "{said}");
    assert!(said.contains("/nowhere is not there"), "{said}");
}

#[test]
fn a_client_certificate_is_of_no_use_without_tls_and_that_is_said() {
    let outcome = load("run", NOWHERE, &["i"], &["--cert", "client.pem", "--key", "client.key"]);
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(!outcome.status.success() && said.contains("--ca <FILE>"), "{said}");
}

#[test]
fn load_goes_to_this_machine_alone() {
    let outcome = load("run", "192.0.2.1:80", &["i"], &[]);
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(!outcome.status.success() && said.contains("this machine alone"), "{said}");
}
