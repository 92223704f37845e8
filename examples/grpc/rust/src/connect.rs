//! Ways to a broker, and what is tried again on them. tonic reads no service config, so this file does what it says elsewhere.

use std::{error::Error, fs, path::Path, time::Duration};

use anyhow::Context;
use rand::Rng;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

const ATTEMPTS: u32 = 4;

/// The unix socket of the broker that runs on this data directory, or its TCP address if it has none.
pub(crate) fn local_address(data_dir: &Path) -> anyhow::Result<String> {
    let file = data_dir.join("endpoints.json");
    let text = fs::read(&file).with_context(|| format!("{}: is the broker running?", file.display()))?;
    let endpoints: serde_json::Value = serde_json::from_slice(&text)?;
    match (endpoints["grpc_socket"].as_str(), endpoints["grpc"].as_str()) {
        (Some(socket), _) => Ok(format!("unix:{socket}")),
        (None, Some(address)) => Ok(address.to_owned()),
        (None, None) => anyhow::bail!("{} names no address", file.display()),
    }
}

/// A channel to `unix:PATH` or `HOST:PORT`, which connects when it is used.
pub(crate) fn connect(address: &str) -> anyhow::Result<Channel> {
    let uri = if address.starts_with("unix:") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(uri)?
        .connect_timeout(Duration::from_secs(5))
        // A connection that leads nowhere is found within 40 s.
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    Ok(endpoint.connect_lazy())
}

/// Calls until the deadline, up to four times while the broker or the authority is not available, and not before RetryInfo says.
pub(crate) async fn retried<T>(
    within: Duration,
    mut call: impl AsyncFnMut() -> Result<Response<T>, Status>,
) -> Result<T, Status> {
    let deadline = Instant::now() + within;
    let mut attempt = 1;
    loop {
        let error = match timeout_at(deadline, call()).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(error)) => error,
            Err(_) => return Err(Status::deadline_exceeded("no answer within the deadline")),
        };
        let pause = retry_after(&error).unwrap_or_default().max(backoff(attempt));
        if !unavailable(&error) || attempt == ATTEMPTS || Instant::now() + pause > deadline {
            return Err(error);
        }
        sleep(pause).await;
        attempt += 1;
    }
}

/// When a retry is worth it; `None`: it does not help, or the broker was not reached.
pub(crate) fn retry_after(error: &Status) -> Option<Duration> {
    error.get_details_retry_info()?.retry_delay
}

/// The broker says so, or was not reached, or its connection broke: tonic gives that the code UNKNOWN, and a source.
pub(crate) fn unavailable(error: &Status) -> bool {
    error.code() == Code::Unavailable || error.source().is_some()
}

/// Longer from time to time, and not in step with the other callers of the same broker.
pub(crate) fn backoff(attempt: u32) -> Duration {
    let longest = Duration::from_millis(100) * 2_u32.pow(attempt.min(6));
    longest.min(Duration::from_secs(5)).mul_f64(rand::rng().random_range(0.5..1.0))
}
