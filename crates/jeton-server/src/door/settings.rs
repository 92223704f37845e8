//! The bounds of a door. Times are in milliseconds, sizes in bytes.

use std::time::Duration;

use jeton_core::Problem;
use serde::{Deserialize, Serialize};

/// `[door]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoorSettings {
    /// Open connections of one listener; 0: 80 % of the file descriptors, at most 8000.
    pub max_connections: usize,
    /// Open connections of one principal.
    pub max_connections_per_principal: usize,
    /// Open connections of one remote address whose principal is not known: in a handshake, or with bearer tokens alone. Not on loopback.
    pub max_connections_per_address: usize,
    /// Requests under way on one connection.
    pub max_concurrent_streams: u32,
    /// Headers of one request.
    pub max_header_bytes: u32,
    /// From the connection to the head of the first request.
    pub first_request_deadline_ms: u64,
    /// Longest deadline of a unary request, whatever the caller asks for.
    pub request_deadline_ms: u64,
    /// The same on the admin plane, where a request may have to ask an authority.
    pub admin_request_deadline_ms: u64,
    /// A connection of this age is asked to end; spread by 10 %.
    pub max_age_ms: u64,
    /// What a connection has left after that.
    pub age_grace_ms: u64,
    /// Longest drain: after this everything is cut.
    pub drain_deadline_ms: u64,
    /// Requests that a peer may cancel in 10 s on one connection. A stream that has lasted as long is stopped and not cancelled.
    pub max_cancelled_requests: u32,
    /// Bytes that belong to no request (pings, settings, resets) which a peer may send in a second on one connection.
    pub max_idle_bytes_per_second: u64,
}

impl Default for DoorSettings {
    fn default() -> Self {
        Self {
            max_connections: 0,
            max_connections_per_principal: 1_024,
            max_connections_per_address: 256,
            max_concurrent_streams: 100,
            max_header_bytes: 16 * 1024,
            first_request_deadline_ms: 5_000,
            request_deadline_ms: 10_000,
            admin_request_deadline_ms: 60_000,
            max_age_ms: 30 * 60_000,
            age_grace_ms: 30_000,
            drain_deadline_ms: 20_000,
            max_cancelled_requests: 100,
            // A frame has nine bytes at least, and one that resizes windows is looked at for every open stream. Above the window of a
            // connection, because bytes of a body belong to nobody until they are read.
            max_idle_bytes_per_second: 512 * 1024,
        }
    }
}

impl DoorSettings {
    /// Everything that is wrong.
    pub fn validate(&self) -> Vec<Problem> {
        let rules = [
            ("max_connections_per_principal", self.max_connections_per_principal >= 1, "must be at least 1"),
            ("max_connections_per_address", self.max_connections_per_address >= 1, "must be at least 1"),
            (
                "max_concurrent_streams",
                (1..=10_000).contains(&self.max_concurrent_streams),
                "must be between 1 and 10000",
            ),
            (
                "max_header_bytes",
                (1_024..=1_048_576).contains(&self.max_header_bytes),
                "must be between 1024 and 1048576",
            ),
            ("first_request_deadline_ms", self.first_request_deadline_ms >= 100, "must be at least 100"),
            ("admin_request_deadline_ms", self.admin_request_deadline_ms >= 1_000, "must be at least 1000"),
            ("request_deadline_ms", self.request_deadline_ms >= 100, "must be at least 100"),
            (
                "max_idle_bytes_per_second",
                self.max_idle_bytes_per_second >= 262_144,
                "must be at least 262144, the window of a connection",
            ),
            ("max_age_ms", self.max_age_ms >= 1_000, "must be at least 1000"),
            ("drain_deadline_ms", self.drain_deadline_ms <= 600_000, "must be at most 600000"),
        ];
        rules
            .into_iter()
            .filter(|(_, holds, _)| !holds)
            .map(|(key, _, message)| Problem::new(key, message))
            .collect()
    }

    pub(crate) fn connections(&self) -> usize {
        if self.max_connections > 0 {
            return self.max_connections;
        }
        let soft = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        soft.map_or(8_000, |soft| usize::try_from(soft / 5 * 4).unwrap_or(8_000).clamp(16, 8_000))
    }

    pub(crate) fn first_request_deadline(&self) -> Duration {
        Duration::from_millis(self.first_request_deadline_ms)
    }

    pub(crate) fn request_deadline(&self) -> Duration {
        Duration::from_millis(self.request_deadline_ms)
    }

    /// The longest drain.
    pub fn drain_deadline(&self) -> Duration {
        Duration::from_millis(self.drain_deadline_ms)
    }
}
