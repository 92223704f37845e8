//! A registered service: who it is at each door, and its own identity.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Principal, Uid, Wall, WorkloadName};

/// The stored record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Immutable.
    pub uid: Uid,
    /// Unique among living workloads.
    pub name: WorkloadName,
    /// For people.
    pub display_name: String,
    /// For people and filters.
    pub labels: BTreeMap<String, String>,
    /// How it is known at the doors; each belongs to at most one workload.
    pub principals: Vec<Principal>,
    /// Its system-assigned identity: what an empty identity in a request means.
    pub system_identity: Option<Uid>,
    /// When it was created.
    pub created_at: Wall,
    /// When the record changed last.
    pub updated_at: Wall,
    /// Counts changes; writes compare and set it.
    pub version: u64,
}
