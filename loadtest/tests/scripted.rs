//! Servers that end connections in order, where nothing is lost and nothing is an error; and one that says nothing any more.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Output,
    thread,
    time::Duration,
};

use jeton_proto::v1;
use prost::Message;
use serde_json::Value;
use support::{Baseline, load};

const PREFACE_BYTES: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[test]
fn connections_that_age_lose_no_request_at_a_constant_rate_nor_in_a_closed_loop() {
    let server = Baseline::start(&["--max-connection-age", "0.3"]);
    for more in [&["--rate", "300"][..], &["--streams", "4"]] {
        let more = [more, &["--connections", "5", "--seconds", "2"]].concat();
        let report =
            report(|json| load("run", &server.address, &["identities/a"], &[&more[..], &json].concat()));
        assert_eq!(report["errors"], serde_json::json!({}), "{report}");
        assert!(report["reconnected"].as_u64().unwrap() >= 5, "{report}");
        if report["rate"].is_number() {
            assert_eq!(report["answered"], 600, "all that was due was answered: {report}");
        }
    }
}

#[test]
fn requests_that_were_refused_unseen_are_sent_again_on_the_next_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // The first connection answers one request, then takes another and says that it did not look at it; the others answer all.
    thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let Ok(stream) = stream else { return };
            // The client ends a connection when it is done with it.
            thread::spawn(move || serve(stream, if n == 0 { 1 } else { u32::MAX }, true));
        }
    });
    let more = ["--connections", "1", "--streams", "3", "--rate", "100", "--warmup", "0"];
    let report = report(|json| load("run", &address, &["identities/a"], &[&more[..], &json].concat()));
    assert_eq!((&report["errors"], &report["reconnected"]), (&serde_json::json!({}), &1.into()), "{report}");
    assert_eq!(report["answered"], 100, "{report}");
}

#[test]
fn a_server_that_ends_every_connection_at_once_is_an_error_and_no_endless_loop() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        listener
            .incoming()
            .map_while(Result::ok)
            .for_each(|stream| drop(thread::spawn(move || serve(stream, 0, true))));
    });
    let more = ["--connections", "1", "--rate", "50", "--warmup", "0"];
    let report = report(|json| load("run", &address, &["identities/a"], &[&more[..], &json].concat()));
    let errors = report["errors"].to_string();
    assert!(errors.contains("again and again without an answer") && report["reconnected"] == 2, "{report}");
}

/// The one report that a run writes when it is told to, by these arguments.
fn report(run: impl FnOnce([&str; 2]) -> Output) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("r.json");
    let outcome = run(["--json", json.to_str().unwrap()]);
    let said = || String::from_utf8_lossy(&outcome.stderr).into_owned();
    let text = fs::read(&json).unwrap_or_else(|error| panic!("{error}: {}", said()));
    serde_json::from_slice::<Vec<Value>>(&text).unwrap().remove(0)
}

#[test]
fn what_is_never_answered_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || serve(listener.accept().unwrap().0, 1, false));
    let more = ["--connections", "1", "--streams", "10", "--rate", "50", "--warmup", "0"];
    let report = report(|json| load("run", &address, &["identities/a"], &[&more[..], &json].concat()));
    // Those that are under way, and those that never could be.
    assert_eq!(report["errors"], serde_json::json!({"unanswered 3 s after the end": 50}), "{report}");
}

/// Answers so many requests with a token; then it ends the connection without having looked at the next one, or says nothing.
fn serve(mut stream: TcpStream, answers: u32, ends: bool) -> Option<()> {
    let last = answers.saturating_mul(2).saturating_sub(1);
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    stream.read_exact(&mut [0; PREFACE_BYTES]).ok()?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).ok()?;
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).ok()?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        stream.read_exact(&mut vec![0; length as usize]).ok()?;
        let id = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        match header[3] {
            HEADERS if id > last && ends => {
                let told = [last.to_be_bytes(), [0; 4]].concat();
                stream.write_all(&frame(GOAWAY, 0, 0, &told)).ok()?;
            }
            DATA if id <= last => stream.write_all(&answer(id)).ok()?,
            _ => {}
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn answer(stream: u32) -> Vec<u8> {
    let token =
        v1::Token { access_token: "token".into(), identity: "identities/a".into(), ..Default::default() };
    let message = v1::GetTokenResponse { token: Some(token), state: 1 }.encode_to_vec();
    let body = [&[0], (message.len() as u32).to_be_bytes().as_slice(), &message].concat();
    // A field without indexing (RFC 7541 section 6.2.2): the length of the name, the name, the length of the value, the value.
    let trailers = [&[0x00, 11][..], b"grpc-status", &[1], b"0"].concat();
    [
        // :status 200 is number 8 of the static table.
        frame(HEADERS, END_HEADERS, stream, &[0x88]),
        frame(DATA, 0, stream, &body),
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &trailers),
    ]
    .concat()
}
