//! Two servers in turn, A B A B, on the same processors, by the same client: what is reported is ratios.
//!
//! The machine's mood changes from minute to minute; the ratio of two neighbours in time does not so much. Both servers are built by the
//! same command in the same profile.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{
    RunArguments, cpu,
    drive::Pace,
    report::Report,
    target::{Address, Target, TargetArguments},
};

/// `loadtest compare`
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CompareArguments {
    /// The broker's program
    #[arg(long, default_value = "target/release/jeton")]
    pub(crate) jeton: PathBuf,
    /// How often each is measured
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Shapes of load: connections x requests under way on each; with @RATE at a constant rate
    #[arg(long, default_values = ["10x10", "100x100", "1000x1"])]
    pub(crate) shape: Vec<String>,
    /// Measured seconds of each
    #[arg(long, default_value_t = 4.0)]
    pub(crate) seconds: f64,
    /// The servers' processor
    #[arg(long, default_value_t = 0)]
    pub(crate) server_core: usize,
    /// The client's processor
    #[arg(long, default_value_t = 1)]
    pub(crate) client_core: usize,
    /// Over TLS
    #[arg(long)]
    pub(crate) tls: bool,
    /// Write all measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// A server that ends with this value.
struct Server {
    child: Child,
    target: Target,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How one shape came out: both sides, round by round.
pub(crate) struct Shape {
    /// As it was asked for.
    pub(crate) text: String,
    /// The baseline's rounds.
    pub(crate) baseline: Vec<Report>,
    /// Ours.
    pub(crate) jeton: Vec<Report>,
}

/// Measures everything.
pub(crate) fn run(arguments: &CompareArguments) -> anyhow::Result<Vec<Shape>> {
    let folder = std::env::temp_dir().join(format!("loadtest-{}", std::process::id()));
    let outcome = measure(arguments, &folder);
    // A temporary folder; what is left of it harms nobody.
    let _ = fs::remove_dir_all(&folder);
    outcome
}

fn measure(arguments: &CompareArguments, folder: &Path) -> anyhow::Result<Vec<Shape>> {
    ensure!(
        arguments.jeton.exists(),
        "{} is not there: cargo build --release --workspace --bins",
        arguments.jeton.display()
    );
    let jeton = broker(arguments, folder)?;
    let baseline = baseline(arguments, folder, &jeton)?;
    let mut shapes = vec![];
    for text in &arguments.shape {
        let mut shape = Shape { text: text.clone(), baseline: vec![], jeton: vec![] };
        for round in 0..arguments.rounds {
            for (name, server, reports) in
                [("stock tonic", &baseline, &mut shape.baseline), ("jeton", &jeton, &mut shape.jeton)]
            {
                let report = round_of(arguments, text, name, server)?;
                eprintln!(
                    "{text} round {}: {name}: {:.0}/s, {:.2} us of processor time a request",
                    round + 1,
                    report.throughput,
                    report.server_cpu_per_request.unwrap_or(f64::NAN)
                );
                reports.push(report);
            }
        }
        shapes.push(shape);
    }
    Ok(shapes)
}

fn round_of(
    arguments: &CompareArguments,
    shape: &str,
    name: &str,
    server: &Server,
) -> anyhow::Result<Report> {
    let (connections, streams, pace) = parse(shape)?;
    let run = RunArguments {
        connections,
        streams,
        rate: match pace {
            Pace::Rate(rate) => Some(rate),
            Pace::Closed => None,
        },
        threads: 1,
        core: vec![arguments.client_core],
        warmup: 1.0,
        seconds: arguments.seconds,
        quiet: true,
        ..RunArguments::default()
    };
    crate::measure(name, &server.target, &run)
}

/// `10x10`, `1000x1@20000`.
pub(crate) fn parse(shape: &str) -> anyhow::Result<(usize, usize, Pace)> {
    let context = || {
        format!("{shape:?} is no shape: write CONNECTIONSxREQUESTS, and @RATE behind it for a constant rate")
    };
    let (size, rate) = shape.split_once('@').map_or((shape, None), |(size, rate)| (size, Some(rate)));
    let (connections, streams) = size.split_once('x').with_context(context)?;
    let pace = match rate {
        Some(rate) => Pace::Rate(rate.parse().with_context(context)?),
        None => Pace::Closed,
    };
    Ok((connections.parse().with_context(context)?, streams.parse().with_context(context)?, pace))
}

fn spawn(command: &mut Command, core: usize) -> anyhow::Result<Child> {
    // Children inherit the processors of the thread that starts them.
    cpu::pin(None, &[core])?;
    let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("starting {command:?}"));
    let all: Vec<_> =
        (0..std::thread::available_parallelism().map_or(1, usize::from).max(core + 1)).collect();
    cpu::pin(None, &all).or_else(|_| cpu::pin(None, &[core]))?;
    child
}

fn broker(arguments: &CompareArguments, folder: &Path) -> anyhow::Result<Server> {
    fs::create_dir_all(folder)?;
    let data_dir = folder.join("jeton");
    let mut command = Command::new(&arguments.jeton);
    command.arg("dev").arg("--free-ports").arg("--data-dir").arg(&data_dir);
    command.args(arguments.tls.then_some("--tls"));
    let log = fs::File::create(folder.join("jeton.log"))?;
    command.stdout(log.try_clone()?).stderr(log);
    let mut child = spawn(&mut command, arguments.server_core)?;
    let endpoints = data_dir.join("endpoints.json");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !endpoints.exists() {
        if let Some(status) = child.try_wait()? {
            let log = fs::read_to_string(folder.join("jeton.log")).unwrap_or_default();
            anyhow::bail!("jeton ended ({status}):\n{log}");
        }
        ensure!(Instant::now() < deadline, "jeton does not start within 60 s");
        std::thread::sleep(Duration::from_millis(50));
    }
    let wanted = TargetArguments {
        ca: arguments.tls.then(|| data_dir.join("grpc-ca.pem")),
        ..TargetArguments::of(data_dir)
    };
    Ok(Server { child, target: wanted.resolve()? })
}

fn baseline(arguments: &CompareArguments, folder: &Path, jeton: &Server) -> anyhow::Result<Server> {
    // Both hand out tokens of the same size.
    let look =
        RunArguments { connections: 1, warmup: 0.0, seconds: 0.5, quiet: true, ..RunArguments::default() };
    let token_bytes = crate::measure("jeton", &jeton.target, &look)?.token_bytes;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["baseline", "--token-bytes"]).arg(token_bytes.to_string());
    for ask in &jeton.target.asks {
        command.args(["--identity", &ask.identity]);
    }
    command.args(["--scope", jeton.target.scopes.first().context("no scope")?]);
    if arguments.tls {
        let data = folder.join("jeton");
        command
            .arg("--cert")
            .arg(data.join("grpc-server.pem"))
            .arg("--key")
            .arg(data.join("grpc-server.key"));
    }
    command.stdout(Stdio::piped());
    let mut child = spawn(&mut command, arguments.server_core)?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
    let mut target = jeton.target.clone();
    target.address = Address::Tcp(line.trim().to_owned());
    target.pid = Some(child.id());
    // Its tokens are no JWTs; that each is of the identity asked for is checked all the same.
    target.asks.iter_mut().for_each(|ask| ask.client_id = None);
    Ok(Server { child, target })
}

