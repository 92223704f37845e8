//! What tests need and no product crate holds: a clock that tests move by hand.

mod clock;

pub use clock::{ManualClock, START};
