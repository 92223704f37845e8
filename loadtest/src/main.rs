//! Load on a broker, and what it says.

mod baseline;
mod bounds;
mod check;
mod compare;
mod cpu;
mod drive;
mod html;
mod listener;
mod output;
mod ramp;
mod record;
mod report;
mod target;
mod wire;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    bounds::{number, whole},
    drive::{Pace, Plan},
    output::{Output, say},
    report::{Report, ServerUse},
    target::{Target, TargetArguments},
};

#[derive(Debug, Parser)]
#[command(
    about = "Load on a broker: constant rates, closed loops, ramps, comparisons with a baseline",
    version
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Puts load on a running broker
    Run {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        run: RunArguments,
        /// Requests a second at a constant rate; without it each connection sends its next request when one is answered
        #[arg(long, short, value_parser = number(bounds::RATE))]
        rate: Option<f64>,
        #[command(flatten)]
        output: Output,
    },
    /// Raises the rate until the server does not follow, and says where that was
    Ramp {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        run: RunArguments,
        #[command(flatten)]
        ramp: ramp::RampArguments,
        #[command(flatten)]
        output: Output,
    },
    /// Measures stock tonic and jeton in turn, and prints ratios
    Compare(compare::CompareArguments),
    /// Runs the server that `compare` compares with: stock tonic and moka
    Baseline(baseline::BaselineArguments),
}

/// How much load, for how long.
#[derive(Debug, Clone, clap::Args)]
struct RunArguments {
    /// Connections
    #[arg(long, short, default_value_t = 50, value_parser = whole(bounds::CONNECTIONS))]
    connections: usize,
    /// Requests under way on each connection, at most
    #[arg(long, short = 'm', default_value_t = 1, value_parser = whole(bounds::STREAMS))]
    streams: usize,
    /// Threads of the generator
    #[arg(long, default_value_t = 1, value_parser = whole(bounds::THREADS))]
    threads: usize,
    /// A processor for the generator's threads; repeat it for several
    #[arg(long, value_parser = cpu::core)]
    core: Vec<usize>,
    /// Seconds before anything is measured
    #[arg(long, default_value_t = 2.0, value_parser = number(bounds::MOMENT))]
    warmup: f64,
    /// Seconds that are measured
    #[arg(long, short, default_value_t = 10.0, value_parser = number(bounds::SECONDS))]
    seconds: f64,
    /// Seeds the mix of what is asked
    #[arg(long, default_value_t = 1, value_parser = whole(0..=u64::MAX))]
    seed: u64,
    /// No progress bar
    #[arg(long, short)]
    quiet: bool,
}

impl Default for RunArguments {
    fn default() -> Self {
        Self {
            connections: 50,
            streams: 1,
            threads: 1,
            core: vec![],
            warmup: 2.0,
            seconds: 10.0,
            seed: 1,
            quiet: false,
        }
    }
}

fn main() -> anyhow::Result<()> {
    raise_descriptor_limit();
    match arguments().command {
        Command::Run { target, run, rate, output } => {
            output.check()?;
            let pace = rate.map_or(Pace::Closed, Pace::Rate);
            let report = measure("run", &target.resolve()?, &run, pace)?;
            let failed = report.failed();
            finish(&output, "Load on a broker", &[], &[report])?;
            anyhow::ensure!(failed == 0, "{failed} requests failed");
            Ok(())
        }
        Command::Ramp { target, run, ramp, output } => {
            output.check()?;
            let (reports, verdict) = ramp::run(&target.resolve()?, &run, &ramp)?;
            finish(&output, "A ramp to saturation", &[verdict], &reports)
        }
        Command::Compare(arguments) => {
            arguments.output.check()?;
            let comparison = compare::run(&arguments)?;
            let (lines, failed) = (comparison.lines(), comparison.failed());
            finish(&arguments.output, "jeton and other servers", &lines, &comparison.reports())?;
            anyhow::ensure!(failed == 0, "{failed} requests failed");
            Ok(())
        }
        Command::Baseline(arguments) => baseline::run(&arguments),
    }
}

/// Ends the process where they are not understood.
fn arguments() -> Arguments {
    // A number below 0 is told as one that is not allowed, and not as an option that there is none of.
    let negative = |arg: clap::Arg| {
        let takes = arg.get_action().takes_values();
        arg.allow_negative_numbers(takes)
    };
    let command = Arguments::command().mut_subcommands(|command| command.mut_args(negative));
    Arguments::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

/// Reports in the terminal, and wherever else they are wanted.
fn finish(output: &Output, title: &str, notes: &[String], reports: &[Report]) -> anyhow::Result<()> {
    let lines: String = notes.iter().map(|note| format!("{note}\n")).collect();
    say(&format!("{}{lines}", report::table(reports)))?;
    output.write(title, notes, reports)
}

/// One measurement of a running server.
fn measure(name: &str, target: &Target, run: &RunArguments, pace: Pace) -> anyhow::Result<Report> {
    bounds::together(run)?;
    let plan = Plan {
        connections: run.connections,
        streams: run.streams,
        pace,
        threads: run.threads,
        cores: run.core.clone(),
        warmup: Duration::from_secs_f64(run.warmup),
        duration: Duration::from_secs_f64(run.seconds),
        seed: run.seed,
        progress: Arc::new(AtomicU64::new(0)),
        stage: Arc::new(drive::Stage::default()),
    };
    let (record, server) = std::thread::scope(|scope| -> anyhow::Result<_> {
        let watching = scope.spawn(|| watch(name, target, &plan, run.quiet));
        let record = drive::run(target, &plan);
        plan.stage.finish();
        let server = watching.join().expect("the watching thread does not panic");
        Ok((record?, server))
    })?;
    Ok(Report::new(name, &plan, &record, server.as_ref()))
}

/// Shows progress, and looks at the server's processor time at both ends of the measurement.
fn watch(name: &str, target: &Target, plan: &Plan, quiet: bool) -> Option<ServerUse> {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(plan.duration.as_secs().max(1)) };
    if let Ok(style) = ProgressStyle::with_template("{msg:30} {bar:40} {pos}/{len} s") {
        bar.set_style(style);
    }
    bar.set_message(format!("{name}: connecting, warming up"));
    let look = || target.pid.and_then(|pid| cpu::used(pid).ok());
    let before = plan.stage.begun().then(look).flatten();
    let start = Instant::now();
    let mut answered = plan.progress.load(Relaxed);
    while start.elapsed() < plan.duration && !plan.stage.finished() {
        std::thread::sleep((plan.duration - start.elapsed().min(plan.duration)).min(Duration::from_secs(1)));
        let now = plan.progress.load(Relaxed);
        bar.set_position(start.elapsed().as_secs());
        bar.set_message(format!("{name}: {}/s", now - answered));
        answered = now;
    }
    let (after, watched) = (look(), start.elapsed());
    bar.finish_and_clear();
    let pid = target.pid?;
    Some(ServerUse {
        watched,
        threads: after?.since(&before?),
        cores: cpu::allowed(pid).unwrap_or(1),
        resident: cpu::resident(pid),
    })
}

/// Thousands of connections need as many descriptors.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is not allowed, connecting says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
