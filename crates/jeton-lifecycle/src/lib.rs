//! Crate under construction.

mod ports;

pub use ports::*;
