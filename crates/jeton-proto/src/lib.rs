//! The API `jeton.v1`: messages, client and server stubs, and the descriptor set for reflection.
//!
//! The definitions and their documentation are in `proto/jeton/v1`. Only the server's service files and clients use these types;
//! inside, the broker speaks in the types of its own vocabulary.

mod redacted;

/// Package `jeton.v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    reason = "generated; documented in proto/"
)]
pub mod v1 {
    tonic::include_proto!("jeton.v1");
}

/// All definitions with what they import, as a serialised `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
