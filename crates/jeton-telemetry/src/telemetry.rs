//! The owner of what goes out by itself.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Gathered, Otlp, Resource, otlp::push};

/// For the last push, at the stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Pushes metrics while it is there. Its owner notices when a task dies, and stops it.
#[derive(Debug)]
pub struct Telemetry {
    stop: CancellationToken,
    pushing: Option<JoinHandle<()>>,
}

impl Telemetry {
    /// Starts what goes out by itself: nothing, where no collector is named.
    pub fn start(otlp: Option<Otlp>, resource: Resource, gathered: Gathered) -> Self {
        let stop = CancellationToken::new();
        let pushing = otlp.map(|otlp| tokio::spawn(push(otlp, resource, gathered, stop.clone())));
        Self { stop, pushing }
    }

    /// Ends when a task dies on its own, which it should not.
    pub async fn ended(&mut self) -> &'static str {
        match &mut self.pushing {
            Some(pushing) => _ = pushing.await,
            None => std::future::pending().await,
        }
        "the export of metrics"
    }

    /// Pushes once more, and stops, within a bound.
    pub async fn shutdown(self) {
        self.stop.cancel();
        let Some(pushing) = self.pushing else { return };
        let abort = pushing.abort_handle();
        if tokio::time::timeout(STOP_TIMEOUT, pushing).await.is_err() {
            abort.abort();
        }
    }
}
