//! What the benchmarks find beside criterion's figures, kept for the table that is printed last: what is promised of speed, each as the
//! median of several rounds with the quartiles, and what an entry takes.

use std::{fs, path::PathBuf};

/// What a figure may be.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Told, and not promised.
    None,
}

/// One of [`FIGURES`].
#[derive(Debug)]
pub struct Figure {
    /// The name of its file.
    key: &'static str,
    what: &'static str,
    bound: Bound,
    unit: &'static str,
}

/// Any of a million keys.
pub const UNIFORM: Figure =
    times("uniform", "decide and look up any of 1,000,000 keys, beside papaya alone", Bound::AtMost(1.5));
/// Some of a million keys more often.
pub const SKEWED: Figure =
    times("skewed", "the same, some keys more often, beside papaya alone", Bound::AtMost(1.5));
/// One hot key.
pub const HOT: Figure = Figure { unit: "ns", ..times("hot", "the same, one hot key", Bound::AtMost(100.0)) };
/// The rate of two threads.
pub const TWO_THREADS: Figure =
    times("two-threads", "rate of two threads on one hot key, beside one thread", Bound::AtLeast(1.3));
/// Beside writes.
pub const SWAPS: Figure =
    times("swaps", "any key while 1 % are swapped, beside none swapped", Bound::AtMost(2.0));
/// How many were swapped meanwhile.
pub const SWAPPED: Figure =
    Figure { unit: "%", ..times("swapped", "so many of them were swapped", Bound::AtLeast(0.9)) };
/// Refreshes with PS256, on one signing thread.
pub const REFRESH_ONE: Figure = times(
    "refresh-one",
    "rate of refreshes with PS256, one signing thread, beside aws-lc-rs alone",
    Bound::AtLeast(0.9),
);
/// The same on two.
pub const REFRESH_TWO: Figure =
    times("refresh-two", "the same, two signing threads, beside aws-lc-rs alone on two", Bound::AtLeast(0.9));
/// The slowest of a thousand hits while tokens are refreshed.
pub const STORM: Figure =
    times("storm", "p99.9 of hits in a refresh storm, beside quiet times", Bound::AtMost(2.0));
/// What the engine counts for a slot.
pub const ENTRY_COUNTED: Figure = bytes("entry-counted", "an entry with a short token, as the engine counts");
/// What the process has more.
pub const ENTRY_RESIDENT: Figure =
    bytes("entry-resident", "the same, of the process, with what the benchmark keeps of it");

/// In the order of the table.
pub const FIGURES: [Figure; 11] = [
    UNIFORM,
    SKEWED,
    HOT,
    TWO_THREADS,
    SWAPS,
    SWAPPED,
    REFRESH_ONE,
    REFRESH_TWO,
    STORM,
    ENTRY_COUNTED,
    ENTRY_RESIDENT,
];

const fn times(key: &'static str, what: &'static str, bound: Bound) -> Figure {
    Figure { key, what, bound, unit: "x" }
}

const fn bytes(key: &'static str, what: &'static str) -> Figure {
    Figure { key, what, bound: Bound::None, unit: "bytes" }
}

impl Figure {
    /// Prints what the rounds found, and keeps it for the table.
    pub fn keep(&self, rounds: &[f64]) {
        let texts: Vec<_> = rounds.iter().map(f64::to_string).collect();
        let path = self.path();
        fs::create_dir_all(path.parent().expect("a folder")).expect("the target folder is writable");
        fs::write(path, texts.join("\n")).expect("the target folder is writable");
        println!("{}", self.line().0);
    }

    /// Its line of the table, and whether nothing is missed.
    pub fn line(&self) -> (String, bool) {
        let kept = fs::read_to_string(self.path()).unwrap_or_default();
        let mut rounds: Vec<f64> = kept.lines().filter_map(|line| line.parse().ok()).collect();
        rounds.sort_by(f64::total_cmp);
        self.judged(&rounds)
    }

    fn judged(&self, sorted: &[f64]) -> (String, bool) {
        let at = |quarter: usize| sorted.get(sorted.len() * quarter / 4).copied();
        let Some(((low, median), high)) = at(1).zip(at(2)).zip(at(3)) else {
            return (format!("{:<80} not measured", self.what), false);
        };
        let shown = |value: f64| if value < 20.0 { format!("{value:.2}") } else { format!("{value:.0}") };
        let (promised, holds) = match self.bound {
            Bound::AtMost(bound) => (format!("at most {bound}"), median <= bound),
            Bound::AtLeast(bound) => (format!("at least {bound}"), median >= bound),
            Bound::None => (String::new(), true),
        };
        let verdict = match self.bound {
            Bound::None => "",
            _ if holds => "holds",
            _ => "does not hold",
        };
        let measured = format!("{} {}", shown(median), self.unit);
        let spread =
            if sorted.len() > 1 { format!("({} to {})", shown(low), shown(high)) } else { String::new() };
        (format!("{:<80} {measured:>11} {spread:<18} {promised:<14} {verdict}", self.what), holds)
    }

    /// Beside the folder of the profile: target/figures.
    fn path(&self) -> PathBuf {
        let program = std::env::current_exe().expect("the program's path");
        program.ancestors().nth(3).expect("it lies in the target folder").join("figures").join(self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_holds_by_its_median_and_what_was_not_measured_does_not() {
        let verdict = |figure: Figure, rounds: &[f64]| {
            let (line, holds) = figure.judged(rounds);
            (line.rsplit("  ").next().unwrap_or_default().trim().to_owned(), holds)
        };
        assert_eq!(verdict(UNIFORM, &[0.9, 1.5, 9.0]), ("holds".into(), true));
        assert_eq!(verdict(UNIFORM, &[0.9, 1.51, 1.6]), ("does not hold".into(), false));
        assert_eq!(verdict(TWO_THREADS, &[1.3, 1.3, 1.9]), ("holds".into(), true));
        assert_eq!(verdict(TWO_THREADS, &[1.0, 1.29, 1.9]), ("does not hold".into(), false));
        assert!(!STORM.judged(&[]).1);
        assert!(ENTRY_COUNTED.judged(&[4_500.0]).1);
    }
}
