//! The ports in memory, and the contract of the identity store.
