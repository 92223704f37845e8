//! The adapter: fills the engine's `TokenSource` and the lifecycle's `ClientRegistry` for every authority in the directory.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jeton_core::{
    Assertions, Authority, BoxFuture, Clock, Credential, Identity, IdentityKind, IssuedToken, OperationKind,
    SharedDirectory, Target, Token, TokenKey, Uid, Wall,
    profile::{AuthorityLimits, ErrorClass, RegistrationStyle, TargetStyle},
};
use jeton_engine::{IssueError, IssueErrorClass, TokenSource};
use jeton_http::Bounds;
use jeton_lifecycle::{ClientRegistry, IdentityStore, Registered, RegistryError, RegistryErrorClass};
use secrecy::SecretString;

use crate::{
    Http, HttpError,
    calls::Calls,
    classify::Refusal,
    holds::Holds,
    skew::Skews,
    token::{Client, Granted},
    trust,
};

/// A key that was registered less than this ago may not have spread through the authority yet.
const SPREADING: Duration = Duration::from_secs(600);

/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The bounds of the client of an authority with these limits.
pub fn bounds(limits: &AuthorityLimits) -> Bounds {
    Bounds {
        connect: Duration::from_secs(u64::from(limits.connect_timeout_seconds)),
        call: limits.call_timeout(),
        idle: Duration::from_secs(u64::from(limits.connection_idle_seconds)),
        max_idle: limits.max_concurrent as usize,
        max_answer_bytes: MAX_ANSWER_BYTES,
        plain_loopback: false,
    }
}

/// What the adapter needs of the world.
pub struct Ports {
    /// Who exists.
    pub directory: SharedDirectory,
    /// Who signs.
    pub assertions: Arc<dyn Assertions>,
    /// Where sealed secrets are.
    pub store: Arc<dyn IdentityStore>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

/// A cloneable handle.
#[derive(Clone)]
pub struct AuthorityClient(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) directory: SharedDirectory,
    pub(crate) assertions: Arc<dyn Assertions>,
    pub(crate) store: Arc<dyn IdentityStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) skews: Skews,
    pub(crate) holds: Holds,
    pub(crate) calls: Calls,
    /// One for each authority, of the record's present version.
    pub(crate) clients: Mutex<HashMap<Uid, (u64, Http)>>,
    /// Tokens for Graph: registrars' and identities' own. Never served to anyone.
    pub(crate) graph_tokens: Mutex<HashMap<Uid, (SecretString, Wall)>>,
    /// Whoever asks for such a token lets the others of the same credential wait, so that they find it, or the refusal.
    pub(crate) turns: Mutex<HashMap<Uid, Arc<tokio::sync::Mutex<()>>>>,
}

impl fmt::Debug for AuthorityClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorityClient").finish_non_exhaustive()
    }
}

impl AuthorityClient {
    /// For the authorities of a directory.
    pub fn new(ports: Ports) -> Self {
        Self(Arc::new(Inner {
            directory: ports.directory,
            assertions: ports.assertions,
            store: ports.store,
            clock: ports.clock,
            skews: Skews::default(),
            holds: Holds::default(),
            calls: Calls::default(),
            clients: Mutex::default(),
            graph_tokens: Mutex::default(),
            turns: Mutex::default(),
        }))
    }
}

