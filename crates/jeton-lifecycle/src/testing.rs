//! The ports in memory, and the contract that every identity store keeps.

mod contract;
mod directory;
mod memory;
mod registration;

pub use contract::identity_store_contract;
pub use directory::{FakeKeyRing, FakeRegistry, Fault};
pub use memory::{CommitFault, MemoryIdentityStore};
pub use registration::{client_registry_contract, key_ring_contract};

use std::sync::Arc;

use jeton_core::{
    Authority, AuthorityState, KeyKind, Profile, Registrar, SigningAlgorithm, TargetRequest, Uid, Wall,
    profile::{
        AssertionProfile, AuthorityLimits, IssuedAt, KeyReference, RegistrationStyle, SecretTransport,
        TargetStyle,
    },
};

/// An authority whose clients can be looked up (Graph) or not (dynamic registration).
pub fn authority(id: &str, uid: Uid, can_look_up: bool) -> Authority {
    let profile = Profile {
        issuer: format!("https://{id}.example"),
        token_endpoint: format!("https://{id}.example/token"),
        revocation_endpoint: None,
        assertion: AssertionProfile {
            algorithm: SigningAlgorithm::Es256,
            key_reference: KeyReference::Kid,
            audience: format!("https://{id}.example/token"),
            lifetime_seconds: 60,
            issued_at: IssuedAt::SecondsAgo(5),
            not_before: false,
        },
        key: KeyKind::P256,
        target: TargetStyle::ScopeAndResource,
        resource_aliases: vec![],
        registration: if can_look_up {
            RegistrationStyle::Graph { base: format!("https://{id}.example/graph"), scope: "s".into() }
        } else {
            RegistrationStyle::Dynamic {
                endpoint: format!("https://{id}.example/reg"),
                scope: None,
                metadata: Default::default(),
            }
        },
        verify_target: TargetRequest { scopes: vec!["verify".into()], resources: vec![] },
        secret_transport: SecretTransport::Body,
        error_rules: vec![],
        limits: AuthorityLimits::default(),
    };
    Authority {
        uid,
        name: format!("authorities/{id}").parse().unwrap_or_else(|_| unreachable!("an id makes a name")),
        display_name: String::new(),
        profile: Arc::new(profile),
        profile_version: 1,
        ca_file: None,
        registrar: Registrar::InitialAccessToken { credential: uid },
        state: AuthorityState::Active,
        created_at: Wall::from_secs(1),
        updated_at: Wall::from_secs(1),
        version: 1,
    }
}
