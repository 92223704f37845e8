//! What numbers of the command line may be. What is not kept to is refused before anything begins, with what is allowed.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

use anyhow::ensure;

use crate::RunArguments;

/// Each has a buffer.
pub(crate) const CONNECTIONS: RangeInclusive<usize> = 1..=100_000;
/// On one connection.
pub(crate) const STREAMS: RangeInclusive<usize> = 1..=10_000;
/// Requests a second.
pub(crate) const RATE: RangeInclusive<f64> = 0.001..=10_000_000.0;
/// Of a measurement.
pub(crate) const SECONDS: RangeInclusive<f64> = 0.001..=DAY;
/// Of a warm-up, or of a connection's life.
pub(crate) const MOMENT: RangeInclusive<f64> = 0.0..=DAY;
/// Of the generator, or of the baseline.
pub(crate) const THREADS: RangeInclusive<usize> = 1..=1_024;
/// Of a comparison.
pub(crate) const ROUNDS: RangeInclusive<usize> = 1..=1_000;
/// Of the sandbox's tokens, which makes none that are larger.
pub(crate) const TOKEN_BYTES: RangeInclusive<usize> = 1..=10_000;
/// Of the baseline's tokens: no text is padded to more.
pub(crate) const PADDED_BYTES: RangeInclusive<usize> = 1..=65_535;

const DAY: f64 = 86_400.0;
/// On all connections together.
const MOST_UNDER_WAY: usize = 1_000_000;
/// What a process has open beside its connections.
const OTHER_FILES: usize = 64;

/// Parses a whole number within these bounds.
pub(crate) fn whole<T>(bounds: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Clone,
{
    within("a whole number", bounds)
}

/// Parses a number within these bounds.
pub(crate) fn number(bounds: RangeInclusive<f64>) -> impl Fn(&str) -> Result<f64, String> + Clone {
    within("a number", bounds)
}

fn within<T>(what: &'static str, bounds: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Clone,
{
    move |text| {
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        number.ok_or_else(|| format!("give {what} from {} to {}", bounds.start(), bounds.end()))
    }
}

/// Whether so many requests may be under way together.
pub(crate) fn under_way(connections: usize, streams: usize) -> anyhow::Result<()> {
    let all = connections.saturating_mul(streams);
    ensure!(
        all <= MOST_UNDER_WAY,
        "{connections} connections with {streams} requests under way on each are {all} requests, and {MOST_UNDER_WAY} are the most: \
         give less of one of them"
    );
    Ok(())
}

/// Whether the numbers of a measurement go together, and this machine allows them.
pub(crate) fn together(run: &RunArguments) -> anyhow::Result<()> {
    let &RunArguments { connections, streams, threads, seconds, .. } = run;
    under_way(connections, streams)?;
    ensure!(
        threads <= connections,
        "--threads {threads} for --connections {connections}: a thread without a connection has nothing to do; give it no more threads"
    );
    ensure!(
        run.core.len() <= threads,
        "{} times --core for --threads {threads}: a thread runs on one processor; give --core once for each thread at most",
        run.core.len()
    );
    ensure!(
        seconds * threads as f64 <= DAY,
        "--seconds {seconds} with --threads {threads}: each keeps what it measured of every second, and {DAY} seconds are the most for \
         all together"
    );
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let needed = connections.saturating_add(OTHER_FILES);
    ensure!(
        files.is_none_or(|most| needed as u64 <= most),
        "--connections {connections} need {needed} open files, and a process may have {} here: raise it with ulimit -n",
        files.unwrap_or_default()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_allowed_and_nothing_beyond_them_nor_what_is_no_number() {
        let streams = whole(STREAMS);
        assert_eq!((streams("1"), streams("10000")), (Ok(1), Ok(10_000)));
        for wrong in ["0", "-1", "10001", "999999999999999999999999", "1.5", "x", ""] {
            assert_eq!(streams(wrong), Err("give a whole number from 1 to 10000".into()), "{wrong}");
        }
        let rate = number(RATE);
        assert_eq!((rate("0.001"), rate("1e7")), (Ok(0.001), Ok(1e7)));
        for wrong in ["0", "-1", "1e300", "1e-300", "inf", "nan"] {
            assert_eq!(rate(wrong), Err("give a number from 0.001 to 10000000".into()), "{wrong}");
        }
    }

    #[test]
    fn numbers_that_are_allowed_each_may_be_too_much_together() {
        let run = RunArguments { connections: 2_000, streams: 100, ..RunArguments::default() };
        assert!(together(&RunArguments { connections: 2, threads: 2, ..run.clone() }).is_ok());
        for (wrong, said) in [
            (RunArguments { connections: 100_000, ..run.clone() }, "1000000 are the most"),
            (RunArguments { connections: 1, threads: 2, ..run.clone() }, "give it no more threads"),
            (RunArguments { connections: 2, core: vec![0, 0], ..run.clone() }, "once for each thread"),
            (RunArguments { connections: 2, threads: 2, seconds: 50_000.0, ..run.clone() }, "86400 seconds"),
        ] {
            let told = together(&wrong).unwrap_err().to_string();
            assert!(told.contains(said), "{told}");
        }
    }
}
