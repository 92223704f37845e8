//! Bearer tokens that are JWTs: service accounts of Kubernetes, SPIFFE JWT-SVIDs, OpenID Connect.
//!
//! The issuer is chosen by what the token says of itself, and everything else by the issuer: which keys, which algorithm each of them
//! signs with, which audience, which principals. So whoever forges the choice fails at the signature. What was verified is remembered
//! under the token's hash for at most a minute, and no longer than the keys that verified it are published.

mod claims;
mod issuer;
mod jwt;
mod keys;
mod memory;
mod review;
mod settings;
mod subject;

use std::{fmt, sync::Arc};

use futures_util::future::join_all;
use jeton_core::{BoxFuture, Clock, Wall};
use tokio::task::JoinSet;

use crate::{AccessSettings, Authenticated, BearerTokens, KeySetSource, Rejected, TokenReview};
use claims::Claims;
use issuer::Issuer;
use jwt::{MAX_TOKEN_BYTES, Unverified};
use memory::{Finding, Memory, TokenHash};
pub(crate) use settings::between;
pub use settings::{IssuerKind, IssuerSettings, KeysAt, TokenReviewSettings};

/// How long a TokenReview counts. An API server itself remembers a token's success for 10 s, so that of a deleted pod stops within a minute.
const REVIEWED: std::time::Duration = std::time::Duration::from_secs(45);
/// How long a refusal of a TokenReview is remembered: nobody takes it back soon, and whoever shows such a token again asks in vain.
const REFUSED: std::time::Duration = std::time::Duration::from_secs(10);

/// What one issuer needs of the world.
#[derive(Clone)]
pub struct IssuerPorts {
    /// Where its keys are.
    pub keys: Arc<dyn KeySetSource>,
    /// Who says whether a token still counts; none: its times alone do.
    pub review: Option<Arc<dyn TokenReview>>,
}

/// Judges the tokens of all configured issuers.
pub struct Tokens {
    issuers: Vec<Arc<Issuer>>,
    memory: Memory,
    clock: Arc<dyn Clock>,
}

/// The tasks that keep the issuers' keys.
#[derive(Debug)]
pub struct TokenTasks(JoinSet<()>);

impl Tokens {
    /// Begins to fetch the keys of the configured issuers, each with its ports, in their order.
    pub fn start(
        settings: &AccessSettings,
        ports: Vec<IssuerPorts>,
        clock: Arc<dyn Clock>,
    ) -> (Arc<Self>, TokenTasks) {
        let mut tasks = JoinSet::new();
        let issuers = settings.issuers.iter().zip(ports).map(|(settings, ports)| {
            let issuer = Arc::new(Issuer::new(settings, ports.review));
            tasks.spawn(Arc::clone(&issuer).keep(ports.keys));
            issuer
        });
        let issuers = issuers.collect();
        let memory = Memory::new(settings.max_remembered_tokens);
        (Arc::new(Self { issuers, memory, clock }), TokenTasks(tasks))
    }

    fn known<R>(&self, hash: &TokenHash, now: Wall, found: impl FnOnce(&Finding) -> Option<R>) -> Option<R> {
        let fresh = |finding: &Finding| self.issuers[finding.issuer].revision() == finding.revision;
        self.memory.find(hash, now, |finding| fresh(finding).then(|| found(finding)).flatten())
    }

    /// The issuer of a token, with what it says and the revision of the keys. Clusters that were never told another name share one, so
    /// there may be several who could be it: then the key decides.
    async fn verified(&self, token: &Unverified<'_>) -> Result<(usize, Claims, u64), Rejected> {
        let named = |(_, issuer): &(usize, &Arc<Issuer>)| issuer.is_named_by(token);
        let named: Vec<_> = self.issuers.iter().enumerate().filter(named).collect();
        let decided = || {
            named.iter().find_map(|(index, issuer)| {
                Some(issuer.try_verify(token)?.map(|(claims, revision)| (*index, claims, revision)))
            })
        };
        if let Some(decided) = decided() {
            return decided;
        }
        join_all(named.iter().map(|(_, issuer)| issuer.fetched())).await;
        if let Some(decided) = decided() {
            return decided;
        }
        // Of several, one that cannot be asked may have the key.
        let reasons = named.iter().map(|(_, issuer)| issuer.no_key(token));
        Err(reasons.max_by_key(|reason| matches!(reason, Rejected::Unavailable(_))).unwrap_or_else(|| {
            let said = shown(token.issuer.as_deref().or(token.subject.as_deref()).unwrap_or_default());
            Rejected::Credential(format!("the token is of {said}, which is no configured issuer"))
        }))
    }

    async fn prove(&self, text: &str) -> Result<Authenticated, Rejected> {
        let token = Unverified::parse(text).map_err(Rejected::Credential)?;
        let hash = TokenHash::of(text);
        if let Some(verdict) =
            self.known(&hash, self.clock.now().wall, |finding| Some(finding.verdict.clone()))
        {
            return verdict.map_err(Rejected::Credential);
        }
        let (index, claims, revision) = self.verified(&token).await?;
        let issuer = &self.issuers[index];
        let now = self.clock.now().wall;
        let ends = issuer.check(&claims, now).map_err(Rejected::Credential)?;
        let (principal, bound) = issuer.subjects.principal(&claims).map_err(Rejected::Credential)?;
        let proven = Authenticated { principal, until: Some(ends) };
        let (verdict, since, longest) = match (&issuer.reviews, &bound) {
            (Some(reviews), Some(bound)) => {
                // Another request may have asked while this one waited for the issuer's keys.
                if let Some(verdict) = self.known(&hash, now, |finding| Some(finding.verdict.clone())) {
                    return verdict.map_err(Rejected::Credential);
                }
                let answered = reviews.ask(hash, text, &issuer.audience, bound, now).await?;
                let longest = if answered.verdict.is_ok() { REVIEWED } else { REFUSED };
                (answered.verdict.map(|()| proven), answered.at, longest)
            }
            _ => (Ok(proven), now, Finding::LONGEST),
        };
        // Within the leeway after its end a token is verified each time.
        let until = (since + longest).min(ends - issuer.leeway);
        self.memory.remember(
            hash,
            Finding { verdict: verdict.clone(), issuer: index, revision, since, until },
            now,
        );
        verdict.map_err(Rejected::Credential)
    }
}

impl BearerTokens for Tokens {
    fn remembered(&self, token: &str, now: Wall) -> Option<Authenticated> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        self.known(&TokenHash::of(token), now, |finding| finding.verdict.as_ref().ok().cloned())
    }

    fn verify<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Authenticated, Rejected>> {
        Box::pin(self.prove(token))
    }

    fn failing(&self) -> Vec<(String, String)> {
        self.issuers.iter().filter_map(|issuer| issuer.failing()).collect()
    }
}

impl TokenTasks {
    /// Ends when a task dies, which none should; never where there is none.
    pub async fn ended(&mut self) -> &'static str {
        if self.0.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
        "the fetching of an issuer's keys"
    }

    /// Ends them all.
    pub async fn shutdown(mut self) {
        self.0.shutdown().await;
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("issuers", &self.issuers).finish_non_exhaustive()
    }
}

impl fmt::Debug for IssuerPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerPorts").finish_non_exhaustive()
    }
}

/// Something out of a token, short and without what would break a line of the log.
fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let short: String = text.chars().take(MOST).collect();
    if short.len() < text.len() { format!("{short:?}...") } else { format!("{short:?}") }
}
