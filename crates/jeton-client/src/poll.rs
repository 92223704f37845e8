//! What no watch sends is asked for ahead of its end, if somebody uses it.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};

use crate::{backoff::spread, flight::Core, near::Entry, watch::Means};

/// How often is looked for what is due. Short, because timers stand still while the machine sleeps.
const TICK: Duration = Duration::from_secs(1);
/// Between two questions for one key: the broker may have nothing new yet, or be away.
const BETWEEN: Duration = Duration::from_secs(5);
/// Between two questions for a token that a resource refused.
const BETWEEN_REJECTED: Duration = Duration::from_secs(1);
const AT_ONCE: usize = 16;

/// Does not end by itself.
pub(crate) async fn poll(core: &Arc<Core>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        core.near.sweep();
        let now = core.near.clock.now();
        let due = core.near.entries().into_iter().filter(|entry| entry.is_due(now));
        stream::iter(due).for_each_concurrent(AT_ONCE, |entry| ask(core, entry)).await;
    }
}

async fn ask(core: &Arc<Core>, entry: Arc<Entry>) {
    let old = entry.current();
    let pause = if entry.is_rejected() { BETWEEN_REJECTED } else { BETWEEN };
    entry.asked(core.near.clock.now(), spread(pause));
    if let Err(error) = core.join(&entry.key, Some(&old)).await {
        let pause = error.retry_after().unwrap_or(pause).max(pause);
        tracing::debug!(%error, ?pause, "a token is not refreshed yet");
        entry.asked(core.near.clock.now(), spread(pause));
        if Means::of(&error) == Means::TakenBack {
            core.near.take_back(&entry);
        }
    }
}
