//! Where a server's limit is: rates that rise until one is not kept.

use crate::{
    RunArguments,
    report::{Report, Saturated},
    target::Target,
};

/// How to look for it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RampArguments {
    /// The first rate
    #[arg(long, default_value_t = 5_000.0)]
    pub(crate) from: f64,
    /// How much each rate is above the one before, in percent
    #[arg(long, default_value_t = 25.0)]
    pub(crate) step: f64,
    /// The largest rate that is tried
    #[arg(long, default_value_t = 1_000_000.0)]
    pub(crate) to: f64,
    /// A rate counts as kept if this part of it is answered, in percent
    #[arg(long, default_value_t = 98.0)]
    pub(crate) kept: f64,
}

/// Measures rate after rate; the last one was not kept.
pub(crate) fn run(
    target: &Target,
    run: &RunArguments,
    ramp: &RampArguments,
) -> anyhow::Result<(Vec<Report>, String)> {
    anyhow::ensure!(ramp.from > 0.0 && ramp.step > 0.0, "--from and --step must be more than 0");
    let mut reports: Vec<Report> = vec![];
    let mut rate = ramp.from;
    while rate <= ramp.to {
        let run = RunArguments { rate: Some(rate), ..run.clone() };
        let report = crate::measure(&format!("{rate:.0}/s"), target, &run)?;
        let kept = report.throughput >= rate * ramp.kept / 100.0 && report.failed() == 0;
        reports.push(report);
        if !kept {
            break;
        }
        rate *= 1.0 + ramp.step / 100.0;
    }
    let verdict = verdict(&reports, ramp);
    Ok((reports, verdict))
}

fn verdict(reports: &[Report], ramp: &RampArguments) -> String {
    let kept = |r: &Report| r.throughput >= r.rate.unwrap_or(0.0) * ramp.kept / 100.0 && r.failed() == 0;
    let best = reports.iter().filter(|r| kept(r)).filter_map(|r| r.rate).fold(0.0, f64::max);
    match reports.last() {
        Some(last) if !kept(last) => {
            let who = match last.saturated {
                Saturated::Server => "the server is at its limit",
                Saturated::Generator => "the generator is at its limit, not the server: give it more threads",
                Saturated::Both => "server and generator are both at their limits",
                Saturated::Neither => {
                    "neither server nor generator is at its limit: look at the errors and at the connections"
                }
                Saturated::NotGenerator => {
                    "the generator is not at its limit; of the server's process nothing is known"
                }
            };
            format!("kept: {best:.0}/s; not kept: {:.0}/s ({who})", last.rate.unwrap_or(0.0))
        }
        _ => format!("every rate was kept; the largest was {best:.0}/s"),
    }
}
