//! What comes out: a table for people, JSON for programs, a page with plots.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    cpu::Share,
    drive::{Pace, Plan},
    record::{Latency, Record},
};

/// A generator that is later than this at its 99th percentile does not keep the rate.
const LATE_MICROS: f64 = 1_000.0;
/// A processor that is busier than this is what limits.
const BUSY: f64 = 0.93;
/// Who waits longer than this for a processor shares it with others, and the figures are theirs as well.
const WAITED: f64 = 0.1;

/// One measurement, for programs too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What was measured.
    pub(crate) name: String,
    /// Connections.
    pub(crate) connections: usize,
    /// Requests under way on each at most.
    pub(crate) streams: usize,
    /// The rate that was asked for, a second; none in a closed loop.
    pub(crate) rate: Option<f64>,
    /// How long it was measured, in seconds.
    pub(crate) seconds: f64,
    /// Bytes of the largest access token.
    pub(crate) token_bytes: usize,
    /// Right answers.
    pub(crate) answered: u64,
    /// Right answers a second.
    pub(crate) throughput: f64,
    /// What went wrong, and how often.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Connections that the server ended in order (GOAWAY), and that were made again.
    pub(crate) reconnected: u64,
    /// Latencies in microseconds, NaN where nobody measured them; at a constant rate from the moment at which a request was due.
    pub(crate) latency: Latency,
    /// How late the generator was, in microseconds at its 99th percentile; at a constant rate alone.
    pub generator_lag_p99: Option<f64>,
    /// Processor time of the server for each request, in microseconds, where its process is known.
    pub(crate) server_cpu_per_request: Option<f64>,
    /// How busy the server's processors were, from 0 to 1.
    pub(crate) server_busy: Option<f64>,
    /// For which part its threads could have run and did not, because others had its processors.
    pub(crate) server_waited: Option<f64>,
    /// The server's resident memory in bytes.
    pub(crate) server_resident: Option<u64>,
    /// How busy the generator's processors were, from 0 to 1.
    pub(crate) generator_busy: f64,
    /// For which part it could have run and did not, because others had its processors.
    pub(crate) generator_waited: f64,
    /// Who was at the limit: who ran or waited for a processor nearly all of the time.
    pub(crate) saturated: Saturated,
    /// Second by second.
    pub(crate) timeline: Vec<Point>,
}

/// Who was at the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) enum Saturated {
    Server,
    Generator,
    Both,
    Neither,
    /// The generator was not; of the server's process nothing is known.
    #[serde(rename = "not the generator")]
    NotGenerator,
}

/// One second of the measurement.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Right answers.
    pub(crate) answered: u64,
    /// Errors.
    pub(crate) errors: u64,
    /// Latency in microseconds.
    pub p50: f64,
    /// Latency in microseconds.
    pub p99: f64,
    /// Latency in microseconds.
    pub(crate) max: f64,
}

/// What the server used meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerUse {
    /// Of processors.
    pub(crate) share: Share,
    /// Processors that it may use.
    pub(crate) cores: usize,
    /// Bytes.
    pub(crate) resident: Option<u64>,
}

