//! The audit log: JSON lines in segments, each with the hash of the line before, heads signed with a key of the broker's own.
//!
//! What must not happen unrecorded waits until it is on disk; what happens often is written in batches. One thread owns the files. A
//! half line that a kill left behind is cut off at the next start; nothing else is ever changed, so whatever does not fit together
//! was changed by somebody else, and [`verify`] names the place.

mod assertions;
mod borders;
mod chain;
mod key;
mod log;
mod open;
mod queue;
mod read;
mod segments;
mod settings;
mod trail;
mod verify;

pub use assertions::Audited;
pub use key::{AuditKey, AuditPublicKey, KeyError};
pub use open::OpenError;
pub use read::{Reader, Wanted};
pub use segments::{FOLDER, HEAD_FILE, KEY_FILE};
pub use settings::{AuditSettings, OnFull};
pub use trail::{Follower, Trail, TrailStats, TrailTask};
pub use verify::{Finding, Report, VerifyError, verify};
