//! Who asks: the connection's caller, or whom the request's bearer token names (RFC 6750).
//!
//! A token that is there must be good, and names the caller whoever the connection is: a caller that means to act by its token must not
//! act by its certificate when the token has run out.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use jeton_access::{BearerTokens, Rejected};
use tonic::{Status, body::Body};

use super::{
    Caller, Moment,
    request::{Common, Shared},
};

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthenticationFailure {
    /// Whoever comes from there.
    Place,
    /// No TLS came about, or the certificate is not good.
    Handshake,
    /// Nothing was shown.
    Missing,
    /// The connection's certificate has expired.
    Expired,
    /// What the connection was let in by is not trusted any more.
    Withdrawn,
    /// The header is not one bearer token.
    Malformed,
    /// The token, or the secret, is not good.
    Token,
    /// Nobody could judge the token.
    Unavailable,
}

impl AuthenticationFailure {
    /// What all are called in metrics.
    pub const NAMES: [&str; 8] =
        ["place", "handshake", "missing", "expired", "withdrawn", "malformed", "token", "unavailable"];

    /// For the operator, where nothing says it better.
    const fn reason(self) -> &'static str {
        match self {
            Self::Place => "nobody from there is let in",
            Self::Handshake => "no TLS came about",
            Self::Missing => "neither a certificate nor a bearer token was shown",
            Self::Expired => "the connection's certificate has expired",
            Self::Withdrawn => "the connection's credential was taken back",
            Self::Malformed => "the authorization header is not one bearer token",
            Self::Token => "the bearer token is not good",
            Self::Unavailable => "the bearer token cannot be verified now",
        }
    }
}

/// Who a request is from, as far as it shows at once.
pub(crate) enum Named<'a> {
    /// The connection's caller.
    Connection(&'a Arc<Caller>),
    /// Of a token that is remembered.
    Token(Caller),
    /// Of a token that has to be verified.
    Unverified,
    /// Of nobody, and why: for the operator.
    Nobody(AuthenticationFailure),
}

impl Named<'_> {
    /// The caller, where it is known.
    pub(crate) fn caller(&self) -> Option<&Caller> {
        match self {
            Self::Connection(caller) => Some(caller),
            Self::Token(caller) => Some(caller),
            Self::Unverified | Self::Nobody(_) => None,
        }
    }

    /// For what outlives the turn.
    pub(crate) fn kept(self) -> Asker {
        match self {
            Self::Connection(caller) => Asker::Known(Arc::clone(caller)),
            Self::Token(caller) => Asker::Known(Arc::new(caller)),
            Self::Unverified => Asker::Unverified,
            Self::Nobody(reason) => Asker::Nobody(reason),
        }
    }
}

/// The same, on the long way.
pub(crate) enum Asker {
    Known(Arc<Caller>),
    Unverified,
    Nobody(AuthenticationFailure),
}

impl Shared {
    /// Who a request is from. Nothing is allocated and nothing is waited for.
    pub(crate) fn named<B>(&self, request: &Request<B>, moment: &mut Moment) -> Named<'_> {
        let headers = request.headers();
        if let Some(bearer) = &self.common.bearer
            && headers.contains_key(AUTHORIZATION)
        {
            return self.by_token(bearer.as_ref(), headers, moment);
        }
        match &self.caller {
            None => Named::Nobody(AuthenticationFailure::Missing),
            Some(_) if self.standing.is_over() => Named::Nobody(AuthenticationFailure::Withdrawn),
            Some(caller) => match caller.until {
                Some(until) if moment.now(&*self.common.clock).wall >= until => {
                    Named::Nobody(AuthenticationFailure::Expired)
                }
                _ => Named::Connection(caller),
            },
        }
    }

    fn by_token(&self, bearer: &dyn BearerTokens, headers: &HeaderMap, moment: &mut Moment) -> Named<'_> {
        let Some(token) = token(headers) else {
            return Named::Nobody(AuthenticationFailure::Malformed);
        };
        match bearer.remembered(token, moment.now(&*self.common.clock).wall) {
            Some(found) => Named::Token(Caller {
                principal: found.principal,
                peer: self.peer.clone(),
                until: found.until,
            }),
            None => Named::Unverified,
        }
    }

    /// Verifies the request's token. An error is the answer.
    pub(crate) async fn verified<B>(&self, request: &Request<B>) -> Result<Arc<Caller>, Response<Body>> {
        let (Some(bearer), Some(token)) = (&self.common.bearer, token(request.headers())) else {
            return Err(self.common.unauthenticated(self, AuthenticationFailure::Malformed, None));
        };
        match bearer.verify(token).await {
            Ok(found) => Ok(Arc::new(Caller {
                principal: found.principal,
                peer: self.peer.clone(),
                until: found.until,
            })),
            Err(Rejected::Unavailable(reason)) => Err(self.common.unverifiable(self, &reason)),
            Err(rejected) => {
                Err(self.common.unauthenticated(self, AuthenticationFailure::Token, Some(&rejected)))
            }
        }
    }
}

impl Common {
    /// The answer to a request of nobody. Why is for the operator; the caller hears the same whatever it was.
    pub(crate) fn unauthenticated(
        &self,
        from: &Shared,
        why: AuthenticationFailure,
        reason: Option<&dyn std::fmt::Display>,
    ) -> Response<Body> {
        self.counters.unauthenticated.fetch_add(1, Relaxed);
        self.counters.not_let_in(why);
        let usual = why.reason();
        let reason = reason.unwrap_or(&usual).to_string();
        // Many callers may come from one place, each with a fault of its own.
        self.log.line("unauthenticated", (from.peer.subject(), reason.as_str()), |left_out| {
            tracing::warn!(door = self.name, peer = %from.peer, %reason, left_out, "a request is not authenticated");
        });
        not_authenticated()
    }

    fn unverifiable(&self, from: &Shared, reason: &dyn std::fmt::Display) -> Response<Body> {
        self.counters.not_let_in(AuthenticationFailure::Unavailable);
        self.log.line("unverifiable", from.peer.subject(), |left_out| {
            tracing::warn!(door = self.name, peer = %from.peer, %reason, left_out, "a bearer token cannot be verified now: see to its issuer");
        });
        Status::unavailable("the bearer token cannot be verified at the moment").into_http()
    }
}

/// What whoever is nobody hears, at the end of a stream too.
pub(crate) fn not_authenticated() -> Response<Body> {
    Status::unauthenticated("the request is not authenticated: come with a credential that this door takes, and that has not expired")
        .into_http()
}

/// The token of the one authorization header.
fn token(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(one), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = one.to_str().ok()?.split_once(' ')?;
    let token = token.trim_start_matches(' ');
    // b64token (RFC 6750 section 2.1).
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
    let good = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.bytes().all(allowed);
    good.then_some(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn one_bearer_token_is_read_and_nothing_else() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            token(&headers).map(str::to_owned)
        };
        for good in ["Bearer a.b-c_d~e+f/g==", "bearer a.b-c_d~e+f/g==", "BEARER   a.b-c_d~e+f/g=="] {
            assert_eq!(read(&[good]).as_deref(), Some("a.b-c_d~e+f/g=="));
        }
        for bad in ["", "Bearer", "Bearer ", "Basic abc", "Bearer a b", "Bearer a,b", "abc", "Bearerabc"] {
            assert_eq!(read(&[bad]), None, "{bad}");
        }
        assert_eq!(read(&["Bearer a", "Bearer a"]), None);
        assert_eq!(read(&[]), None);
    }
}
