//! What comes out: a table for people, JSON for programs, a page with plots.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    cpu::Threads,
    drive::{Pace, Plan},
    record::{Latency, Record, Second, ThreadUse},
};

/// A generator that sends later than this at its 99th percentile adds to the latencies.
const LATE_MICROS: f64 = 1_000.0;
/// A processor that is busier than this is what limits.
const BUSY: f64 = 0.93;
/// Who waits longer than this for a processor shares it with others, and the figures are theirs as well.
const WAITED: f64 = 0.1;

/// Whether this program, and so whatever is built with it, is a debug build.
pub(crate) const DEBUG_BUILD: bool = cfg!(debug_assertions);
/// What is said of one.
pub(crate) const DEBUG_WARNING: &str = "warning: this is a debug build, and its figures say nothing; use one of cargo build --release --workspace --bins";

/// One measurement, for programs too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What was measured.
    pub(crate) name: String,
    /// Measured by a debug build: its figures say nothing.
    pub(crate) debug_build: bool,
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
    /// Right answers to what was due in this time, also those that came a little after it.
    pub(crate) answered: u64,
    /// Right answers a second that came in this time.
    pub(crate) throughput: f64,
    /// What went wrong, and how often.
    pub(crate) errors: BTreeMap<String, u64>,
    /// What the server said of the first of them, where it said something.
    pub(crate) errors_said: BTreeMap<String, String>,
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
    /// How busy the generator's processors were, from 0 to 1. Looking at the clock until a request is due does not count.
    pub(crate) generator_busy: f64,
    /// For which part it could have run and did not, because others had its processors.
    pub(crate) generator_waited: f64,
    /// Who was at the limit: who had something to do nearly all of the time, and ran or waited for a processor. Of a server, all
    /// processors that it may use, or one of its threads.
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
#[derive(Debug, Clone)]
pub(crate) struct ServerUse {
    /// Of processors, by each of its threads.
    pub(crate) threads: Threads,
    /// In this time.
    pub(crate) watched: Duration,
    /// Processors that it may use.
    pub(crate) cores: usize,
    /// Bytes.
    pub(crate) resident: Option<u64>,
}

impl Report {
    /// Puts together what was recorded.
    pub(crate) fn new(name: &str, plan: &Plan, record: &Record, server: Option<&ServerUse>) -> Self {
        let seconds = record.elapsed.as_secs_f64();
        let answered = record.latency.len();
        let rate = match plan.pace {
            Pace::Closed => None,
            Pace::Rate(rate) => Some(rate),
        };
        let lag = rate.map(|_| Latency::of(&record.lag).p99);
        // A thread that looks at the clock is not at its limit, and whoever keeps it from that takes nothing from it: a generator may be late
        // because others, such as the server, have its processors, and could put on more load all the same.
        let ThreadUse { share, spun, watched } = record.generator;
        let worked = |time: Duration| part(time.saturating_sub(spun), watched);
        let requests = (record.came + record.failed()).max(1) as f64 / seconds;
        Self {
            name: name.into(),
            debug_build: DEBUG_BUILD,
            connections: plan.connections,
            streams: plan.streams,
            rate,
            seconds,
            token_bytes: record.token_bytes,
            answered,
            throughput: record.came as f64 / seconds,
            errors: record.errors.clone(),
            errors_said: record.said.clone(),
            reconnected: record.reconnected,
            latency: Latency::of(&record.latency),
            generator_lag_p99: lag,
            server_cpu_per_request: server.map(|s| part(s.threads.total().ran, s.watched) * 1e6 / requests),
            server_busy: server.map(|s| s.part(s.threads.total().ran)),
            server_waited: server.map(|s| s.part(s.threads.total().waited)),
            server_resident: server.and_then(|s| s.resident),
            generator_busy: worked(share.ran),
            generator_waited: part(share.waited, watched),
            saturated: Saturated::of(server.map(ServerUse::limit), worked(share.active())),
            timeline: record.seconds.iter().map(Point::of).collect(),
        }
    }

    /// Requests that failed.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

impl Point {
    fn of(second: &Second) -> Self {
        let Latency { p50, p99, max, .. } = Latency::of(&second.latency);
        Self { answered: second.latency.len(), errors: second.errors, p50, p99, max }
    }
}

impl ServerUse {
    /// How near to its limit it was, from 0 to 1: by all of its processors, or by the thread that had the most to do.
    fn limit(&self) -> f64 {
        self.part(self.threads.total().active()).max(part(self.threads.busiest().active(), self.watched))
    }

    /// Which part of the time of all of its processors that is.
    fn part(&self, time: Duration) -> f64 {
        part(time, self.watched) / self.cores.max(1) as f64
    }
}

fn part(time: Duration, of: Duration) -> f64 {
    if of.is_zero() { 0.0 } else { time.as_secs_f64() / of.as_secs_f64() }
}

/// A line for each measurement, and what there is to say of it.
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
            let said =
                r.errors_said.get(what).map_or_else(String::new, |said| format!(", the first: {said}"));
            let _ = writeln!(out, "  {count} x {what}{said}");
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
        if let Some(lag) = r.generator_lag_p99.filter(|lag| *lag > LATE_MICROS) {
            let _ = writeln!(
                out,
                "  the generator sent late, by {lag:.0} us at the 99th percentile: latencies have that in them"
            );
        }
        if r.reconnected > 0 {
            let _ =
                writeln!(out, "  {} connections ended by the server (GOAWAY) and made again", r.reconnected);
        }
    }
    if reports.iter().any(|r| r.debug_build) {
        let _ = writeln!(out, "{DEBUG_WARNING}");
    }
    out
}

