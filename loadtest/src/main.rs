//! Load on a broker, and what it says.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

mod baseline;
mod check;
mod compare;
mod cpu;
mod drive;
mod html;
mod listener;
mod ramp;
mod record;
mod report;
mod target;
mod wire;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    drive::{Pace, Plan},
    report::{Report, ServerUse},
    target::{Target, TargetArguments},
};

/// What a process has open beside its connections.
const OTHER_FILES: u64 = 64;

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
    #[arg(long, short, default_value_t = 50)]
    connections: usize,
    /// Requests under way on each connection, at most
    #[arg(long, short = 'm', default_value_t = 1)]
    streams: usize,
    /// Requests a second at a constant rate; without it each connection sends its next request when one is answered
    #[arg(long, short)]
    rate: Option<f64>,
    /// Threads of the generator
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// A processor for the generator's threads; repeat it for several
    #[arg(long)]
    core: Vec<usize>,
    /// Seconds before anything is measured
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    /// Seconds that are measured
    #[arg(long, short, default_value_t = 10.0)]
    seconds: f64,
    /// Seeds the mix of what is asked
    #[arg(long, default_value_t = 1)]
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
            rate: None,
            threads: 1,
            core: vec![],
            warmup: 2.0,
            seconds: 10.0,
            seed: 1,
            quiet: false,
        }
    }
}

/// Where reports go beside the terminal.
#[derive(Debug, Clone, clap::Args)]
struct Output {
    /// Write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    raise_descriptor_limit();
    match Arguments::parse().command {
        Command::Run { target, run, output } => {
            let report = measure("run", &target.resolve()?, &run)?;
            print!("{}", report::table(std::slice::from_ref(&report)));
            let failed = report.failed();
            output.write("Load on a broker", &[], &[report])?;
            anyhow::ensure!(failed == 0, "{failed} requests failed");
            Ok(())
        }
        Command::Ramp { target, run, ramp, output } => {
            let (reports, verdict) = ramp::run(&target.resolve()?, &run, &ramp)?;
            println!("{}{verdict}", report::table(&reports));
            output.write("A ramp to saturation", &[verdict], &reports)
        }
        Command::Compare(arguments) => {
            let comparison = compare::run(&arguments)?;
            let (lines, failed) = (comparison.lines(), comparison.failed());
            let reports = comparison.reports();
            println!("{}\n{}", report::table(&reports), lines.join("\n"));
            let output = Output { json: arguments.json, html: arguments.html };
            output.write("jeton and other servers", &lines, &reports)?;
            anyhow::ensure!(failed == 0, "{failed} requests failed");
            Ok(())
        }
        Command::Baseline(arguments) => baseline::run(&arguments),
    }
}

impl Output {
    fn write(&self, title: &str, notes: &[String], reports: &[Report]) -> anyhow::Result<()> {
        let put = |path: &Path, text: String| {
            fs::write(path, text).with_context(|| format!("writing {}", path.display()))
        };
        if let Some(path) = &self.json {
            put(path, serde_json::to_string_pretty(reports)?)?;
        }
        if let Some(path) = &self.html {
            put(path, html::page(title, notes, reports))?;
        }
        Ok(())
    }
}

/// One measurement of a running server.
fn measure(name: &str, target: &Target, run: &RunArguments) -> anyhow::Result<Report> {
    anyhow::ensure!(
        run.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0),
        "--rate must be a number above 0"
    );
    anyhow::ensure!(
        run.connections > 0
            && run.streams > 0
            && run.threads > 0
            && (0.001..=86_400.0).contains(&run.seconds)
            && (0.0..=86_400.0).contains(&run.warmup),
        "connections, streams, threads and seconds must be more than 0, seconds and warm-up at most a day"
    );
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    anyhow::ensure!(
        files.is_none_or(|most| run.connections as u64 + OTHER_FILES <= most),
        "{} connections need {} open files, and a process may have {} here: raise it with ulimit -n",
        run.connections,
        run.connections as u64 + OTHER_FILES,
        files.unwrap_or_default()
    );
    let plan = Plan {
        connections: run.connections,
        streams: run.streams,
        pace: run.rate.map_or(Pace::Closed, Pace::Rate),
        threads: run.threads.min(run.connections),
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
