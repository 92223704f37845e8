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
    /// A call was begun whose outcome is not written down: a first registration that may have been done, or a change (RFC 7592)
    /// by which the registration access token may be another one.
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

    /// Whether a call for its registration was begun whose outcome is not written down.
    pub fn is_in_doubt(&self) -> bool {
        self.registration.as_ref().is_some_and(|r| r.in_doubt)
    }

    /// Since when an authority may have known this key: since it was made, or since the step in hand began, which follows its
    /// registration. That one may have had to wait long for an authority that was down.
    pub fn known_since(&self, credential: &Credential) -> Wall {
        self.operation.as_ref().map_or(credential.created_at, |o| o.step_since.max(credential.created_at))
    }

    /// Whether tokens may be issued for it.
    pub fn may_issue(&self) -> bool {
        self.state == IdentityState::Active
    }

    fn in_state(&self, state: CredentialState) -> Option<&Credential> {
        self.credentials.iter().find(|c| c.state == state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CredentialKind,
        steps::{OperationKind, Step},
    };

    #[test]
    fn a_key_counts_as_new_from_its_registration_however_long_that_had_to_wait() {
        let uid = Uid::new(Wall::from_secs(1), [1; 10]);
        let credential = Credential {
            uid,
            kind: CredentialKind::Secret { expires_at: None },
            state: CredentialState::Pending,
            remote_id: None,
            created_at: Wall::from_secs(100),
        };
        let mut identity = Identity {
            uid,
            name: "identities/a".parse().unwrap(),
            display_name: String::new(),
            labels: BTreeMap::new(),
            kind: IdentityKind::Created,
            workload: None,
            authority: uid,
            state: IdentityState::Provisioning,
            client_id: None,
            registration: None,
            credentials: vec![credential.clone()],
            operation: Some(Operation::new(OperationKind::Provision, Wall::from_secs(99))),
            created_at: Wall::from_secs(99),
            updated_at: Wall::from_secs(99),
            version: 1,
        };
        assert_eq!(identity.known_since(&credential), Wall::from_secs(100));
        if let Some(operation) = &mut identity.operation {
            operation.complete(Step::Registered, Wall::from_secs(9_000));
        }
        assert_eq!(identity.known_since(&credential), Wall::from_secs(9_000));
        identity.operation = None;
        assert_eq!(identity.known_since(&credential), Wall::from_secs(100));
    }
}
