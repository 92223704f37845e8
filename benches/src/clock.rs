//! The machine's clocks, moved forward: a refresh that is due in half an hour comes up now.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use jeton_core::{Clock, Now, SystemClock};

/// A cloneable handle; all clones tell the same time.
#[derive(Debug, Clone, Default)]
pub struct ShiftedClock(Arc<AtomicU64>);

impl ShiftedClock {
    /// Moves all three clocks.
    pub fn forward(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Relaxed);
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> Now {
        let (now, by) = (SystemClock.now(), Duration::from_millis(self.0.load(Relaxed)));
        Now { wall: now.wall + by, mono: now.mono + by, boot: now.boot + by }
    }
}