/// The median, and the least and the largest.
pub(crate) fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() {
        0 => f64::NAN,
        n if n % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    };
    (median, values.first().copied().unwrap_or(f64::NAN), values.last().copied().unwrap_or(f64::NAN))
}

/// A line for each shape: how many times less processor time, how many times more answers, and the latencies.
pub(crate) fn lines(shapes: &[Shape]) -> Vec<String> {
    let line = |shape: &Shape| {
        let pairs = || shape.baseline.iter().zip(&shape.jeton);
        let shown = |(median, least, most): (f64, f64, f64)| format!("{median:.2} ({least:.2} to {most:.2})");
        let cpu = pairs().filter_map(|(b, j)| Some(b.server_cpu_per_request? / j.server_cpu_per_request?));
        let rate = pairs().map(|(b, j)| j.throughput / b.throughput);
        let of = |value: fn(&Report) -> f64| spread(pairs().map(|(b, j)| value(j) / value(b)).collect());
        format!(
            "{}: processor time a request, stock tonic / jeton: {}; answers a second, jeton / stock tonic: {}; \
             latency, jeton / stock tonic: p50 {}, p99 {}; errors: {} and {}",
            shape.text,
            shown(spread(cpu.collect())),
            shown(spread(rate.collect())),
            shown(of(|r| r.latency.p50)),
            shown(of(|r| r.latency.p99)),
            shape.baseline.iter().map(Report::failed).sum::<u64>(),
            shape.jeton.iter().map(Report::failed).sum::<u64>(),
        )
    };
    shapes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_connections_requests_and_perhaps_a_rate() {
        assert_eq!(parse("10x20").unwrap(), (10, 20, Pace::Closed));
        assert_eq!(parse("1000x1@2500").unwrap(), (1_000, 1, Pace::Rate(2_500.0)));
        assert!(parse("10").is_err() && parse("axb").is_err());
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(spread(vec![4.0, 1.0, 3.0, 2.0]), (2.5, 1.0, 4.0));
        assert_eq!(spread(vec![9.0]), (9.0, 9.0, 9.0));
    }
}
