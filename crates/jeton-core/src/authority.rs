//! An OAuth 2.0 authorization server, one tenant of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{AuthorityName, Credential, Profile, Uid, Wall};

/// The stored record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Immutable.
    pub uid: Uid,
    /// Unique among living authorities.
    pub name: AuthorityName,
    /// For people.
    pub display_name: String,
    /// How it behaves.
    pub profile: Arc<Profile>,
    /// Counts changes of the profile; part of every token key.
    pub profile_version: u32,
    /// A PEM file of certificates to trust for it, instead of the system's.
    pub ca_file: Option<String>,
    /// With what the broker itself may register clients.
    pub registrar: Registrar,
    /// Whether it is used.
    pub state: AuthorityState,
    /// When it was created.
    pub created_at: Wall,
    /// When the record changed last.
    pub updated_at: Wall,
    /// Counts changes; writes compare and set it.
    pub version: u64,
}

/// The credential with which the broker registers and changes clients. Never served to anyone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum Registrar {
    /// A client of the authority with the right to create others.
    Certificate {
        /// Its client id.
        client_id: Arc<str>,
        /// Its credential; the private key is sealed under the credential's uid.
        credential: Box<Credential>,
    },
    /// An initial access token (RFC 7591 section 3), sealed under this uid.
    InitialAccessToken {
        /// Binds the sealed token.
        credential: Uid,
    },
    /// Identities are only attached.
    None,
}

/// Whether an authority is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthorityState {
    /// Used.
    Active,
}
