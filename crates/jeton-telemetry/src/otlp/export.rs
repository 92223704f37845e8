//! Exports of one signal: repeated where that helps, counted, and told of when it fails and when it works again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use jeton_core::metrics::Counter;
use tokio::time::{Instant, sleep_until};

use super::{
    environment::Otlp,
    transport::{Export, Transport},
};

const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// What became of a signal's exports.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) ok: Counter,
    pub(crate) failed: Counter,
    /// Spans or log records that did not go out: there was no room, or the collector did not take them.
    pub(crate) dropped: Counter,
    /// Whether the last one failed, which is said once, whatever number of tasks export a signal.
    failing: AtomicBool,
}

pub(crate) struct Exporter {
    transport: Transport,
    otlp: Otlp,
    counts: Arc<Counts>,
}

impl Exporter {
    /// None: there is no way to a collector, which the log says.
    pub(crate) fn new(otlp: Otlp, counts: Arc<Counts>) -> Option<Self> {
        let signal = otlp.signal.as_str();
        match Transport::new(otlp.clone()) {
            Ok(transport) => Some(Self { transport, otlp, counts }),
            Err(error) => {
                if counts.failing.swap(true, Relaxed) {
                    return None;
                }
                tracing::error!(signal, %error, "a signal is exported nowhere: mend the exporter's settings or OpenTelemetry's variables, and start again");
                None
            }
        }
    }

    /// Sends it; whether it arrived.
    pub(crate) async fn export(&self, message: &impl Export) -> bool {
        let sent = self.send(message).await;
        if sent.is_ok() { &self.counts.ok } else { &self.counts.failed }.add();
        let signal = self.otlp.signal.as_str();
        match (&sent, self.counts.failing.swap(sent.is_err(), Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(signal, %error, "a signal does not reach its collector; it is tried again, look after the collector");
            }
            (Ok(()), true) => tracing::info!(signal, "a signal reaches its collector again"),
            _ => {}
        }
        sent.is_ok()
    }

    /// Repeats what may be repeated, until the time of an export is over.
    async fn send(&self, message: &impl Export) -> Result<(), String> {
        let (end, mut pause) = (Instant::now() + self.otlp.export_timeout, FIRST_PAUSE);
        loop {
            let Err(error) = self.transport.send(message, end).await else { return Ok(()) };
            let again_at = Instant::now() + error.after.unwrap_or(pause);
            if !error.again || again_at >= end {
                return Err(error.message);
            }
            tracing::debug!(signal = self.otlp.signal.as_str(), %error, "an export is repeated");
            sleep_until(again_at).await;
            pause *= 2;
        }
    }
}
