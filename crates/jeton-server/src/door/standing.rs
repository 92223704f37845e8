//! How long a credential stands: to its end by the wall clock, or until the door takes back what it was let in by.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use jeton_core::{Clock, Wall};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// A timer stands still while the machine sleeps, and a wall clock can be set: so often it is looked again.
const LOOK: Duration = Duration::from_secs(15);

/// Whether the credential of a connection still stands.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    over: AtomicBool,
    token: CancellationToken,
}

impl Standing {
    /// For a request: nothing but a load.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// From now on nothing is answered by it.
    pub(crate) fn end(&self) {
        self.over.store(true, Relaxed);
        self.token.cancel();
    }

    pub(crate) async fn ended(&self) {
        self.token.cancelled().await;
    }
}

/// Ends when the wall clock shows this time; never where there is none.
pub(crate) async fn passed(until: Option<Wall>, clock: Arc<dyn Clock>) {
    let Some(until) = until else { return std::future::pending().await };
    loop {
        let left = until.saturating_since(clock.now().wall);
        if left.is_zero() {
            return;
        }
        sleep(left.min(LOOK)).await;
    }
}

/// When a peer is asked to come anew with another credential: `lead` ahead of the end, so that no request meets it. Of a short life it is
/// a part, or whoever has no other would come again at once, and again.
pub(crate) fn renewal(now: Wall, until: Wall, lead: Duration) -> Wall {
    until - lead.min(until.saturating_since(now) / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_asked_to_come_anew_ahead_of_the_end_and_not_at_once() {
        let (lead, at) = (Duration::from_secs(30), Wall::from_secs);
        assert_eq!(renewal(at(0), at(3_600), lead), at(3_570));
        assert_eq!(renewal(at(0), at(20), lead), at(15));
        assert_eq!(renewal(at(20), at(20), lead), at(20));
    }
}