impl Inner {
    /// The client of an authority.
    pub(crate) fn http(&self, authority: &Authority) -> Result<Http, HttpError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((version, http)) = clients.get(&authority.uid)
            && *version == authority.version
        {
            return Ok(http.clone());
        }
        let http = Http::new(trust(authority.ca_file.as_deref())?, bounds(&authority.profile.limits));
        clients.insert(authority.uid, (authority.version, http.clone()));
        Ok(http)
    }

    async fn issue(&self, key: &TokenKey) -> Result<IssuedToken, IssueError> {
        let directory = self.directory.snapshot();
        let denied =
            || issue_error(IssueErrorClass::Denied, "the identity is disabled, deleted or not ready");
        let identity = directory.identity(key.identity).filter(|i| i.may_issue()).ok_or_else(denied)?;
        let authority =
            directory.authority(identity.authority).filter(|a| a.uid == key.authority).ok_or_else(denied)?;
        let (Some(client_id), Some(credential)) = (&identity.client_id, identity.current()) else {
            return Err(denied());
        };
        let span = jeton_trace::current();
        span.text("jeton.identity", &identity.name);
        span.text("jeton.authority", &authority.name);
        let client = Client { owner: identity.uid, client_id, credential };
        let granted = self.grant(authority, client, &key.target, key.claims.as_ref()).await;
        match granted {
            Ok(granted) => Ok(issued(granted, identity, client_id, &key.target, authority.profile.target)),
            Err(refused) => Err(self.classified(refused, identity, credential)),
        }
    }

    /// One that is disabled has its tokens revoked too.
    async fn revoke_token(
        &self,
        authority: &Authority,
        identity: Uid,
        endpoint: &str,
        token: &Token,
    ) -> Result<(), IssueError> {
        let directory = self.directory.snapshot();
        let gone = || issue_error(IssueErrorClass::Denied, "the identity has no credential any more");
        let identity = directory.identity(identity).ok_or_else(gone)?;
        let (Some(client_id), Some(credential)) = (&identity.client_id, identity.current()) else {
            return Err(gone());
        };
        let client = Client { owner: identity.uid, client_id, credential };
        let revoked = self.revoke(authority, client, endpoint, &token.issued.access_token).await;
        revoked.map_err(|refused| self.classified(refused, identity, credential))
    }

    fn classified(&self, refused: Refusal, identity: &Identity, credential: &Credential) -> IssueError {
        let class = match refused.class {
            _ if refused.unusable => IssueErrorClass::Credential,
            ErrorClass::Throttled => IssueErrorClass::Throttled,
            ErrorClass::Transient | ErrorClass::Replay | ErrorClass::ClockSkew => IssueErrorClass::Transient,
            ErrorClass::KeyUnknown if self.spreading(identity, credential) => IssueErrorClass::Transient,
            ErrorClass::KeyUnknown | ErrorClass::InvalidClient | ErrorClass::Permanent => {
                IssueErrorClass::Permanent
            }
        };
        IssueError {
            class,
            retry_after: refused.retry_after,
            code: refused.code,
            message: refused.message.into(),
        }
    }

    fn spreading(&self, identity: &Identity, credential: &Credential) -> bool {
        self.clock.now().wall.saturating_since(identity.known_since(credential)) < SPREADING
    }

    async fn verify(
        &self,
        authority: &Authority,
        identity: &Identity,
        credential: &Credential,
    ) -> Result<(), RegistryError> {
        let permanent = |message: String| RegistryError {
            class: RegistryErrorClass::Permanent,
            retry_after: None,
            message,
        };
        let client_id =
            identity.registered_client().ok_or_else(|| permanent("the identity has no client id".into()))?;
        let target = Target::resolve(&authority.profile.verify_target, &authority.profile);
        let target =
            target.map_err(|e| permanent(format!("the profile's verify_target cannot be asked for: {e}")))?;
        let client = Client { owner: identity.uid, client_id, credential };
        let outcome = self.grant(authority, client, &target, None).await;
        outcome.map(drop).map_err(|refused| {
            // Right after a registration an unknown client or key only means that the change has not spread.
            let proved = identity.operation.as_ref().is_some_and(|o| o.kind == OperationKind::Verify);
            let created = identity.kind == IdentityKind::Created;
            let fresh = created && !proved && self.spreading(identity, credential);
            let class = match refused.class {
                ErrorClass::KeyUnknown | ErrorClass::InvalidClient if fresh => RegistryErrorClass::Transient,
                ErrorClass::KeyUnknown | ErrorClass::InvalidClient | ErrorClass::Permanent => {
                    RegistryErrorClass::Permanent
                }
                _ => RegistryErrorClass::Transient,
            };
            RegistryError { class, retry_after: refused.retry_after, message: refused.message }
        })
    }
}

/// What was asked for, where the authority does not say what it granted (RFC 6749 section 5.1).
fn asked_for(target: &Target, style: TargetStyle) -> Arc<[Arc<str>]> {
    match (style, target.resource()) {
        (TargetStyle::EntraDefault, Some(resource)) => [format!("{resource}/.default").into()].into(),
        _ => target.scopes().into(),
    }
}

fn issued(
    granted: Granted,
    identity: &Identity,
    client_id: &Arc<str>,
    target: &Target,
    style: TargetStyle,
) -> IssuedToken {
    let asked = target.scopes();
    let scopes = granted.scopes.unwrap_or_else(|| asked_for(target, style));
    if !asked.is_empty() && asked.iter().any(|scope| !scopes.contains(scope)) {
        tracing::warn!(identity = %identity.name, %target, granted = scopes.join(" "), "the authority granted less than was asked for: grant the client the rest there, or have callers ask for less");
    }
    IssuedToken {
        access_token: granted.access_token,
        token_type: granted.token_type,
        expires_in: granted.expires_in,
        refresh_in: granted.refresh_in,
        scopes,
        identity: identity.name.clone(),
        client_id: Arc::clone(client_id),
    }
}

