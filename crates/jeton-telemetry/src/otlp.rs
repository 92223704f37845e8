//! Exporting by OTLP: over gRPC, or over HTTP as protobuf or JSON. Nothing is sent anywhere unless somebody says where.

mod batch;
mod encode;
mod environment;
mod export;
mod push;
mod transport;
mod values;

pub use environment::{Environment, Exports, Otlp, Protocol};
pub(crate) use {
    batch::{Batches, Queue, queue},
    export::Counts,
    push::push,
    values::{any, keyed, nanos, scope},
};
