//! Servers in turn, A B A B, on the same processor, by the same client: what is reported is ratios.
//!
//! The machine's mood changes from minute to minute; the ratio of two neighbours in time does not so much. Jeton and the baseline are
//! built by the same command in the same profile.

mod collector;
mod h2load;
mod load;
mod servers;
mod started;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use collector::Collector;
use load::Load;
use servers::Server;

use crate::{
    RunArguments,
    bounds::{self, number, whole},
    check::token_bytes,
    cpu,
    drive::{self, Pace},
    output::{Output, note},
    report::{DEBUG_BUILD, DEBUG_WARNING, Report},
};

/// `loadtest compare`
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CompareArguments {
    /// The broker's program. Default: `jeton` beside this one, built in the same profile
    #[arg(long)]
    jeton: Option<PathBuf>,
    /// How often each is measured
    #[arg(long, default_value_t = 5, value_parser = whole(bounds::ROUNDS))]
    rounds: usize,
    /// Shapes of load: connections x requests under way on each; with @RATE at a constant rate
    #[arg(long, default_values = ["10x10", "100x100", "1000x1"])]
    shape: Vec<Load>,
    /// In place of shapes: so many callers, each on a connection of its own, at half of the rate that they get from jeton when each asks
    /// again as soon as it is answered; with --floor
    #[arg(long, value_name = "CALLERS", conflicts_with = "shape", value_parser = whole(bounds::CONNECTIONS))]
    at_half: Option<usize>,
    /// Measured seconds of each
    #[arg(long, default_value_t = 4.0, value_parser = number(bounds::SECONDS))]
    seconds: f64,
    /// Bytes of each access token, at least
    #[arg(long, default_value_t = 1_600, value_parser = whole(bounds::TOKEN_BYTES))]
    token_bytes: usize,
    /// Who puts on the load
    #[arg(long, value_enum, default_value_t = Client::Own, conflicts_with = "at_half")]
    client: Client,
    /// A third side: nghttpd, a server in C, with the same bytes in a file
    #[arg(long)]
    floor: bool,
    /// A further side: jeton once more, which sends metrics, traces of each hundredth request and logs to a collector of this program
    #[arg(long)]
    telemetry: bool,
    /// The servers' processor
    #[arg(long, default_value_t = 0, value_parser = cpu::core)]
    server_core: usize,
    /// The client's processor
    #[arg(long, default_value_t = 1, value_parser = cpu::core)]
    client_core: usize,
    /// Over TLS
    #[arg(long)]
    tls: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Who puts on the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Client {
    /// This program
    Own,
    /// h2load of nghttp2, which must be installed
    H2load,
}

impl CompareArguments {
    fn program(&self) -> anyhow::Result<PathBuf> {
        let beside = || anyhow::Ok(std::env::current_exe()?.with_file_name("jeton"));
        let program = self.jeton.clone().map_or_else(beside, Ok)?;
        ensure!(
            program.exists(),
            "{} is not there: cargo build --release --workspace --bins",
            program.display()
        );
        Ok(program)
    }
}

/// How everything came out.
pub(crate) struct Comparison {
    /// In words, before the shapes.
    pub(crate) notes: Vec<String>,
    /// Jeton at its saturation, if that was asked for.
    pub(crate) saturated: Option<Report>,
    pub(crate) shapes: Vec<Shape>,
}

/// How one shape came out: jeton's rounds, and those of the others.
pub(crate) struct Shape {
    /// As it was asked for.
    text: String,
    pub(crate) jeton: Vec<Report>,
    pub(crate) others: Vec<Vec<Report>>,
}

/// The servers, and what they answer.
struct Sides<'a> {
    arguments: &'a CompareArguments,
    folder: &'a Path,
    jeton: Server,
    others: Vec<Server>,
    collector: Option<Collector>,
    answer_bytes: usize,
    token_bytes: usize,
}

/// Measures everything.
pub(crate) fn run(arguments: &CompareArguments) -> anyhow::Result<Comparison> {
    let rated = arguments.shape.iter().find(|load| load.pace != Pace::Closed);
    if let Some(load) = rated.filter(|_| arguments.client == Client::H2load) {
        bail!("--shape {load}: h2load keeps no rate over all connections; leave @RATE away");
    }
    if DEBUG_BUILD {
        note(DEBUG_WARNING);
    }
    let folder = tempfile::Builder::new().prefix("loadtest-").tempdir().context("a temporary folder")?;
    started::end_with_a_signal(folder.path().to_owned())?;
    start(arguments, folder.path()).and_then(|sides| sides.measure())
}

fn start<'a>(arguments: &'a CompareArguments, folder: &'a Path) -> anyhow::Result<Sides<'a>> {
    let jeton = servers::broker(arguments, folder, None)?;
    let answer = drive::one_answer(&jeton.target)?;
    let token_bytes = token_bytes(&answer);
    let mut others = vec![servers::baseline(arguments, folder, &jeton.target, token_bytes)?];
    if arguments.floor || arguments.at_half.is_some() {
        others.push(servers::floor(arguments, folder, &jeton.target, &answer)?);
    }
    let collector = arguments.telemetry.then(Collector::start).transpose()?;
    if let Some(collector) = &collector {
        others.push(servers::broker(arguments, folder, Some(collector))?);
    }
    let mut answer_bytes = answer.len();
    for server in &others {
        // The least of all, for who sees no more of an answer than its size.
        answer_bytes = drive::one_answer(&server.target).context(server.name)?.len().min(answer_bytes);
    }
    Ok(Sides { arguments, folder, jeton, others, collector, answer_bytes, token_bytes })
}

