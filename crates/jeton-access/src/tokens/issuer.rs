//! One issuer: its rules, and its keys as they were last published.
//!
//! A task of its own fetches the keys, periodically and when a token names one that is not known, so no caller's patience decides over
//! a fetch. Whoever waits for it waits for the one that is under way.

use std::{fmt, sync::Arc, time::Duration};

use jeton_core::{Published, Wall};
use jsonwebtoken::{Algorithm, Validation, decode, errors::ErrorKind};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{
    claims::Claims,
    jwt::Unverified,
    keys::{self, KeySet, NoKey},
    review::Reviews,
    settings::{IssuerKind, IssuerSettings, KeysAt},
    shown,
    subject::Subjects,
};
use crate::{KeySetSource, Rejected, TokenReview};

/// Longest time of one fetch in all.
const FETCH_DEADLINE: Duration = Duration::from_secs(5);
/// Keys are not fetched more often than this, whoever asks.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(30);
/// A file costs nobody anything.
const FILE_INTERVAL: Duration = Duration::from_secs(2);

pub(crate) struct Issuer {
    /// How logs and errors name it.
    pub(crate) label: String,
    pub(crate) audience: String,
    pub(crate) subjects: Subjects,
    pub(crate) leeway: Duration,
    pub(crate) reviews: Option<Reviews>,
    issuer: Option<String>,
    algorithms: Vec<Algorithm>,
    /// None until they were fetched once.
    keys: Published<Option<KeySet>>,
    every: Duration,
    /// When somebody last missed a key.
    wanted: watch::Sender<Option<Instant>>,
    fetches: watch::Sender<Fetch>,
}

