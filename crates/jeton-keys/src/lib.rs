//! Keys, certificates and client assertions.
//!
//! A private key is parsed once and kept, bounded; nothing parses a key to sign. Generation and signatures take from a tenth of a
//! millisecond to a second, so they happen on threads of their own and never on those that serve. Assertions that are needed
//! soon are signed ahead and wait in a bounded pool, each to be used once.

mod assertion;
mod facts;
mod generate;
mod import;
mod key;
mod keys;
mod pool;
mod settings;
mod workers;

pub use keys::{Keys, KeysStats};
pub use settings::KeysSettings;
