//! TokenService.
//!
//! A token's message is encoded once, when it is put in its slot; all callers share the bytes. What goes out of here is read from
//! them, so what one caller sees is what every caller sees.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest::{Digest, SHA256, digest};
use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesOrdered};
use jeton_access::Authorized;
use jeton_core::{
    AuditEvent, AuditKind, AuditOutcome, AuditResource, Claims, Freshness, IdentityName, Principal,
    RoleAssignment, TargetRequest, Token, TokenHash, TokenKey,
};
use jeton_engine::{Account, Ask, Encoded, Hit, Rejected};
use jeton_proto::v1::{self, token_service_server::TokenService};
use prost::Message;
use secrecy::ExposeSecret;
use tonic::{Request, Response, Status, Streaming};

use super::{
    convert::{duration, timestamp, wire_duration},
    error::{Failure, Reason},
    routes::{Broker, MAX_BATCH_RESPONSE_BYTES},
    watch,
};
use crate::{
    correlation,
    door::{Answer, Caller, deadline},
    seldom::Seldom,
};

const MAX_BATCH: usize = 100;
/// Longest target as it was asked, in an audit record, in characters.
const MAX_ASKED: usize = 300;
/// Tokens of a batch's answer, in bytes: a hundred of 7 KiB. The rest is for failures.
const MAX_BATCH_TOKENS: usize = MAX_BATCH_RESPONSE_BYTES / 4 * 3;
/// Under the longest wait of the door, so that a caller gets our words and not only a deadline.
const LONGEST_WAIT: Duration = Duration::from_millis(9_500);

/// The flag and the length before a gRPC message.
const PREFIX: usize = 5;

/// The wire bytes of a fresh token's GetTokenResponse, framed as a gRPC message: the engine keeps them beside the token. Only the last
/// byte changes in the token's life.
pub fn encode_token(token: &Token) -> Encoded {
    let hash = TokenHash::new(sha256(token).as_ref());
    let token = v1::Token {
        access_token: token.issued.access_token.expose_secret().to_owned(),
        token_type: token.issued.token_type.to_string(),
        expires_at: Some(timestamp(token.expires_at)),
        refresh_at: Some(timestamp(token.refresh_at)),
        issued_at: Some(timestamp(token.issued_at)),
        identity: token.issued.identity.to_string(),
        client_id: token.issued.client_id.to_string(),
        scopes: token.issued.scopes.iter().map(ToString::to_string).collect(),
    };
    let response = v1::GetTokenResponse { token: Some(token), state: v1::TokenState::Fresh.into() };
    let length = response.encoded_len();
    let mut framed = Vec::with_capacity(PREFIX + length);
    framed.push(0);
    // A token has kilobytes; what an authority may answer is bounded.
    framed.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // It fails where there is no more room, and a vector grows.
    let _ = response.encode(&mut framed);
    Encoded { bytes: framed.into(), hash }
}

fn sha256(token: &Token) -> Digest {
    digest(&SHA256, token.issued.access_token.expose_secret().as_bytes())
}

/// The same bytes for the token when it is stale: the state is the last field, and one byte.
pub(super) fn stale(fresh: &Bytes) -> Answer {
    Answer::ending(fresh.clone(), v1::TokenState::Stale as u8)
}

/// A token lives as long as its authority says: one that a role assignment does not let out is not handed out at all.
pub(super) fn short_enough(most: Option<Duration>, lifetime: Duration) -> Result<(), Failure> {
    match most {
        Some(most) if lifetime > most => {
            let text = format!(
                "the authority's tokens live {} s, and this caller's role assignment allows {} s at most",
                lifetime.as_secs(),
                most.as_secs()
            );
            Err(Failure::new(Reason::FailedPrecondition, text))
        }
        _ => Ok(()),
    }
}

/// A request in the broker's own words.
pub(super) struct Wanted {
    pub(super) identity: Option<IdentityName>,
    pub(super) target: TargetRequest,
    pub(super) claims: Option<Claims>,
}

