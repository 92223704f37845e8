//! What the lifecycle needs of the world: keys, an authority that registers clients, and a durable registry.

use std::{sync::Arc, time::Duration};

use jeton_core::{
    Authority, BoxFuture, CertificateFacts, Credential, Identity, KeyKind, Registration, Uid, Wall, Workload,
};
use secrecy::{SecretSlice, SecretString};

// ---- keys ----

/// Makes and checks key material. Generation takes tenths of a second; it happens on threads made for it.
pub trait KeyRing: Send + Sync + 'static {
    /// Makes a private key and a self-signed certificate for it.
    fn make(&self, request: KeyRequest) -> BoxFuture<'_, Result<NewKey, KeyError>>;

    /// Checks a certificate and its private key that were brought along (PEM; PKCS#8, PKCS#1 or SEC1).
    fn import(
        &self,
        certificate_pem: String,
        private_key_pem: SecretString,
        now: Wall,
    ) -> BoxFuture<'_, Result<NewKey, KeyError>>;
}

/// What key to make.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// Its kind.
    pub kind: KeyKind,
    /// The common name of the certificate's subject and issuer.
    pub subject: String,
    /// Start of the certificate's validity.
    pub not_before: Wall,
    /// Length of the certificate's validity.
    pub valid_for: Duration,
}

/// A key that was made or imported.
pub struct NewKey {
    /// What may be known.
    pub facts: CertificateFacts,
    /// PKCS#8, DER.
    pub private: SecretSlice<u8>,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// What was brought along is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The key threads have more work than they may queue.
    #[error("the key queue is full; try again shortly")]
    Busy,
    /// Generation failed.
    #[error("key generation failed: {0}")]
    Failed(String),
}

// ---- the authority's side ----

/// Registers and changes clients at an authority, with the authority's registrar. Every call is idempotent: repeated after a
/// crash it finds what the first one left.
pub trait ClientRegistry: Send + Sync + 'static {
    /// Registers the identity with its pending credential as the first key. `Registered` says all that must be kept. Where clients
    /// cannot be looked up (RFC 7591) each call makes another one.
    fn register<'a>(
        &'a self,
        authority: &'a Authority,
        identity: &'a Identity,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<Registered, RegistryError>>;

    /// Registers the pending credential beside the current one.
    fn add_key<'a>(
        &'a self,
        authority: &'a Authority,
        identity: &'a Identity,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<Registered, RegistryError>>;

    /// Removes a key that was replaced; the identity's current credential stays.
    fn remove_key<'a>(
        &'a self,
        authority: &'a Authority,
        identity: &'a Identity,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<Registered, RegistryError>>;

    /// Proves the credential by a real grant for the profile's `verify_target`.
    fn verify<'a>(
        &'a self,
        authority: &'a Authority,
        identity: &'a Identity,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<(), RegistryError>>;

    /// Removes the client. One that is gone already is a success; one that may be there and cannot be removed is `Unmanageable`.
    fn delete<'a>(
        &'a self,
        authority: &'a Authority,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<(), RegistryError>>;
}

/// What a registration call left behind. All of it is committed in one write before anything else is done: a registration access
/// token that is lost cannot be had again.
#[derive(Clone, Default)]
pub struct Registered {
    /// The client id, when it is new.
    pub client_id: Option<Arc<str>>,
    /// Ids at the authority, when they are new.
    pub registration: Option<Registration>,
    /// The authority's id of the key that was added.
    pub remote_key_id: Option<Arc<str>>,
    /// The registration access token that replaces the one before (RFC 7592 section 2.2).
    pub registration_access_token: Option<SecretString>,
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registered")
            .field("client_id", &self.client_id)
            .field("registration", &self.registration)
            .field("remote_key_id", &self.remote_key_id)
            .finish_non_exhaustive()
    }
}

/// Why a call at the authority's registration failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RegistryError {
    /// Whether and when to try again.
    pub class: RegistryErrorClass,
    /// The authority's Retry-After, counted from the answer.
    pub retry_after: Option<Duration>,
    /// What happened and what to do, for an administrator. No secrets, no bodies.
    pub message: String,
}

/// The classes of failure that the lifecycle tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegistryErrorClass {
    /// Try again with back-off: network, throttling, replication that is not through yet.
    Transient,
    /// The call may have been carried out although no answer came, and cannot be looked up (RFC 7591).
    Unknown,
    /// No retry helps until somebody changes something.
    Permanent,
    /// As `Permanent`, and nothing was done: the right with which the broker itself asks is refused.
    Unauthorized,
    /// What manages the client is lost (RFC 7592), so nothing here can change or remove it.
    Unmanageable,
}

