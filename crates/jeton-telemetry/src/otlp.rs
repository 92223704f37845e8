//! Exporting by OTLP: over gRPC, or over HTTP as protobuf or JSON. Nothing is sent anywhere unless somebody says where.

mod batch;
mod encode;
mod environment;
mod export;
mod push;
mod transport;

pub use environment::{Environment, Exports, Otlp, Protocol};
pub(crate) use {export::Counts, push::push};