impl Wanted {
    pub(super) fn parse(request: &v1::GetTokenRequest) -> Result<Self, Failure> {
        let identity = match request.identity.as_str() {
            "" => None,
            name => Some(name.parse()?),
        };
        let claims = Claims::parse(&request.claims)?;
        let target = TargetRequest { scopes: request.scopes.clone(), resources: request.resources.clone() };
        Ok(Self { identity, target, claims })
    }
}

/// Filled by the door: every request has its caller.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
    let found = request.extensions().get::<Arc<Caller>>().cloned();
    found.ok_or_else(|| Status::unauthenticated("this connection has no authenticated caller"))
}

/// Whose limits count for what was authorized.
pub(super) fn account(caller: &Caller, authorized: &Authorized) -> Account {
    let RoleAssignment { uid, limits, .. } = *authorized.assignment;
    Account { principal: caller.principal.clone(), terms: (!limits.are_usual()).then_some((uid, limits)) }
}

pub(super) fn response(hit: &Hit) -> Result<v1::GetTokenResponse, Failure> {
    let mut response = v1::GetTokenResponse::decode(hit.encoded.bytes.slice(PREFIX..))
        .map_err(|_| Failure::new(Reason::AuthorityUnavailable, "the token cannot be read back"))?;
    if hit.state != Freshness::Fresh {
        response.set_state(v1::TokenState::Stale);
    }
    Ok(response)
}

/// An entry of a batch, if so many bytes of tokens still have room for it.
fn fitting(
    outcome: Result<v1::GetTokenResponse, Failure>,
    left: &mut usize,
) -> v1::batch_get_tokens_result::Outcome {
    use v1::batch_get_tokens_result::Outcome;
    let fitting = outcome.and_then(|response| {
        let rest = left.checked_sub(response.encoded_len());
        *left = rest.ok_or_else(|| Failure::too_large("the tokens of this batch fill its answer"))?;
        Ok(response)
    });
    fitting.map_or_else(|failure| Outcome::Failure(failure.into()), Outcome::Response)
}

impl From<Failure> for v1::Failure {
    fn from(failure: Failure) -> Self {
        let failure = failure.told();
        Self {
            code: failure.code() as i32,
            reason: failure.name().into(),
            message: failure.message,
            metadata: failure.metadata,
            retry_delay: failure.retry.map(wire_duration),
        }
    }
}

fn denied(principal: &Principal, event: &AuditEvent, correlation_id: &str) {
    static LOG: Seldom = Seldom::new();
    let (asked, target) = (event.resources.first().map(|identity| &*identity.name), event.target.as_deref());
    LOG.line("denied", principal, |left_out| {
        tracing::info!(%principal, correlation_id, asked, target, left_out, "a caller gets no token: `jeton access explain --correlation` with this id says why");
    });
}

impl Broker {
    pub(super) fn authorize(
        &self,
        caller: &Caller,
        request: &v1::GetTokenRequest,
    ) -> Result<Authorized, Failure> {
        let Wanted { identity, target, claims } = Wanted::parse(request)?;
        let (access, principal) = (&self.access, &caller.principal);
        let authorized =
            access.authorize(principal, identity.as_ref(), &target, claims, correlation::current);
        authorized.map_err(|refused| {
            let failure = Failure::from(refused);
            self.audit_refusal(caller, request, AuditKind::AccessDenied, AuditOutcome::Denied, &failure);
            failure
        })
    }

