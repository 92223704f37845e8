//! Exports of one signal: repeated where that helps, counted, and told of when it fails and when it works again.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use jeton_core::metrics::Counter;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    environment::{Otlp, Protocol},
    transport::{Export, Transport},
};
use crate::Signal;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// No collector holds a signal back for longer: a mistaken answer must not silence it for hours.
const LONGEST_HOLD: Duration = Duration::from_secs(300);

/// What became of a signal's exports.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) ok: Counter,
    pub(crate) failed: Counter,
    /// Spans or log records that did not go out: there was no room, or the collector did not take them.
    pub(crate) dropped: Counter,
    /// Whether the last one failed, which is said once, whatever number of tasks export a signal.
    failing: AtomicBool,
    /// Until when the collector asked to be left alone, by every task that exports the signal.
    held: Mutex<Option<Instant>>,
}

pub(crate) struct Exporter {
    transport: Transport,
    otlp: Otlp,
    counts: Arc<Counts>,
    stop: CancellationToken,
}

impl Counts {
    fn hold(&self, after: Duration) {
        let until = Instant::now() + after.min(LONGEST_HOLD);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = (*held).max(Some(until));
    }

    /// The end of the hold in force.
    fn held(&self) -> Option<Instant> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.filter(|until| *until > Instant::now())
    }
}

impl Exporter {
    /// None: there is no way to a collector, which the log says.
    pub(crate) fn new(otlp: Otlp, counts: Arc<Counts>, stop: CancellationToken) -> Option<Self> {
        let signal = otlp.signal.as_str();
        match Transport::new(otlp.clone()) {
            Ok(transport) => Some(Self { transport, otlp, counts, stop }),
            Err(error) => {
                if counts.failing.swap(true, Relaxed) {
                    return None;
                }
                tracing::error!(signal, %error, "a signal is exported nowhere: mend the exporter's settings or OpenTelemetry's variables, and start again");
                None
            }
        }
    }

    /// Waits while the collector asks to be left alone. False: it still does, and we stop.
    pub(crate) async fn may_send(&self) -> bool {
        while let Some(until) = self.counts.held() {
            if self.stop.run_until_cancelled(sleep_until(until)).await.is_none() {
                return false;
            }
        }
        true
    }

    /// Sends it, once the collector lets us; whether it arrived.
    pub(crate) async fn export(&self, message: &impl Export) -> bool {
        let sent = self.send(message).await;
        if sent.is_ok() { &self.counts.ok } else { &self.counts.failed }.add();
        let signal = self.otlp.signal.as_str();
        let endpoint = self.endpoint();
        match (&sent, self.counts.failing.swap(sent.is_err(), Relaxed)) {
            (Err(error), false) => {
                let then = self.after_failure();
                tracing::warn!(signal, endpoint, %error, "a signal does not reach its collector; {then}, look after the collector");
            }
            (Ok(()), true) => tracing::info!(signal, endpoint, "a signal reaches its collector again"),
            _ => {}
        }
        sent.is_ok()
    }

    fn after_failure(&self) -> &'static str {
        match self.otlp.signal {
            Signal::Metrics if self.stop.is_cancelled() => "this last push is lost",
            Signal::Metrics => "it is tried again at the next interval",
            Signal::Traces | Signal::Logs => "this batch is lost (jeton.telemetry.dropped counts what is)",
        }
    }

    /// For the log: without what may be a secret in it.
    fn endpoint(&self) -> String {
        let url = &self.otlp.endpoint;
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(0));
        let path = if self.otlp.protocol == Protocol::Grpc { "" } else { url.path() };
        format!("{}://{host}:{port}{path}", url.scheme())
    }

    /// Repeats what may be repeated, until the time of an export is over.
    async fn send(&self, message: &impl Export) -> Result<(), String> {
        if !self.may_send().await {
            return Err("the collector asked to be left alone for longer than the stop may take".into());
        }
        let (end, mut pause) = (Instant::now() + self.otlp.export_timeout, FIRST_PAUSE);
        loop {
            let Err(error) = self.transport.send(message, end).await else { return Ok(()) };
            if let Some(after) = error.after.filter(|_| error.again) {
                self.counts.hold(after);
            }
            let again_at = Some(Instant::now() + pause).max(self.counts.held());
            if !error.again || again_at >= Some(end) {
                return Err(error.message);
            }
            tracing::debug!(signal = self.otlp.signal.as_str(), %error, "an export is repeated");
            tokio::time::sleep(pause).await;
            if !self.may_send().await {
                return Err(error.message);
            }
            pause *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use axum::Router;
    use http::StatusCode;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use tokio::net::TcpListener;
    use tracing_subscriber::fmt;

    use super::*;
    use crate::{Environment, OtlpSettings};

    #[tokio::test(start_paused = true)]
    async fn a_signal_is_held_back_for_as_long_as_its_collector_asks_and_for_five_minutes_at_most() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
        let exports = Environment::of([endpoint]).exports(&OtlpSettings::default());
        let otlp = exports.traces.clone().unwrap();
        let (counts, stop) = (exports.counts(otlp.signal), CancellationToken::new());
        let exporter = Exporter::new(otlp, Arc::clone(&counts), stop.clone()).unwrap();
        for (asked, waited) in [(0, 0), (40, 40), (86_400, 300), (u64::MAX, 300)] {
            let begun = Instant::now();
            counts.hold(Duration::from_secs(asked));
            counts.hold(Duration::ZERO);
            assert!(exporter.may_send().await);
            // The runtime's timer counts milliseconds.
            assert_eq!(begun.elapsed().as_secs(), waited, "{asked}");
        }
        counts.hold(LONGEST_HOLD);
        stop.cancel();
        let begun = Instant::now();
        assert!(!exporter.may_send().await);
        assert_eq!(begun.elapsed(), Duration::ZERO, "a stop does not wait");
    }

    /// What the log says.
    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Said {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_failure_names_the_endpoint_without_a_secret_and_says_it_is_tried_again_only_where_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().fallback(|| std::future::ready(StatusCode::BAD_REQUEST));
        let server = tokio::spawn(axum::serve(listener, routes).into_future());
        let url = format!("http://canary:canary@{address}/write/here?canary=canary#canary");
        let exports = Environment::of([
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", url.as_str()),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &url),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=canary"),
        ])
        .exports(&OtlpSettings::default());
        let warns =
            Exporter::new(exports.traces.clone().unwrap(), Arc::default(), CancellationToken::new()).unwrap();
        // tracing asks whose thread meets a warning first whether it is wanted: a test beside this one, without a log, would say no.
        assert!(!warns.export(&ExportTraceServiceRequest::default()).await);
        for (otlp, stopped, expected, other) in [
            (exports.metrics.clone(), false, "tried again at the next interval", "lost"),
            (exports.metrics.clone(), true, "this last push is lost", "again"),
            (exports.traces.clone(), false, "this batch is lost (jeton.telemetry.dropped", "again"),
        ] {
            let otlp = otlp.unwrap();
            let stop = CancellationToken::new();
            if stopped {
                stop.cancel();
            }
            let exporter = Exporter::new(otlp, Arc::default(), stop).unwrap();
            let said = Said::default();
            let writer = said.clone();
            let log = fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
            let guard = tracing::subscriber::set_default(log);
            assert!(!exporter.export(&ExportTraceServiceRequest::default()).await);
            drop(guard);
            let said = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
            assert!(said.contains(&format!("\"http://{address}/write/here\"")), "{said}");
            assert!(said.contains(expected) && !said.contains(other), "{said}");
            assert!(!said.contains("canary"), "{said}");
        }
        server.abort();
    }
}