fn issue_error(class: IssueErrorClass, message: &str) -> IssueError {
    IssueError { class, retry_after: None, code: None, message: message.into() }
}

impl TokenSource for AuthorityClient {
    fn prepare(&self, key: &TokenKey, ahead: Duration) {
        let directory = self.0.directory.load();
        let Some(identity) = directory.identity(key.identity).filter(|i| i.may_issue()) else { return };
        let Some(authority) = directory.authority(identity.authority) else { return };
        if let (Some(client_id), Some(credential)) = (&identity.client_id, identity.current()) {
            let client = Client { owner: identity.uid, client_id, credential };
            if let Some(request) = self.0.assertion_request(authority, client) {
                self.0.assertions.prepare(&request, ahead);
            }
        }
    }

    fn issue(&self, key: TokenKey) -> BoxFuture<'static, Result<IssuedToken, IssueError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.issue(&key).await })
    }

    fn revoke(
        &self,
        key: &TokenKey,
        token: Arc<Token>,
    ) -> Option<BoxFuture<'static, Result<(), IssueError>>> {
        let authority = Arc::clone(self.0.directory.load().authority(key.authority)?);
        let endpoint = authority.profile.revocation_endpoint.clone()?;
        let (inner, identity) = (Arc::clone(&self.0), key.identity);
        Some(Box::pin(async move { inner.revoke_token(&authority, identity, &endpoint, &token).await }))
    }
}

type Change<'a> = BoxFuture<'a, Result<Registered, RegistryError>>;

impl ClientRegistry for AuthorityClient {
    fn register<'a>(
        &'a self,
        authority: &'a Authority,
        identity: &'a Identity,
        credential: &'a Credential,
    ) -> Change<'a> {
        Box::pin(async move {
            match &authority.profile.registration {
                RegistrationStyle::Graph { base, .. } => {
                    self.0.graph_register(base, authority, identity, credential).await
                }
                RegistrationStyle::Dynamic { endpoint, .. } => {
                    self.0.dynamic_register(endpoint, authority, identity, credential).await
                }
                RegistrationStyle::None => Err(cannot_register(authority)),
            }
        })
    }

    fn add_key<'a>(
        &'a self,
        authority: &'a Authority,
        identity: &'a Identity,
        credential: &'a Credential,
    ) -> Change<'a> {
        Box::pin(async move {
            match &authority.profile.registration {
                RegistrationStyle::Graph { base, .. } => {
                    self.0.graph_add_key(base, authority, identity, credential).await
                }
                RegistrationStyle::Dynamic { .. } => {
                    let keys: Vec<_> = identity.current().into_iter().chain([credential]).collect();
                    self.0.dynamic_put_keys(authority, identity, &keys).await
                }
                RegistrationStyle::None => Err(cannot_register(authority)),
            }
        })
    }

    fn remove_key<'a>(
        &'a self,
        authority: &'a Authority,
        identity: &'a Identity,
        credential: &'a Credential,
    ) -> Change<'a> {
        Box::pin(async move {
            match &authority.profile.registration {
                RegistrationStyle::Graph { base, .. } => {
                    self.0.graph_remove_key(base, authority, identity, credential).await
                }
                RegistrationStyle::Dynamic { .. } => {
                    let keys: Vec<_> =
                        identity.current().into_iter().filter(|c| c.uid != credential.uid).collect();
                    self.0.dynamic_put_keys(authority, identity, &keys).await
                }
                RegistrationStyle::None => Err(cannot_register(authority)),
            }
        })
    }

    fn verify<'a>(
        &'a self,
        authority: &'a Authority,
        identity: &'a Identity,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(async move { self.0.verify(authority, identity, credential).await })
    }

    fn delete<'a>(
        &'a self,
        authority: &'a Authority,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(async move {
            match &authority.profile.registration {
                RegistrationStyle::Graph { base, .. } => self.0.graph_delete(base, authority, identity).await,
                RegistrationStyle::Dynamic { .. } => self.0.dynamic_delete(authority, identity).await,
                RegistrationStyle::None => Ok(()),
            }
        })
    }
}

fn cannot_register(authority: &Authority) -> RegistryError {
    RegistryError {
        class: RegistryErrorClass::Permanent,
        retry_after: None,
        message: format!("{} registers no clients: attach an identity that exists there", authority.name),
    }
}
