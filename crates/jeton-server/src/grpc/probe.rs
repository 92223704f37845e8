//! What the authority service needs of the outbound side; the assembly fills it.

use jeton_core::{Authority, BoxFuture, Profile};

/// Reads discovery documents and tries authorities.
pub trait AuthorityProbe: Send + Sync + 'static {
    /// The profile that follows from an authority's discovery document.
    fn discover(&self, request: DiscoverRequest) -> BoxFuture<'_, Result<Profile, String>>;

    /// One real round trip, explained.
    fn test<'a>(&'a self, authority: &'a Authority) -> BoxFuture<'a, Vec<ProbeStep>>;
}

/// What to discover.
#[derive(Debug, Clone)]
pub struct DiscoverRequest {
    /// Which ready profile to start from.
    pub shape: RegistrarShape,
    /// The authority's or issuer's URL.
    pub url: String,
    /// Certificates to trust, PEM.
    pub ca_file: Option<String>,
    /// The base of Graph, if it is not Microsoft's.
    pub graph: Option<String>,
    /// Members that replace those of the ready profile.
    pub overrides: Option<serde_json::Value>,
}

/// The shapes of authority for which profiles are ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistrarShape {
    /// Microsoft Entra ID, or what speaks as it does.
    Entra,
    /// An OpenID provider.
    Oidc,
}

/// One thing that was tried.
#[derive(Debug, Clone)]
pub struct ProbeStep {
    /// What.
    pub name: String,
    /// Whether it worked.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
}
