//! The task that pushes.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    encode::{Taken, request},
    environment::Otlp,
    transport::Transport,
};
use crate::{Gathered, Resource};

const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Pushes at the interval until told to stop, and then once more.
pub(crate) async fn push(otlp: Otlp, resource: Resource, gathered: Gathered, stop: CancellationToken) {
    let transport = match Transport::new(otlp.clone()) {
        Ok(transport) => transport,
        Err(error) => {
            tracing::error!(%error, "metrics are pushed nowhere");
            return stop.cancelled().await;
        }
    };
    let mut pushing = Pushing {
        transport,
        otlp,
        resource,
        gathered,
        started: SystemTime::now(),
        before: None,
        failing: false,
    };
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
    transport: Transport,
    otlp: Otlp,
    resource: Resource,
    gathered: Gathered,
    started: SystemTime,
    /// What arrived last.
    before: Option<Taken>,
    failing: bool,
}

impl Pushing {
    async fn push(&mut self) {
        let taken = Taken { snapshot: self.gathered.snapshot().await, at: SystemTime::now() };
        let sent = self.send(&taken).await;
        self.gathered.pushed(sent.is_ok());
        match &sent {
            Ok(()) => self.before = Some(taken),
            // Once, and not every minute.
            Err(error) if !self.failing => {
                tracing::warn!(%error, "metrics do not reach their collector; it is tried again at every interval");
            }
            Err(_) => {}
        }
        if sent.is_ok() && self.failing {
            tracing::info!("metrics reach their collector again");
        }
        self.failing = sent.is_err();
    }

    /// Repeats what may be repeated, until the time of a push is over.
    async fn send(&self, taken: &Taken) -> Result<(), String> {
        let (before, temporality) = (self.before.as_ref(), self.otlp.temporality);
        let message = request(taken, self.started, before, temporality, &self.resource);
        let (end, mut pause) = (Instant::now() + self.otlp.export_timeout, FIRST_PAUSE);
        loop {
            let Err(error) = self.transport.send(&message, end).await else { return Ok(()) };
            let again_at = Instant::now() + error.after.unwrap_or(pause);
            if !error.again || again_at >= end {
                return Err(error.message);
            }
            tracing::debug!(%error, "a push of metrics is repeated");
            sleep_until(again_at).await;
            pause *= 2;
        }
    }
}
