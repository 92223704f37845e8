//! A managed identity: a client registered at one authority.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Credential, CredentialState, IdentityName, Uid, Wall, steps::Operation};

/// The stored record. Everything in it is public to an administrator; secrets are sealed beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Immutable.
    pub uid: Uid,
    /// Unique among living identities.
    pub name: IdentityName,
    /// For people.
    pub display_name: String,
    /// For people and filters.
    pub labels: BTreeMap<String, String>,
    /// Whose credential life it is.
    pub kind: IdentityKind,
    /// The workload it belongs to, if it is system-assigned.
    pub workload: Option<Uid>,
    /// The authority's uid.
    pub authority: Uid,
    /// Where it is in its life.
    pub state: IdentityState,
    /// The client id at the authority, once known.
    pub client_id: Option<Arc<str>>,
    /// What the authority calls it otherwise.
    pub registration: Option<Registration>,
    /// At most one current, and while a rotation is under way one pending or one overlapping.
    pub credentials: Vec<Credential>,
    /// The work under way.
    pub operation: Option<Operation>,
    /// When it was created.
    pub created_at: Wall,
    /// When the record changed last.
    pub updated_at: Wall,
    /// Counts changes; writes compare and set it.
    pub version: u64,
}

/// Whose credential life it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityKind {
    /// Registered by the broker, which owns its whole credential life.
    Created,
    /// Existed already, its credential was brought along.
    Attached,
}

/// Where an identity is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityState {
    /// Being made, registered and verified.
    Provisioning,
    /// Issues tokens.
    Active,
    /// Switched off by an administrator.
    Disabled,
    /// Being removed at its authority.
    Deleting,
    /// Provisioning met an error that no retry helps; the operation's last error says which.
    Failed,
}

/// What registration left behind, beside the client id. No secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Registration {
    /// Graph: the application's object id.
    pub object_id: Option<Arc<str>>,
    /// Graph: the service principal's object id.
    pub service_principal_id: Option<Arc<str>>,
    /// RFC 7592: the client configuration endpoint.
    pub client_uri: Option<Arc<str>>,
    /// RFC 7592: a change was sent whose answer is not written down. The registration access token may be another one by now.
    #[serde(default)]
    pub in_doubt: bool,
    /// The client that takes over at the switch. What managed the one before was lost, so the identity was registered anew.
    #[serde(default)]
    pub successor: Option<Arc<str>>,
}

impl Identity {
    /// The credential that proves the identity now.
    pub fn current(&self) -> Option<&Credential> {
        self.in_state(CredentialState::Current)
    }

    /// The credential that is being introduced.
    pub fn pending(&self) -> Option<&Credential> {
        self.in_state(CredentialState::Pending)
    }

    /// The credential that was replaced and is still registered.
    pub fn overlap(&self) -> Option<&Credential> {
        self.in_state(CredentialState::Overlap)
    }

    /// By its uid.
    pub fn credential(&self, uid: Uid) -> Option<&Credential> {
        self.credentials.iter().find(|c| c.uid == uid)
    }

    /// The client that can be managed, which a new key is registered with: the successor, if there is one.
    pub fn registered_client(&self) -> Option<&Arc<str>> {
        self.registration.as_ref().and_then(|r| r.successor.as_ref()).or(self.client_id.as_ref())
    }

    /// Whether a change of its registration was sent whose answer is not written down.
    pub fn is_in_doubt(&self) -> bool {
        self.registration.as_ref().is_some_and(|r| r.in_doubt)
    }

    /// Whether tokens may be issued for it.
    pub fn may_issue(&self) -> bool {
        self.state == IdentityState::Active
    }

    fn in_state(&self, state: CredentialState) -> Option<&Credential> {
        self.credentials.iter().find(|c| c.state == state)
    }
}
