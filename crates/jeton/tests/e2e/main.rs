//! The real binary over real sockets, against the sandbox as a process of its own. Free ports, temporary folders; everything that
//! is started is stopped.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

mod access;
mod administration;
mod apply;
mod attach;
mod audit;
mod backup;
mod client;
mod command_line;
mod console;
mod descriptors;
mod drains;
mod faults;
mod flights;
#[path = "../../../jeton-server/tests/door/frames.rs"]
#[allow(dead_code, reason = "the door's own tests use the rest")]
mod frames;
mod kills;
mod limits;
mod logs;
mod managed_identity;
mod metrics;
mod ports;
mod registrations;
mod restart;
mod revoke;
mod rotation;
mod scale;
mod sealing;
mod secrets;
mod serve;
mod signals;
mod stores;
mod supervised;
mod support;
mod tls;
mod traces;
mod warm;
mod wrong_input;
mod wrong_use;
