//! A collector that takes whatever telemetry it is sent, by OTLP over HTTP/1.1, and keeps no more than what kinds it got.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;

/// The most of a request that is read: what a broker sends is a small part of it.
const MAX_BODY: u64 = 64 * 1_024 * 1_024;

/// How long what the broker has yet to send is waited for: several times the second after which it sends.
const PATIENCE: Duration = Duration::from_secs(30);

/// Listens as long as the program runs.
pub(super) struct Collector {
    address: SocketAddr,
    got: Arc<[Signal; 2]>,
}

struct Signal {
    path: &'static str,
    requests: AtomicU64,
}

impl Collector {
    pub(super) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let got = Arc::new(["/v1/metrics", "/v1/traces"].map(|path| Signal { path, requests: 0.into() }));
        let counted = Arc::clone(&got);
        thread::Builder::new().name("collector".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                // A peer that says what is no request is left.
                let serve = move || drop(serve(&stream, counted.as_slice()));
                drop(thread::Builder::new().name("collected".into()).spawn(serve));
            }
        })?;
        Ok(Self { address, got })
    }

    /// OpenTelemetry's variables for a program that sends everything here each second: metrics, a trace of each hundredth request, logs.
    pub(super) fn variables(&self) -> [(&'static str, String); 9] {
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", self.address)),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".into()),
            ("OTEL_METRICS_EXPORTER", "otlp".into()),
            ("OTEL_TRACES_EXPORTER", "otlp".into()),
            ("OTEL_LOGS_EXPORTER", "otlp".into()),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1000".into()),
            ("OTEL_BSP_SCHEDULE_DELAY", "1000".into()),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".into()),
            ("OTEL_TRACES_SAMPLER_ARG", "0.01".into()),
        ]
    }

    /// Fails if something did not arrive: then its cost was not measured. Logs need not, where nothing happens.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        for signal in self.got.iter() {
            while signal.requests.load(Relaxed) == 0 {
                ensure!(start.elapsed() < PATIENCE, "the broker sent nothing to {}", signal.path);
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}

/// One connection, to its end.
fn serve(stream: &TcpStream, got: &[Signal]) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut (&mut reader).take(length.min(MAX_BODY)), &mut std::io::sink())?;
        if let Some(signal) = got.iter().find(|signal| signal.path == path) {
            signal.requests.fetch_add(1, Relaxed);
        }
        // An empty answer is one in which nothing was refused (OTLP specification, "OTLP/HTTP Response").
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        (&*stream).write_all(answer.as_bytes())?;
    }
}
