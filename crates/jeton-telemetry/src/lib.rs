//! What the broker tells of itself, for whoever operates it.
//!
//! Everything is counted where it happens, in atomics (`jeton_core::metrics`). When somebody wants to know, the broker's observer reads
//! them into a [`Snapshot`], under the names of the one table of [`INSTRUMENTS`]. It is shown as Prometheus text at a listener, and pushed
//! as OTLP where a collector is named. So a metric that nobody reads costs its count and nothing else, and what goes out is bounded by what
//! the table says.

mod docs;
mod gathered;
mod instruments;
mod lines;
mod listener;
mod logs;
mod model;
mod otlp;
mod process;
mod prometheus;
mod resource;
mod settings;
mod signal;
mod telemetry;
mod traces;

pub use docs::reference;
pub use gathered::{Gathered, Observer};
pub use instruments::{INSTRUMENTS, instrument};
pub use lines::{Lines, TraceIds, Writer};
pub use listener::{Judge, Readiness, routes};
pub use logs::{Audit, Logs, logs};
pub use model::{Attribute, Family, Instrument, Kind, Point, Snapshot, Value, Values};
pub use otlp::{Environment, Exports, Otlp, Protocol};
pub use prometheus::name as prometheus_name;
pub use resource::Resource;
pub use settings::{OtlpSettings, TelemetrySettings};
pub use signal::Signal;
pub use telemetry::Telemetry;
pub use traces::{Traces, TracesSettings, traces};
