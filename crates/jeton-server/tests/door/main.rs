//! The accept loop against raw peers: silent ones, greedy ones, ones that cancel, ones that never let go. Margins are wide: what
//! is shown is that something happens, and that it does not take for ever.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]
#![allow(clippy::print_stdout, reason = "figures, for whoever asks with --nocapture")]

mod ageing;
mod alone;
mod bodies;
mod cancels;
mod descriptors;
mod drain;
mod floods;
mod frames;
mod hits;
mod hpack;
mod http1;
mod limits;
mod listeners;
mod log;
mod mtls;
mod not_grpc;
mod requests;
mod spans;
mod stalls;
mod support;
mod ways;
