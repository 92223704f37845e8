//! Pushing by OTLP: over gRPC, or over HTTP as protobuf or JSON. Nothing is sent anywhere unless somebody says where.

mod encode;
mod environment;
mod push;
mod transport;

pub use environment::{Environment, Otlp, Protocol};
pub(crate) use push::push;
