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
    environment::Otlp,
    transport::{Export, Transport},
};

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
}
