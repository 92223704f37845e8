//! The owner of what goes out by itself.

use std::{future::pending, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Exports, Gathered, Logs, Resource, Signal, Traces, otlp::push};

/// For what is exported last, at the stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Exports while it is there. Its owner notices when a task dies, and stops it.
#[derive(Debug)]
pub struct Telemetry {
    stop: CancellationToken,
    /// Each says what it was.
    tasks: JoinSet<&'static str>,
}

impl Telemetry {
    /// Starts what goes out by itself: nothing, where no collector is named.
    pub fn start(
        exports: &Exports,
        (traces, logs): (Option<Traces>, Option<Logs>),
        resource: Resource,
        gathered: Gathered,
    ) -> Self {
        let mut this = Self { stop: CancellationToken::new(), tasks: JoinSet::new() };
        if let Some(traces) = traces {
            this.run("the export of traces", traces.run(resource.clone(), this.stop.clone()));
        }
        if let Some(logs) = logs {
            this.run("the export of logs", logs.run(resource.clone(), this.stop.clone()));
        }
        if let Some(otlp) = exports.metrics.clone() {
            let counts = exports.counts(Signal::Metrics);
            this.run("the export of metrics", push(otlp, counts, resource, gathered, this.stop.clone()));
        }
        this
    }

    fn run(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Ends when a task dies on its own, which it should not.
    pub async fn ended(&mut self) -> &'static str {
        match self.tasks.join_next().await {
            None => pending().await,
            Some(ended) => ended.unwrap_or("an export of telemetry"),
        }
    }

    /// Exports what is left, and stops, within a bound.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        // What is still there ends with the set.
        let _ = tokio::time::timeout(STOP_TIMEOUT, all).await;
    }
}
