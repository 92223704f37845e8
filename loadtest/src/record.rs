//! What was measured: histograms of latency, counts of errors, in all and for each second.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize, Serialize};

use crate::cpu::Share;

/// Longest latency that is told apart, in nanoseconds.
const LONGEST: u64 = 120_000_000_000;
/// Latencies of one second are told apart by this much, in nanoseconds: there are as many as a measurement has seconds.
const COARSE: u64 = 1_000;
/// Kinds of errors that are told apart; more are counted together.
const MOST_KINDS: usize = 100;
const OTHERS: &str = "errors of further kinds";

/// What one thread recorded.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// All latencies, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// How late requests left the generator, in nanoseconds (constant rate alone).
    pub(crate) lag: Histogram<u64>,
    /// For each second of the measurement.
    pub(crate) seconds: Vec<Second>,
    /// Right answers that came during the measurement, whenever they were due: what the server keeps up.
    pub(crate) came: u64,
    /// Errors by what they were.
    pub(crate) errors: BTreeMap<String, u64>,
    /// What the server said of the first of them, where it said something.
    pub(crate) said: BTreeMap<String, String>,
    /// Connections that the server ended in order (GOAWAY), and that were made again.
    pub(crate) reconnected: u64,
    /// Wall time of the measurement.
    pub(crate) elapsed: Duration,
    /// What the generator's threads did.
    pub(crate) generator: ThreadUse,
    /// Bytes of the largest token.
    pub(crate) token_bytes: usize,
}

/// What went wrong with a request.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Under this it is counted.
    pub(crate) what: String,
    /// What the server said of it; it may be another text each time.
    pub(crate) said: String,
}

impl<T: Into<String>> From<T> for Failure {
    fn from(what: T) -> Self {
        Self { what: what.into(), said: String::new() }
    }
}

/// What threads of the generator did, added up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ThreadUse {
    /// What they had of processors.
    pub(crate) share: Share,
    /// How long they looked at the clock until a request was due, with nothing else to do.
    pub(crate) spun: Duration,
    /// How long each was watched.
    pub(crate) watched: Duration,
}

/// One second.
#[derive(Debug, Clone)]
pub(crate) struct Second {
    /// Latencies of the answers that came in it.
    pub(crate) latency: Histogram<u32>,
    /// Errors in it.
    pub(crate) errors: u64,
}

/// Latencies, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "percentiles")]
pub(crate) struct Latency {
    pub(crate) mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub p99_99: f64,
    pub(crate) max: f64,
}

fn histogram<C: Counter>(least: u64, digits: u8) -> Histogram<C> {
    Histogram::new_with_bounds(least, LONGEST, digits).expect("the bounds are in order")
}