fn micros(value: f64) -> String {
    if value.is_finite() { format!("{value:.0}") } else { "-".into() }
}

impl Saturated {
    /// By how near both were to their limits, from 0 to 1, as far as that is known.
    pub(crate) fn of(server: Option<f64>, generator: f64) -> Self {
        let is_busy = |part| part > BUSY;
        match (server.map(is_busy), is_busy(generator)) {
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
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cpu::Share;

    const TEN_SECONDS: Duration = Duration::from_secs(10);

    pub(crate) fn plan(pace: Pace) -> Plan {
        Plan {
            connections: 10,
            streams: 1,
            pace,
            threads: 1,
            cores: vec![],
            warmup: Duration::ZERO,
            duration: TEN_SECONDS,
            seed: 1,
            progress: Arc::default(),
            stage: Arc::default(),
        }
    }

    pub(crate) fn report(pace: Pace, record: Record, server: Option<&ServerUse>) -> Report {
        let record = Record { elapsed: TEN_SECONDS, ..record };
        Report::new("r", &plan(pace), &record, server)
    }

    fn share(ran: f64, waited: f64) -> Share {
        Share { ran: Duration::from_secs_f64(ran), waited: Duration::from_secs_f64(waited) }
    }

    /// Of one thread.
    fn generator(ran: f64, waited: f64, spun: f64) -> ThreadUse {
        let spun = Duration::from_secs_f64(spun);
        ThreadUse { share: share(ran, waited), spun, watched: TEN_SECONDS }
    }

    fn server(threads: &[f64], cores: usize) -> ServerUse {
        let threads = threads.iter().map(|ran| share(*ran, 0.0)).collect();
        ServerUse { threads, watched: TEN_SECONDS, cores, resident: None }
    }

    #[test]
    fn who_was_at_the_limit_is_never_said_of_a_server_that_nobody_watched() {
        assert_eq!(Saturated::of(Some(0.99), 0.5), Saturated::Server);
        assert_eq!(Saturated::of(Some(0.99), 0.99), Saturated::Both);
        assert_eq!(Saturated::of(Some(0.5), 0.5), Saturated::Neither);
        assert_eq!(Saturated::of(None, 0.99), Saturated::Generator);
        assert_eq!(Saturated::of(None, 0.5), Saturated::NotGenerator);
    }

    #[test]
    fn a_generator_that_is_late_is_at_its_limit_only_if_it_had_something_to_do_all_the_time() {
        let said = |spun: f64| {
            let mut record = Record::new();
            record.lag.record_n(200_000_000, 100).unwrap();
            // Others had its processor for most of the time.
            record.generator = generator(2.1, 7.8, spun);
            let report = report(Pace::Rate(1_000.0), record, Some(&server(&[10.0, 9.9], 2)));
            assert!(report.generator_lag_p99.unwrap() > 150_000.0, "{report:?}");
            let table = table(std::slice::from_ref(&report));
            assert!(
                table.contains("the generator sent late") && table.contains("the generator 78 %"),
                "{table}"
            );
            report.saturated
        };
        assert_eq!(said(6.0), Saturated::Server, "it looked at the clock: it could have put on more load");
        assert_eq!(said(0.2), Saturated::Both);
    }

    #[test]
    fn a_generator_in_a_closed_loop_is_at_its_limit_if_its_threads_never_slept() {
        let said = |ran, waited| {
            report(Pace::Closed, Record { generator: generator(ran, waited, 0.0), ..Record::new() }, None)
                .saturated
        };
        assert_eq!(said(5.0, 4.9), Saturated::Generator);
        assert_eq!(said(5.0, 1.0), Saturated::NotGenerator);
    }

    #[test]
    fn a_server_is_at_its_limit_by_all_of_its_processors_or_by_one_of_its_threads() {
        let said = |threads: &[f64], cores| {
            report(Pace::Closed, Record::new(), Some(&server(threads, cores))).saturated
        };
        assert_eq!(said(&[6.4, 6.4, 6.4], 2), Saturated::Server);
        assert_eq!(said(&[9.9, 0.1], 2), Saturated::Server, "its one worker has no more to give");
        assert_eq!(said(&[6.4, 6.4], 2), Saturated::Neither);
    }

    #[test]
    fn figures_of_a_debug_build_are_said_to_say_nothing_and_those_of_others_are_not() {
        for debug_build in [true, false] {
            let report = Report { debug_build, ..report(Pace::Closed, Record::new(), None) };
            assert_eq!(table(&[report]).contains("this is a debug build"), debug_build);
        }
        assert_eq!(report(Pace::Closed, Record::new(), None).debug_build, cfg!(debug_assertions));
    }

    #[test]
    fn answers_that_come_after_the_end_are_no_throughput() {
        let mut record = Record::new();
        for n in 0..100 {
            record.answer(Duration::from_millis(120 * n), Duration::from_secs(2));
        }
        record.came = 84;
        let report = report(Pace::Rate(10.0), record, None);
        assert_eq!((report.answered, report.throughput), (100, 8.4));
    }
}