impl Sides<'_> {
    fn measure(&self) -> anyhow::Result<Comparison> {
        let mut notes = vec![format!("access tokens of {} bytes from each server", self.token_bytes)];
        let (mut loads, mut saturated) = (self.arguments.shape.clone(), None);
        if let Some(connections) = self.arguments.at_half {
            let all = Load { connections, streams: 1, pace: Pace::Closed };
            let mut most = self.round(&all, &self.jeton)?;
            ensure!(most.throughput > 0.0, "jeton answered nobody");
            notes.push(format!(
                "jeton answers {connections} callers {:.0}/s, each asking again at once; at the limit: {}; below is half of that",
                most.throughput,
                most.saturated.as_str()
            ));
            let half = (most.throughput / 2.0).round().clamp(*bounds::RATE.start(), *bounds::RATE.end());
            loads = vec![Load { pace: Pace::Rate(half), ..all }];
            most.name.push_str(", saturated");
            saturated = Some(most);
        }
        let shapes = loads.iter().map(|load| self.shape(load)).collect::<Result<_, _>>()?;
        self.collector.iter().try_for_each(Collector::check)?;
        Ok(Comparison { notes, saturated, shapes })
    }

    fn shape(&self, load: &Load) -> anyhow::Result<Shape> {
        let mut shape = Shape {
            text: load.to_string(),
            jeton: vec![],
            others: self.others.iter().map(|_| vec![]).collect(),
        };
        for round in 1..=self.arguments.rounds {
            let others = self.others.iter().zip(&mut shape.others);
            for (server, reports) in others.chain([(&self.jeton, &mut shape.jeton)]) {
                let report = self.round(load, server)?;
                note(&format!(
                    "{load} round {round}: {}: {:.0}/s, {:.2} us of processor time a request",
                    server.name,
                    report.throughput,
                    report.server_cpu_per_request.unwrap_or(f64::NAN)
                ));
                reports.push(report);
            }
        }
        Ok(shape)
    }

    fn round(&self, load: &Load, server: &Server) -> anyhow::Result<Report> {
        let &Load { connections, streams, pace } = load;
        if self.arguments.client == Client::H2load {
            let plan = h2load::Plan {
                connections,
                streams,
                seconds: self.arguments.seconds,
                core: self.arguments.client_core,
                folder: self.folder,
                answer_bytes: self.answer_bytes,
                token_bytes: self.token_bytes,
            };
            return h2load::measure(server, &plan);
        }
        let run = RunArguments {
            connections,
            streams,
            core: vec![self.arguments.client_core],
            warmup: 1.0,
            seconds: self.arguments.seconds,
            quiet: true,
            ..RunArguments::default()
        };
        crate::measure(server.name, &server.target, &run, pace)
    }
}

/// The median, and the least and the largest.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() {
        0 => f64::NAN,
        n if n % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    };
    (median, values.first().copied().unwrap_or(f64::NAN), values.last().copied().unwrap_or(f64::NAN))
}

impl Comparison {
    /// All measurements, in the order in which they were taken as far as the shapes go.
    pub(crate) fn reports(self) -> Vec<Report> {
        let shapes = self.shapes.into_iter().flat_map(|s| s.others.into_iter().flatten().chain(s.jeton));
        self.saturated.into_iter().chain(shapes).collect()
    }

    /// Requests that failed.
    pub(crate) fn failed(&self) -> u64 {
        let rounds = self.shapes.iter().flat_map(|s| s.others.iter().flatten().chain(&s.jeton));
        rounds.chain(&self.saturated).map(Report::failed).sum()
    }

    /// What was found before, and a line for each shape and each other server.
    pub(crate) fn lines(&self) -> Vec<String> {
        let ratios =
            self.shapes.iter().flat_map(|s| s.others.iter().map(|other| line(&s.text, &s.jeton, other)));
        self.notes.iter().cloned().chain(ratios).collect()
    }
}

/// How many times less processor time, how many times more answers, and the latencies; medians of the rounds, least and largest.
fn line(shape: &str, jeton: &[Report], other: &[Report]) -> String {
    let name = other.first().map_or("", |r| r.name.as_str());
    let shown = |values: Vec<f64>| {
        let (median, least, most) = spread(values);
        format!("{median:.2} ({least:.2} to {most:.2})")
    };
    let pairs = || jeton.iter().zip(other);
    let cpu = pairs().filter_map(|(j, o)| Some(o.server_cpu_per_request? / j.server_cpu_per_request?));
    let of = |value: fn(&Report) -> f64| shown(pairs().map(|(j, o)| value(j) / value(o)).collect());
    // h2load tells no percentiles.
    let known = pairs().all(|(j, o)| j.latency.p50.is_finite() && o.latency.p50.is_finite());
    let latency = if known {
        format!("; latency, jeton / {name}: p50 {}, p99 {}", of(|r| r.latency.p50), of(|r| r.latency.p99))
    } else {
        String::new()
    };
    let failed = |reports: &[Report]| reports.iter().map(Report::failed).sum::<u64>();
    format!(
        "{shape}: processor time a request, {name} / jeton: {}; answers a second, jeton / {name}: {}{latency}; errors: {name} {}, \
         jeton {}; at the limit: {name}: {}, jeton: {}",
        shown(cpu.collect()),
        of(|r| r.throughput),
        failed(other),
        failed(jeton),
        limits(other),
        limits(jeton),
    )
}

/// Who was at the limit, in each round or in some.
fn limits(reports: &[Report]) -> String {
    let mut found: Vec<_> = reports.iter().map(|r| r.saturated.as_str()).collect();
    found.sort_unstable();
    found.dedup();
    found.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(spread(vec![4.0, 1.0, 3.0, 2.0]), (2.5, 1.0, 4.0));
        assert_eq!(spread(vec![9.0]), (9.0, 9.0, 9.0));
    }
}