    /// What was asked for as it was asked: in a refusal nothing of it may be true.
    pub(crate) fn audit_refusal(
        &self,
        caller: &Caller,
        request: &v1::GetTokenRequest,
        kind: AuditKind,
        outcome: AuditOutcome,
        failure: &Failure,
    ) {
        let mut event = AuditEvent::new(kind, outcome);
        event.principal = Some(caller.principal.clone());
        event.peer = Some(caller.peer.to_string().into());
        let directory = self.lifecycle.directory();
        let workload = directory.workload_of(&caller.principal);
        event.workload = workload.map(|w| AuditResource::new(w.name.as_str(), Some(w.uid)));
        if let Ok(name) = request.identity.parse::<IdentityName>() {
            let uid = directory.identity_named(&name).map(|identity| identity.uid);
            event.resources.push(AuditResource::new(name.as_str(), uid));
        }
        let asked = [&request.scopes[..], &request.resources[..]].concat().join(" ");
        event.target = Some(asked.chars().take(MAX_ASKED).collect());
        event.reason = Some(failure.name().into());
        let id = failure.metadata.get("correlation_id").cloned().unwrap_or_default();
        if kind == AuditKind::AccessDenied {
            denied(&caller.principal, &event, &id);
        }
        event.correlation_id = Some(id.into());
        self.tally.refused(event);
    }

    /// A token that the caller may have, and what it is counted as.
    pub(super) fn count(&self, caller: &Caller, authorized: &Authorized, hit: &Hit) {
        let usage = self.tally.usage(&caller.principal, &authorized.key);
        usage.served(hit.encoded.hash, self.clock.now().wall);
    }

    async fn token(
        &self,
        caller: &Caller,
        request: &v1::GetTokenRequest,
        wait: Option<Duration>,
    ) -> Result<v1::GetTokenResponse, Failure> {
        response(&self.hit(caller, request, wait).await?)
    }

    /// The token that a caller asks for: from memory, or when the authority has answered.
    pub(crate) async fn hit(
        &self,
        caller: &Caller,
        request: &v1::GetTokenRequest,
        wait: Option<Duration>,
    ) -> Result<Hit, Failure> {
        if !self.tally.has_room() {
            return Err(no_room());
        }
        let authorized = self.authorize(caller, request)?;
        let min_validity = request.min_validity.as_ref().map(|d| duration("min_validity", d)).transpose()?;
        let in_memory = if min_validity.is_none() { self.engine.cached(&authorized.key) } else { None };
        let hit = match in_memory {
            Some(hit) => hit,
            None => {
                let wait = Some(wait.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT));
                let ask = Ask { caller: account(caller, &authorized), wait, min_validity };
                let hit = self.engine.token(&authorized.key, ask).await.map_err(|error| {
                    let failure = Failure::from(error).told();
                    self.audit_refusal(
                        caller,
                        request,
                        AuditKind::TokenServed,
                        AuditOutcome::Failed,
                        &failure,
                    );
                    failure
                })?;
                // What was allowed when it was asked may have been taken back while it was waited for.
                self.authorize(caller, request)?;
                hit
            }
        };
        short_enough(authorized.max_lifetime(), hit.token.lifetime())?;
        self.count(caller, &authorized, &hit);
        Ok(hit)
    }

    /// A resource refused the token with this SHA-256: if it is the present one, it is refreshed, unless that was done lately.
    pub(crate) fn report(
        &self,
        caller: &Caller,
        request: &v1::GetTokenRequest,
        refused: &[u8],
    ) -> Result<(TokenKey, Rejected), Failure> {
        let authorized = self.authorize(caller, request)?;
        let is_refused = |token: &Token| sha256(token).as_ref() == refused;
        let account = account(caller, &authorized);
        let reported =
            self.engine.report_rejected(&authorized.key, account, is_refused).map_err(Failure::from)?;
        Ok((authorized.key, reported))
    }
}

/// What a caller is told while `audit.on_full` is `refuse` and the log is full.
pub(super) fn no_room() -> Failure {
    let text = "the audit log does not take more, and this broker hands out nothing that is not on it";
    Failure::new(Reason::AuditUnavailable, text)
}

#[tonic::async_trait]
impl TokenService for Broker {
    type WatchTokensStream = watch::Responses;

