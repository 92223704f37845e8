//! Where a server's limit is: rates that rise until one is not kept, and then between that one and the one before.

use crate::{
    RunArguments,
    bounds::{self, number},
    drive::Pace,
    report::{Report, Saturated},
    target::Target,
};

/// How to look for it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RampArguments {
    /// The first rate
    #[arg(long, default_value_t = 5_000.0, value_parser = number(LEAST..=MOST))]
    pub(crate) from: f64,
    /// How much each rate is above the one before, in percent
    #[arg(long, default_value_t = 25.0, value_parser = number(1.0..=10_000.0))]
    pub(crate) step: f64,
    /// The largest rate that is tried
    #[arg(long, default_value_t = 1_000_000.0, value_parser = number(LEAST..=MOST))]
    pub(crate) to: f64,
    /// A rate counts as kept if nothing failed and this part of it was answered in the same time, in percent
    #[arg(long, default_value_t = 98.0, value_parser = number(1.0..=100.0))]
    pub(crate) kept: f64,
    /// How close the rate that is not kept must be to the one that is, in percent of it
    #[arg(long, default_value_t = 5.0, value_parser = number(0.1..=100.0))]
    pub(crate) within: f64,
}

/// Below this there is no limit to look for.
const LEAST: f64 = 1.0;
const MOST: f64 = *bounds::RATE.end();

/// Measures rate after rate.
pub(crate) fn run(
    target: &Target,
    run: &RunArguments,
    ramp: &RampArguments,
) -> anyhow::Result<(Vec<Report>, String)> {
    anyhow::ensure!(
        ramp.from <= ramp.to,
        "--from {} is more than --to {}: begin with the smaller rate",
        ramp.from,
        ramp.to
    );
    let (mut reports, mut search): (Vec<Report>, _) = (vec![], Search::default());
    while let Some(rate) = search.next(ramp) {
        let report = crate::measure(&format!("{rate:.0}/s"), target, run, Pace::Rate(rate))?;
        let kept = report.throughput >= rate * ramp.kept / 100.0 && report.failed() == 0;
        let answers = report.throughput > 0.0;
        reports.push(report);
        search.found(rate, kept);
        if !answers {
            break;
        }
    }
    let verdict = search.verdict(&reports);
    Ok((reports, verdict))
}

/// What is known of a limit.
#[derive(Debug, Default)]
struct Search {
    /// The largest rate that was kept.
    kept: Option<f64>,
    /// The least that was not.
    lost: Option<f64>,
}

impl Search {
    /// The next rate to measure; none where the limit is known well enough, or lies above all rates.
    fn next(&self, ramp: &RampArguments) -> Option<f64> {
        match (self.kept, self.lost) {
            (None, None) => Some(ramp.from),
            (Some(kept), None) => (kept < ramp.to).then(|| (kept * (1.0 + ramp.step / 100.0)).min(ramp.to)),
            (None, Some(lost)) => (lost > LEAST).then(|| (lost / 2.0).max(LEAST)),
            // Both ratios are the same: steps are in percent.
            (Some(kept), Some(lost)) => {
                (lost > kept * (1.0 + ramp.within / 100.0)).then(|| (kept * lost).sqrt())
            }
        }
    }

    fn found(&mut self, rate: f64, kept: bool) {
        *(if kept { &mut self.kept } else { &mut self.lost }) = Some(rate);
    }

    fn verdict(&self, reports: &[Report]) -> String {
        let kept = self.kept.unwrap_or(0.0);
        let Some((lost, report)) = self.lost.zip(reports.iter().find(|report| report.rate == self.lost))
        else {
            return format!("every rate was kept; the largest was {kept:.0}/s");
        };
        let who = match report.saturated {
            Saturated::Server => "the server is at its limit",
            Saturated::Generator => "the generator is at its limit, not the server: give it more threads",
            Saturated::Both => "server and generator are both at their limits",
            Saturated::Neither => {
                "neither server nor generator is at its limit: look at the errors and at the connections"
            }
            Saturated::NotGenerator => {
                "the generator is not at its limit; of the server's process nothing is known: give --server-pid"
            }
        };
        format!("kept: {kept:.0}/s; not kept: {lost:.0}/s ({who})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates that are measured, of which a server keeps those up to `limit`, and what is known then.
    fn search(ramp: &RampArguments, limit: f64) -> (Vec<f64>, Search) {
        let (mut rates, mut search) = (vec![], Search::default());
        while let Some(rate) = search.next(ramp) {
            rates.push(rate);
            search.found(rate, rate <= limit);
        }
        (rates, search)
    }

    fn ramp(from: f64, step: f64, to: f64) -> RampArguments {
        RampArguments { from, step, to, kept: 98.0, within: 5.0 }
    }

    #[test]
    fn a_limit_is_found_within_five_percent_from_below_and_from_above() {
        for step in [25.0, 100.0, 1_000_000.0] {
            for limit in [1.0, 7.0, 101.0, 999.0, 5_000.0, 5_001.0, 6_249.0, 33_333.0, 999_999.0] {
                let (rates, found) = search(&ramp(5_000.0, step, 1e9), limit);
                let (kept, lost) = (found.kept.unwrap(), found.lost.unwrap());
                assert!(kept <= limit && limit < lost && lost <= kept * 1.05, "{step} {limit} {found:?}");
                assert!(rates.len() <= 30, "{step} {limit} {rates:?}");
            }
        }
    }

    #[test]
    fn the_largest_rate_is_tried_and_none_above_it() {
        let (rates, found) = search(&ramp(100.0, 100.0, 500.0), f64::INFINITY);
        assert_eq!((rates, found.lost), (vec![100.0, 200.0, 400.0, 500.0], None));
        assert_eq!(found.verdict(&[]), "every rate was kept; the largest was 500/s");
    }

    #[test]
    fn of_a_server_that_keeps_no_rate_the_search_ends() {
        let (rates, found) = search(&ramp(10.0, 100.0, 500.0), 0.0);
        assert_eq!((rates, found.kept), (vec![10.0, 5.0, 2.5, 1.25, 1.0], None));
    }
}