// ---- the registry ----

/// The durable registry and the sealed secrets beside it.
pub trait IdentityStore: Send + Sync + 'static {
    /// Everything that is stored, without secrets.
    fn load(&self) -> BoxFuture<'_, Result<Registry, StoreError>>;

    /// Applies all writes or none, durably, before it returns. A record's write carries its new version and succeeds only if
    /// the stored version is one less (0: it must not exist).
    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Opens a sealed secret.
    fn secret(&self, id: SecretId) -> BoxFuture<'_, Result<Option<SecretSlice<u8>>, StoreError>>;

    /// What a mutation with this request id did, if it was carried out (kept for at least 24 h).
    fn recorded(&self, request_id: String) -> BoxFuture<'_, Result<Option<Recorded>, StoreError>>;
}

/// What is stored.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    /// Identities, deleted ones left out.
    pub identities: Vec<Identity>,
    /// Workloads.
    pub workloads: Vec<Workload>,
    /// Authorities.
    pub authorities: Vec<Authority>,
    /// Suspected orphans at authorities.
    pub orphans: Vec<Orphan>,
}

/// A client that may exist at an authority although nobody here manages it: the answer to its registration, or what manages it, was
/// lost. An identity has one entry for all lost answers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Orphan {
    /// Its own uid.
    pub uid: Uid,
    /// The authority.
    pub authority: Uid,
    /// The identity for which it was registered.
    pub identity: Uid,
    /// The `client_name` under which to look for it.
    pub client_name: String,
    /// Its client id, where it is known.
    #[serde(default)]
    pub client_id: Option<Arc<str>>,
    /// How many more answers were lost since.
    #[serde(default)]
    pub repeated: u32,
    /// When the call was made.
    pub at: Wall,
}

/// One write of a commit.
#[derive(Clone)]
pub enum Write {
    /// Insert or replace.
    Identity(Box<Identity>),
    /// Remove the record and every secret of its credentials and registration.
    RemoveIdentity(Uid),
    /// Insert or replace.
    Workload(Box<Workload>),
    /// Remove.
    RemoveWorkload(Uid),
    /// Insert or replace.
    Authority(Box<Authority>),
    /// Remove the record and its registrar's secrets.
    RemoveAuthority(Uid),
    /// Seal a secret.
    Secret(SecretId, SecretSlice<u8>),
    /// Remove a secret.
    RemoveSecret(SecretId),
    /// Note a suspected orphan.
    Orphan(Orphan),
    /// It was cleared up.
    RemoveOrphan(Uid),
    /// Remember what a request id did.
    Recorded(Recorded),
}

/// Names a sealed secret: its owner (an identity or authority, whose data key seals it), what it belongs to, and its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretId {
    /// The identity or authority.
    pub owner: Uid,
    /// The credential, or the owner itself for a registration access token.
    pub subject: Uid,
    /// What it is.
    pub kind: SecretKind,
}

/// The kinds of sealed secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SecretKind {
    /// A private key, PKCS#8 DER.
    PrivateKey,
    /// A client secret, UTF-8.
    ClientSecret,
    /// A registration access token (RFC 7592), UTF-8.
    RegistrationAccessToken,
    /// An initial access token (RFC 7591), UTF-8.
    InitialAccessToken,
    /// The private key of the broker's audit log, PKCS#8 DER.
    AuditKey,
}

impl SecretKind {
    /// The name in the store's rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrivateKey => "private-key",
            Self::ClientSecret => "client-secret",
            Self::RegistrationAccessToken => "registration-access-token",
            Self::InitialAccessToken => "initial-access-token",
            Self::AuditKey => "audit-key",
        }
    }
}

/// A mutation that was carried out, for idempotency.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Recorded {
    /// The caller's id for it.
    pub request_id: String,
    /// Which method, and a digest of what it asked for: another request under the same id is refused.
    pub fingerprint: String,
    /// The resource it made or changed.
    pub resource: Uid,
    /// When.
    pub at: Wall,
}

/// The store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The stored version is another one: somebody changed the record meanwhile. Read it again.
    #[error("the record {0} changed meanwhile; read it again and repeat the change")]
    Conflict(Uid),
    /// A name or principal is taken.
    #[error("{0} exists already")]
    Exists(String),
    /// A sealed value does not open.
    #[error("{0}")]
    Sealed(String),
    /// The disk is full, read-only or broken. Nothing was changed.
    #[error("the registry cannot be written: {0}")]
    Unavailable(String),
}
