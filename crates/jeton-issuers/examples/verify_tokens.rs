//! Judges bearer tokens, so that other software can make them: each line of standard input is one, or `?` and one, which is only
//! remembered or not. Each gets a line of JSON. The argument: a file with `{"issuers": [...]}`, the settings as JSON.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for tests")]

use std::sync::Arc;

use jeton_access::{AccessSettings, BearerTokens, Rejected, Tokens};
use jeton_core::{Clock, SystemClock};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[tokio::main]
async fn main() {
    let path = std::env::args().nth(1).unwrap();
    let settings: AccessSettings = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(settings.validate(), []);
    let ports = settings.issuers.iter().map(|issuer| jeton_issuers::ports(issuer).unwrap()).collect();
    let (tokens, tasks) = Tokens::start(&settings, ports, Arc::new(SystemClock));
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        println!("{}", judged(&tokens, &line).await);
    }
    tasks.shutdown().await;
}

async fn judged(tokens: &Tokens, line: &str) -> Value {
    if let Some(token) = line.strip_prefix('?') {
        let remembered = tokens.remembered(token, SystemClock.now().wall);
        return json!({"remembered": remembered.map(|it| it.principal)});
    }
    match tokens.verify(line).await {
        Ok(it) => json!({"principal": it.principal, "until": it.until.map(|until| until.as_secs())}),
        Err(Rejected::Unavailable(why)) => json!({ "unavailable": why }),
        Err(rejected) => json!({"refused": rejected.to_string()}),
    }
}