impl Report {
    /// Puts together what was recorded.
    pub(crate) fn new(name: &str, plan: &Plan, record: &Record, server: Option<ServerUse>) -> Self {
        let seconds = record.elapsed.as_secs_f64();
        let answered = record.latency.len();
        let all = answered + record.failed();
        let rate = match plan.pace {
            Pace::Closed => None,
            Pace::Rate(rate) => Some(rate),
        };
        let lag = rate.map(|_| Latency::of(&record.lag).p99);
        let of_server = |part: fn(Share) -> Duration| {
            server.map(|s| part(s.share).as_secs_f64() / seconds / s.cores.max(1) as f64)
        };
        let (server_busy, server_waited) = (of_server(|s| s.ran), of_server(|s| s.waited));
        let [generator_busy, generator_waited] = [record.generator.ran, record.generator.waited]
            .map(|part| part.as_secs_f64() / seconds / plan.threads as f64);
        // At a constant rate the generator looks at the clock without a pause: being busy says nothing, being late does.
        let generator = lag.map_or(is_busy(generator_busy + generator_waited), |lag| lag > LATE_MICROS);
        let saturated =
            Saturated::of(server_busy.zip(server_waited).map(|(ran, waited)| ran + waited), generator);
        let timeline = record.seconds.iter().map(|second| {
            let latency = Latency::of(&second.latency);
            Point {
                answered: second.latency.len(),
                errors: second.errors,
                p50: latency.p50,
                p99: latency.p99,
                max: latency.max,
            }
        });
        Self {
            name: name.into(),
            connections: plan.connections,
            streams: plan.streams,
            rate,
            seconds,
            token_bytes: record.token_bytes,
            answered,
            throughput: answered as f64 / seconds,
            errors: record.errors.clone(),
            reconnected: record.reconnected,
            latency: Latency::of(&record.latency),
            generator_lag_p99: lag,
            server_cpu_per_request: server.map(|s| s.share.ran.as_secs_f64() * 1e6 / all.max(1) as f64),
            server_busy,
            server_waited,
            server_resident: server.and_then(|s| s.resident),
            generator_busy,
            generator_waited,
            saturated,
            timeline: timeline.collect(),
        }
    }

    /// Requests that failed.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Whether a processor that is so busy, from 0 to 1, is what limits.
pub(crate) fn is_busy(part: f64) -> bool {
    part > BUSY
}

/// A line for each measurement.
pub(crate) fn table(reports: &[Report]) -> String {
    let mut out = format!(
        "{:<22} {:>11} {:>10} {:>10} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}  {}\n",
        "",
        "conns",
        "rate/s",
        "ok/s",
        "errors",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "max us",
        "cpu us/rq",
        "at the limit"
    );
    for r in reports {
        let rate = r.rate.map_or_else(|| "closed".into(), |rate| format!("{rate:.0}"));
        let cpu = r.server_cpu_per_request.map_or_else(|| "-".into(), |cpu| format!("{cpu:.2}"));
        let _ = writeln!(
            out,
            "{:<22} {:>11} {:>10} {:>10.0} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}  {}",
            r.name,
            format!("{}x{}", r.connections, r.streams),
            rate,
            r.throughput,
            r.failed(),
            micros(r.latency.p50),
            micros(r.latency.p99),
            micros(r.latency.p99_9),
            micros(r.latency.max),
            cpu,
            r.saturated.as_str(),
        );
        for (what, count) in &r.errors {
            let _ = writeln!(out, "  {count} x {what}");
        }
        let (server, generator) = (r.server_waited.unwrap_or(0.0), r.generator_waited);
        if server > WAITED || generator > WAITED {
            let _ = writeln!(
                out,
                "  others had the processors: the server waited {:.0} % of the time, the generator {:.0} %",
                server * 100.0,
                generator * 100.0
            );
        }
        if r.reconnected > 0 {
            let _ =
                writeln!(out, "  {} connections ended by the server (GOAWAY) and made again", r.reconnected);
        }
    }
    out
}

fn micros(value: f64) -> String {
    if value.is_finite() { format!("{value:.0}") } else { "-".into() }
}

impl Saturated {
    /// By how busy the server was, if that is known, and whether the generator was at its limit.
    pub(crate) fn of(server_busy: Option<f64>, generator: bool) -> Self {
        match (server_busy.map(is_busy), generator) {
            (Some(true), true) => Self::Both,
            (Some(true), false) => Self::Server,
            (_, true) => Self::Generator,
            (Some(false), false) => Self::Neither,
            (None, false) => Self::NotGenerator,
        }
    }

    /// For a table.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Generator => "generator",
            Self::Both => "both",
            Self::Neither => "neither",
            Self::NotGenerator => "not the generator",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_at_the_limit_is_never_said_of_a_server_that_nobody_watched() {
        assert_eq!(Saturated::of(Some(0.99), false), Saturated::Server);
        assert_eq!(Saturated::of(Some(0.99), true), Saturated::Both);
        assert_eq!(Saturated::of(Some(0.5), false), Saturated::Neither);
        assert_eq!(Saturated::of(None, true), Saturated::Generator);
        assert_eq!(Saturated::of(None, false), Saturated::NotGenerator);
    }
}
