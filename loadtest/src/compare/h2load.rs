//! The same load by h2load, a client that is none of ours.
//!
//! It counts an answer by its HTTP status, and does not see that of gRPC. So what it received must be at least as much as that many
//! answers with tokens have.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::{
    servers::{Server, installed, spawn},
    started::end,
};
use crate::{
    cpu,
    record::Latency,
    report::{DEBUG_BUILD, Report, Saturated},
    target::{Address, PATH},
};

const PACKAGE: &str = "nghttp2-client";
const WARM_UP: Duration = Duration::from_secs(1);
/// What it takes beside its warm-up and its measurement, at most.
const PATIENCE: Duration = Duration::from_secs(60);
/// It says when its measurement begins and when it is over.
const BEGINS: &str = "Main benchmark duration is started";
const ENDS: &str = "Main benchmark duration is over";

/// What is measured.
pub(super) struct Plan<'a> {
    pub(super) connections: usize,
    pub(super) streams: usize,
    pub(super) seconds: f64,
    pub(super) core: usize,
    /// For the request's file.
    pub(super) folder: &'a Path,
    /// Bytes of an answer's message, and of the token in it.
    pub(super) answer_bytes: usize,
    pub(super) token_bytes: usize,
}

/// One measurement.
pub(super) fn measure(server: &Server, plan: &Plan<'_>) -> anyhow::Result<Report> {
    let mut child = start(server, plan)?;
    let outcome = watch(&mut child, server, plan);
    end(&mut child);
    outcome
}

fn start(server: &Server, plan: &Plan<'_>) -> anyhow::Result<Child> {
    let first = server.target.asks.first().context("nothing to ask")?;
    let Address::Tcp(address) = &server.target.address else { bail!("h2load connects by TCP") };
    let body = plan.folder.join("request");
    fs::write(&body, first.request.body())?;
    let scheme = if server.target.tls.is_empty() { "http" } else { "https" };
    let mut command = Command::new(installed("h2load", PACKAGE)?);
    command.args(["-t", "1", "-c", &plan.connections.to_string(), "-m", &plan.streams.to_string()]);
    command.arg("-D").arg(format!("{}ms", milliseconds(plan.seconds)));
    command.arg("--warm-up-time").arg(format!("{}ms", WARM_UP.as_millis()));
    command.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"]).arg(&body);
    command.arg(format!("{scheme}://{address}{PATH}")).stdout(Stdio::piped()).stderr(Stdio::null());
    spawn(&mut command, plan.core)
}

fn milliseconds(seconds: f64) -> u128 {
    Duration::from_secs_f64(seconds).as_millis()
}

/// What both had of processors, and when that was.
struct Look {
    at: Instant,
    share: cpu::Share,
    /// User and system time.
    server: Duration,
    client: Duration,
}

impl Look {
    fn at(server: u32, client: u32) -> anyhow::Result<Self> {
        // When h2load says that it is over, its thread may be gone.
        let (share, client) = (cpu::used(server)?.total(), cpu::used_by_all(client)?);
        Ok(Self { at: Instant::now(), server: cpu::used_by_all(server)?, share, client })
    }
}