/// The latest fetch.
#[derive(Debug, Clone, Default)]
struct Fetch {
    begun: Option<Instant>,
    under_way: bool,
    failure: Option<String>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Issuer {
    pub(crate) fn new(settings: &IssuerSettings, review: Option<Arc<dyn TokenReview>>) -> Self {
        let subjects = match settings.kind {
            IssuerKind::Kubernetes => {
                Subjects::Kubernetes { cluster: settings.cluster.clone(), require_pod: settings.require_pod }
            }
            IssuerKind::Spiffe => Subjects::Spiffe { trust_domain: settings.trust_domain.clone() },
            IssuerKind::Oidc => Subjects::Oidc { name: settings.oidc_name().to_owned() },
        };
        let issuer = Some(settings.issuer.clone()).filter(|issuer| !issuer.is_empty());
        let every = match settings.keys_at() {
            KeysAt::File(_) => FILE_INTERVAL,
            _ => Duration::from_secs(settings.refresh_seconds),
        };
        Self {
            label: issuer.clone().unwrap_or_else(|| settings.prefix()),
            audience: settings.audience.clone(),
            subjects,
            leeway: settings.leeway(),
            reviews: review.map(Reviews::new),
            issuer,
            algorithms: settings.algorithms.iter().filter_map(|name| keys::algorithm(name)).collect(),
            keys: Published::default(),
            every,
            wanted: watch::Sender::default(),
            fetches: watch::Sender::default(),
        }
    }

    /// Whether a token says that it is of this issuer. Whether it is, its signature tells.
    pub(crate) fn is_named_by(&self, token: &Unverified<'_>) -> bool {
        match (&self.issuer, &self.subjects) {
            (Some(issuer), _) => token.issuer.as_ref() == Some(issuer),
            (None, Subjects::Spiffe { trust_domain }) => {
                let rest = token.subject.as_deref().and_then(|s| s.strip_prefix("spiffe://"));
                rest.is_some_and(|rest| rest.split('/').next() == Some(trust_domain))
            }
            (None, _) => false,
        }
    }

    /// Grows when the keys change: what was verified before has to be verified again.
    pub(crate) fn revision(&self) -> u64 {
        self.keys.revision()
    }

    /// Verifies the signature with the key that the token names, and that it is of this issuer. The revision belongs to the keys.
    /// None: no such key is known.
    pub(crate) fn try_verify(&self, token: &Unverified<'_>) -> Option<Result<(Claims, u64), Rejected>> {
        // Read before the keys: if these change meanwhile, what they verified is not remembered.
        let revision = self.keys.revision();
        let keys = self.keys.load();
        let header = &token.header;
        let (key, algorithm) = match keys.as_ref().as_ref()?.select(header.kid.as_deref(), &header.alg) {
            Ok(found) => found,
            Err(NoKey::Unknown) => return None,
            Err(NoKey::Unfit(why)) => return Some(Err(Rejected::Credential(why))),
        };
        if let Err(why) = header.check_type(self.subjects.token_types()) {
            return Some(Err(Rejected::Credential(why)));
        }
        // The times are checked by our own clock.
        let mut rules = Validation::new(algorithm);
        (rules.validate_exp, rules.validate_nbf) = (false, false);
        rules.set_audience(&[&self.audience]);
        let mut required = vec!["exp", "aud", "sub"];
        if let Some(issuer) = &self.issuer {
            rules.set_issuer(&[issuer]);
            required.push("iss");
        }
        rules.set_required_spec_claims(&required);
        let decoded = decode(token.token, key.decoding(), &rules);
        Some(match decoded {
            Ok(it) => Ok((Claims(it.claims), revision)),
            Err(error) => Err(Rejected::Credential(self.reason(error.kind()))),
        })
    }

    fn reason(&self, kind: &ErrorKind) -> String {
        match kind {
            ErrorKind::InvalidSignature => format!("the token's signature is not {}'s", self.label),
            ErrorKind::InvalidAudience => format!("the token is not for {}", shown(&self.audience)),
            ErrorKind::InvalidIssuer => format!("the token is not of {}", self.label),
            ErrorKind::MissingRequiredClaim(claim) => format!("the token has no {claim}, or a malformed one"),
            ErrorKind::Base64(_) => {
                "the token's signature is not base64url without padding (RFC 7515)".into()
            }
            // The error itself may show what stands in the token.
            ErrorKind::Json(_) => "the token's claims are malformed".into(),
            other => format!("the token cannot be verified: {other:?}"),
        }
    }

    /// Waits until no fetch can help any more: for one that is under way, or for a new one where the last is long enough ago.
    pub(crate) async fn fetched(&self) {
        let mut fetches = self.fetches.subscribe();
        let waiting = async {
            loop {
                let Fetch { begun, under_way, .. } = *fetches.borrow_and_update();
                let recent = begun.is_some_and(|begun| begun.elapsed() < self.least_interval());
                if !under_way && recent {
                    return;
                }
                if !under_way {
                    self.wanted.send_replace(Some(Instant::now()));
                }
                if fetches.changed().await.is_err() || under_way {
                    return;
                }
            }
        };
        let _ = timeout(FETCH_DEADLINE * 2, waiting).await;
    }

    /// Why a token whose key is not known proves nothing.
    pub(crate) fn no_key(&self, token: &Unverified<'_>) -> Rejected {
        let label = &self.label;
        let kid = shown(token.header.kid.as_deref().unwrap_or_default());
        match &self.fetches.borrow().failure {
            Some(failure) => Rejected::Unavailable(format!(
                "the key {kid} of {label} is not known, and its keys cannot be fetched: {failure}"
            )),
            None if self.keys.load().is_none() => {
                Rejected::Unavailable(format!("the keys of {label} are not fetched yet"))
            }
            None => Rejected::Credential(format!("{label} publishes no key called {kid}")),
        }
    }

    fn least_interval(&self) -> Duration {
        self.every.min(MIN_FETCH_INTERVAL)
    }

    /// Keeps the keys as they are published. Never ends.
    pub(crate) async fn keep(self: Arc<Self>, source: Arc<dyn KeySetSource>) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let begun = Instant::now();
            self.fetches.send_modify(|fetch| {
                fetch.begun = Some(begun);
                fetch.under_way = true;
            });
            let fetched = timeout(FETCH_DEADLINE, source.fetch()).await;
            let late = || Err(format!("no answer within {} s", FETCH_DEADLINE.as_secs()));
            let outcome =
                fetched.unwrap_or_else(|_| late()).and_then(|set| KeySet::parse(&set, &self.algorithms));
            let failure = outcome.and_then(|set| self.take_over(set)).err();
            let next = if failure.is_some() { self.least_interval() } else { self.every };
            self.tell(failure.as_deref());
            self.fetches.send_modify(|fetch| {
                fetch.under_way = false;
                fetch.failure = failure;
            });
            // Whoever missed a key before that has had its answer by this fetch.
            let again = begun + self.least_interval();
            tokio::select! {
                () = sleep_until(begun + next) => {}
                _ = wanted.wait_for(|missed| missed.is_some_and(|at| at >= again)) => {}
            }
        }
    }

    /// An issuer that publishes no key at all takes all of them back.
    fn take_over(&self, set: KeySet) -> Result<(), String> {
        if self.keys.load().as_ref().as_ref() == Some(&set) {
            return Ok(());
        }
        tracing::info!(issuer = %self.label, keys = %set.names(), "the issuer's keys are these");
        self.keys.publish(Some(set));
        Ok(())
    }

    /// Its name and why its keys could not be fetched, if that is so since the last time.
    pub(super) fn failing(&self) -> Option<(String, String)> {
        let failure = self.fetches.borrow().failure.clone()?;
        Some((self.label.to_string(), failure))
    }

    fn tell(&self, failure: Option<&str>) {
        let failed_before = self.fetches.borrow().failure.is_some();
        match failure {
            Some(failure) if !failed_before => {
                tracing::error!(issuer = %self.label, failure, "the issuer's keys cannot be fetched: those that are known stay in use, new ones do not count");
            }
            Some(failure) => {
                tracing::warn!(issuer = %self.label, failure, "the issuer's keys cannot be fetched still")
            }
            None if failed_before => {
                tracing::info!(issuer = %self.label, "the issuer's keys can be fetched again")
            }
            None => {}
        }
    }

    /// Of a token whose claims are verified: until when it counts.
    pub(crate) fn check(&self, claims: &Claims, now: Wall) -> Result<Wall, String> {
        claims.check_audience(&self.audience)?;
        claims.check_times(now, self.leeway)
    }
}
