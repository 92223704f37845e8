//! The task that pushes metrics.

use std::{sync::Arc, time::SystemTime};

use tokio_util::sync::CancellationToken;

use super::{
    encode::{Taken, request},
    environment::Otlp,
    export::{Counts, Exporter},
};
use crate::{Gathered, Resource};

/// Pushes at the interval until told to stop, and then once more.
pub(crate) async fn push(
    otlp: Otlp,
    counts: Arc<Counts>,
    resource: Resource,
    gathered: Gathered,
    stop: CancellationToken,
) {
    let Some(exporter) = Exporter::new(otlp.clone(), counts, stop.clone()) else {
        return stop.cancelled().await;
    };
    let started = SystemTime::now();
    let mut pushing = Pushing { exporter, otlp, resource, gathered, started, before: None };
    let mut tick = tokio::time::interval(pushing.otlp.interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // At once there is nothing to tell.
    tick.tick().await;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => break,
        }
        if stop.run_until_cancelled(pushing.push()).await.is_none() {
            break;
        }
    }
    pushing.push().await;
}

struct Pushing {
    exporter: Exporter,
    otlp: Otlp,
    resource: Resource,
    gathered: Gathered,
    started: SystemTime,
    /// What arrived last.
    before: Option<Taken>,
}

impl Pushing {
    async fn push(&mut self) {
        // What is pushed after a wait is of then.
        if !self.exporter.may_send().await {
            return;
        }
        let taken = Taken { snapshot: self.gathered.snapshot().await, at: SystemTime::now() };
        let (before, temporality) = (self.before.as_ref(), self.otlp.temporality);
        let message = request(&taken, self.started, before, temporality, &self.resource);
        if self.exporter.export(&message).await {
            self.before = Some(taken);
        }
    }
}