fn watch(child: &mut Child, server: &Server, plan: &Plan<'_>) -> anyhow::Result<Report> {
    let pid = server.target.pid.context("the server's process")?;
    let deadline = Instant::now() + WARM_UP + Duration::from_secs_f64(plan.seconds) + PATIENCE;
    let lines = lines_of(child)?;
    let (mut begin, mut over, mut text) = (None, None, String::new());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => {
                if line.starts_with(BEGINS) {
                    begin = Some(Look::at(pid, child.id())?);
                } else if line.starts_with(ENDS) {
                    over = Some(Look::at(pid, child.id())?);
                }
                text += &line;
                text.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!("h2load does not end:\n{text}"),
        }
    }
    let (Some(begin), Some(over)) = (begin, over) else {
        bail!("h2load did not say when it measured:\n{text}");
    };
    let counts =
        Counts::read(&text).with_context(|| format!("what h2load printed is not understood:\n{text}"))?;
    ensure!(counts.succeeded > 0, "h2load had no answer:\n{text}");
    ensure!(
        counts.bytes >= counts.succeeded * plan.answer_bytes as u64,
        "h2load's answers are too short to have tokens in them:\n{text}"
    );
    let seconds = (over.at - begin.at).as_secs_f64();
    let part = |time: Duration| time.as_secs_f64() / seconds;
    let server_cpu = over.server.saturating_sub(begin.server);
    let (server_busy, server_waited) = (part(server_cpu), part(over.share.since(begin.share).waited));
    let generator_busy = part(over.client.saturating_sub(begin.client));
    Ok(Report {
        name: server.name.into(),
        debug_build: DEBUG_BUILD,
        connections: plan.connections,
        streams: plan.streams,
        rate: None,
        seconds,
        token_bytes: plan.token_bytes,
        answered: counts.succeeded,
        throughput: counts.succeeded as f64 / plan.seconds,
        errors: counts.errors,
        errors_said: BTreeMap::new(),
        reconnected: 0,
        latency: Latency::UNKNOWN,
        generator_lag_p99: None,
        server_cpu_per_request: Some(server_cpu.as_secs_f64() * 1e6 / counts.succeeded as f64),
        server_busy: Some(server_busy),
        server_waited: Some(server_waited),
        server_resident: cpu::resident(pid),
        generator_busy,
        // Its thread is gone before anybody could ask.
        generator_waited: 0.0,
        saturated: Saturated::of(Some(server_busy + server_waited), generator_busy),
        timeline: vec![],
    })
}

/// What it prints, line by line, until it ends.
fn lines_of(child: &mut Child) -> anyhow::Result<Receiver<String>> {
    let output = BufReader::new(child.stdout.take().context("its output")?);
    let (tell, told) = channel();
    std::thread::spawn(move || {
        // Nobody listens any more: it is over.
        output.lines().map_while(Result::ok).try_for_each(|line| tell.send(line).ok())
    });
    Ok(told)
}

/// What it counted.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    succeeded: u64,
    errors: BTreeMap<String, u64>,
    /// Received in all.
    bytes: u64,
}

impl Counts {
    /// From `requests: 7 total, ..., 7 succeeded, 0 failed, 0 errored, 0 timeout` and `traffic: 1.2KB (1234) total, ...`.
    fn read(text: &str) -> Option<Self> {
        let line = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name));
        let counts: BTreeMap<&str, u64> = line("requests:")?
            .split(',')
            .filter_map(|part| part.trim().split_once(' '))
            .filter_map(|(count, what)| Some((what.trim(), count.parse().ok()?)))
            .collect();
        let total = line("traffic:")?.split(',').find(|part| part.trim_end().ends_with("total"))?;
        let (_, bytes) = total.split_once('(')?;
        let wrong = |what: &&str| counts.get(what).is_none_or(|count| *count > 0);
        let errors = ["failed", "errored", "timeout"].into_iter().filter(wrong);
        Some(Self {
            succeeded: *counts.get("succeeded")?,
            errors: errors
                .map(|what| Some((format!("h2load: {what}"), *counts.get(what)?)))
                .collect::<Option<_>>()?,
            bytes: bytes.split_once(')')?.0.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "
finished in 3.00s, 77595.00 req/s, 128.76MB/s
requests: 155190 total, 155190 started, 155190 done, 155180 succeeded, 10 failed, 3 errored, 0 timeout
status codes: 155190 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 257.53MB (270037261) total, 2.68MB (2808010) headers (space savings 93.10%), 379.16MB (397579000) data
";

    #[test]
    fn what_h2load_counted_is_read_and_its_failures_are_errors() {
        let counts = Counts::read(PRINTED).unwrap();
        assert_eq!((counts.succeeded, counts.bytes), (155_180, 270_037_261));
        let errors = [("h2load: errored".to_owned(), 3), ("h2load: failed".to_owned(), 10)];
        assert_eq!(counts.errors, BTreeMap::from(errors));
    }

    #[test]
    fn words_that_are_not_known_are_no_counts() {
        assert_eq!(Counts::read(""), None);
        assert_eq!(Counts::read(&PRINTED.replace("succeeded", "fine")), None);
        assert_eq!(Counts::read(&PRINTED.replace("errored", "odd")), None);
        assert_eq!(Counts::read(&PRINTED.replace("(270037261)", "")), None);
    }
}
