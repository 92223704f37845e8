//! File descriptors, of which every connection needs one.

use std::fs;

use jeton_proto::v1::token_service_client::TokenServiceClient;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tonic::transport::Endpoint;

use crate::support::{Process, VAULT, token};

/// More than the soft limit of many systems, and than one principal may have but in `dev`.
const CONNECTIONS: usize = 1_100;

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_descriptors_is_raised_at_the_start_and_dev_takes_connections_beyond_it() {
    // The other ends are here.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let arguments = ["dev", "--free-ports", "--data-dir", data_dir.to_str().unwrap()];
    let mut process = Process::after("ulimit -Sn 256", &arguments, &folder.path().join("log"));
    let endpoints = process.announces(&data_dir.join("endpoints.json"));

    let limits = fs::read_to_string(format!("/proc/{}/limits", endpoints["pid"])).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard] = [0, 1].map(|n| files.split_whitespace().nth(n).unwrap());
    assert!(soft == hard && soft != "256", "{files}");

    let endpoint = Endpoint::from_shared(format!("http://{}", endpoints["grpc"].as_str().unwrap())).unwrap();
    let mut callers = vec![];
    for _ in 0..CONNECTIONS {
        let mut caller = TokenServiceClient::new(endpoint.connect().await.unwrap());
        token(&mut caller, "identities/billing", VAULT).await.unwrap();
        callers.push(caller);
    }
    for caller in &mut callers {
        token(caller, "identities/billing", VAULT).await.unwrap();
    }
}