    async fn get_token(
        &self,
        request: Request<v1::GetTokenRequest>,
    ) -> Result<Response<v1::GetTokenResponse>, Status> {
        let (caller, wait) = (caller(&request)?, deadline::asked(request.metadata().as_ref()));
        Ok(Response::new(self.token(&caller, request.get_ref(), wait).await?))
    }

    async fn batch_get_tokens(
        &self,
        request: Request<v1::BatchGetTokensRequest>,
    ) -> Result<Response<v1::BatchGetTokensResponse>, Status> {
        let (caller, wait) = (caller(&request)?, deadline::asked(request.metadata().as_ref()));
        let requests = request.into_inner().requests;
        if requests.len() > MAX_BATCH {
            return Err(Failure::field(
                "requests",
                format!("{} in one call; at most 100 are taken", requests.len()),
            )
            .into());
        }
        let outcomes: FuturesOrdered<_> =
            requests.iter().map(|request| correlation::part(self.token(&caller, request, wait))).collect();
        let mut left = MAX_BATCH_TOKENS;
        let results =
            outcomes.map(|outcome| v1::BatchGetTokensResult { outcome: Some(fitting(outcome, &mut left)) });
        Ok(Response::new(v1::BatchGetTokensResponse { results: results.collect().await }))
    }

    async fn watch_tokens(
        &self,
        request: Request<Streaming<v1::WatchTokensRequest>>,
    ) -> Result<Response<watch::Responses>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(watch::start(self.clone(), caller, request.into_inner())))
    }

    async fn report_rejected_token(
        &self,
        request: Request<v1::ReportRejectedTokenRequest>,
    ) -> Result<Response<v1::ReportRejectedTokenResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        if request.token_sha256.len() != 32 {
            return Err(Failure::field(
                "token_sha256",
                format!("{} bytes; a SHA-256 has 32", request.token_sha256.len()),
            )
            .into());
        }
        let wanted = v1::GetTokenRequest {
            identity: request.identity,
            scopes: request.scopes,
            resources: request.resources,
            claims: request.claims,
            min_validity: None,
        };
        let (_, reported) = self.report(&caller, &wanted, &request.token_sha256)?;
        let outcome = match reported {
            Rejected::Refreshing => v1::ReportOutcome::Refreshing,
            Rejected::Superseded => v1::ReportOutcome::Superseded,
            Rejected::TooSoon => v1::ReportOutcome::TooSoon,
        };
        Ok(Response::new(v1::ReportRejectedTokenResponse { outcome: outcome.into() }))
    }
}

#[cfg(test)]
mod tests {
    use v1::batch_get_tokens_result::Outcome;

    use super::*;

    #[test]
    fn a_batch_takes_what_fits_into_its_answer_and_says_of_the_rest_to_ask_again() {
        let of = |bytes| v1::GetTokenResponse {
            token: Some(v1::Token { access_token: "x".repeat(bytes), ..Default::default() }),
            ..Default::default()
        };
        // The longest that a hundred may have, or near it; then some that are far longer.
        for (bytes, fit) in [(7 * 1_024, 100), (60 * 1_024, 12)] {
            let mut left = MAX_BATCH_TOKENS;
            let outcomes = (0..100).map(|_| fitting(Ok(of(bytes)), &mut left));
            let results: Vec<_> =
                outcomes.map(|outcome| v1::BatchGetTokensResult { outcome: Some(outcome) }).collect();
            for (n, result) in results.iter().enumerate() {
                match result.outcome.as_ref().unwrap() {
                    Outcome::Response(_) => assert!(n < fit, "{n} of {bytes} bytes"),
                    Outcome::Failure(failure) => {
                        assert!(n >= fit && failure.reason == "REQUEST_TOO_LARGE", "{n}: {failure:?}");
                    }
                }
            }
            let answer = v1::BatchGetTokensResponse { results };
            assert!(answer.encoded_len() <= MAX_BATCH_RESPONSE_BYTES, "{}", answer.encoded_len());
        }
    }
}
