//! The doors of the broker.