impl Record {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            latency: histogram(1, 3),
            lag: histogram(1, 2),
            seconds: vec![],
            came: 0,
            errors: BTreeMap::new(),
            said: BTreeMap::new(),
            reconnected: 0,
            elapsed: Duration::ZERO,
            generator: ThreadUse::default(),
            token_bytes: 0,
        }
    }

    /// An answer came, `at` after the measurement's start.
    pub(crate) fn answer(&mut self, at: Duration, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(LONGEST).clamp(1, LONGEST);
        self.latency.saturating_record(nanos);
        self.second(at).latency.saturating_record(nanos);
    }

    /// Something went wrong.
    pub(crate) fn error(&mut self, at: Duration, failure: impl Into<Failure>) {
        let Failure { what, said } = failure.into();
        self.errors(at, &what, 1);
        self.heard(&what, &said);
    }

    /// The same went wrong so many times.
    pub(crate) fn errors(&mut self, at: Duration, what: &str, count: u64) {
        self.second(at).errors += count;
        self.count(what, count);
    }

    fn count(&mut self, what: &str, count: u64) {
        let known = self.errors.contains_key(what) || self.errors.len() < MOST_KINDS;
        *self.errors.entry(if known { what } else { OTHERS }.to_owned()).or_default() += count;
    }

    fn heard(&mut self, what: &str, said: &str) {
        if !said.is_empty() && self.errors.contains_key(what) && !self.said.contains_key(what) {
            self.said.insert(what.to_owned(), said.to_owned());
        }
    }

    fn second(&mut self, at: Duration) -> &mut Second {
        let index = usize::try_from(at.as_secs()).unwrap_or(usize::MAX).min(86_400);
        while self.seconds.len() <= index {
            self.seconds.push(Second { latency: histogram(COARSE, 2), errors: 0 });
        }
        &mut self.seconds[index]
    }

    /// Adds what another thread recorded at the same time.
    pub(crate) fn add(&mut self, other: &Self) {
        // All have the same bounds.
        let _ = self.latency.add(&other.latency);
        let _ = self.lag.add(&other.lag);
        for (index, second) in other.seconds.iter().enumerate() {
            let own = self.second(Duration::from_secs(index as u64));
            let _ = own.latency.add(&second.latency);
            own.errors += second.errors;
        }
        other.errors.iter().for_each(|(what, count)| self.count(what, *count));
        other.said.iter().for_each(|(what, said)| self.heard(what, said));
        self.came += other.came;
        self.reconnected += other.reconnected;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.generator.share = self.generator.share + other.generator.share;
        self.generator.spun += other.generator.spun;
        self.generator.watched += other.generator.watched;
        self.token_bytes = self.token_bytes.max(other.token_bytes);
    }

    /// How many requests failed.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

impl Latency {
    /// Where nobody measured it.
    pub(crate) const UNKNOWN: Self = Self {
        mean: f64::NAN,
        p50: f64::NAN,
        p90: f64::NAN,
        p99: f64::NAN,
        p99_9: f64::NAN,
        p99_99: f64::NAN,
        max: f64::NAN,
    };

    /// Of a histogram in nanoseconds; unknown where nothing was answered.
    pub(crate) fn of<C: Counter>(histogram: &Histogram<C>) -> Self {
        if histogram.is_empty() {
            return Self::UNKNOWN;
        }
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            mean: histogram.mean() / 1_000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: histogram.max() as f64 / 1_000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_each_time_anew_is_counted_under_one_name_and_kinds_are_bounded() {
        let (mut one, mut two) = (Record::new(), Record::new());
        for n in 0..1_000 {
            let said = |thread| Failure { what: "status 7".into(), said: format!("{thread} {n}") };
            one.error(Duration::ZERO, said(1));
            two.error(Duration::ZERO, said(2));
            two.error(Duration::ZERO, Failure { what: format!("kind {n}"), said: "x".into() });
        }
        one.add(&two);
        assert_eq!((one.errors["status 7"], one.failed()), (2_000, 3_000));
        assert_eq!(one.said["status 7"], "1 0");
        assert!(one.errors.len() <= MOST_KINDS + 1 && one.said.len() <= MOST_KINDS, "{:?}", one.errors);
    }

    #[test]
    fn threads_add_up_second_by_second() {
        let (mut one, mut two) = (Record::new(), Record::new());
        one.answer(Duration::from_millis(100), Duration::from_micros(50));
        two.answer(Duration::from_millis(1_100), Duration::from_micros(150));
        two.error(Duration::from_millis(1_200), "status 8");
        one.add(&two);
        assert_eq!(one.latency.len(), 2);
        assert_eq!(
            one.seconds.iter().map(|s| (s.latency.len(), s.errors)).collect::<Vec<_>>(),
            [(1, 0), (1, 1)]
        );
        assert_eq!(one.failed(), 1);
        assert!(Latency::of(&Record::new().latency).max.is_nan());
        let latency = Latency::of(&one.latency);
        assert!((latency.max - 150.0).abs() < 1.0 && (latency.p50 - 50.0).abs() < 1.0, "{latency:?}");
    }
}
