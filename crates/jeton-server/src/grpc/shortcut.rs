//! GetToken in one look-up.
//!
//! A caller asks for the same thing in the same bytes again and again. What its request means and that it may have the token was
//! decided by [`Access`](jeton_access::Access), as always; here the yes is remembered, with the slot's place, under the principal and
//! the request's bytes. It holds as long as neither the directory nor the role assignments have changed since, and until the
//! assignment ends; whatever is not an immediate yes with a token in memory is the long way's business, every no included.

use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use jeton_access::{Access, Authorized, Tally, Usage};
use jeton_core::{Clock, Freshness, Now, Principal, Wall};
use jeton_engine::{Engine, Seat};
use jeton_proto::v1;
use papaya::{Equivalent, HashMap};
use prost::Message;

use super::{
    encoded::{PREFIX, stale},
    token::Wanted,
};
use crate::door::{Answer, Caller, Moment, Shortcut};

const GET_TOKEN: &str = "/jeton.v1.TokenService/GetToken";
/// Longer requests are not remembered. The usual one has about a hundred bytes.
const LONGEST: usize = 1_024;
/// Requests of this size lie inside the map.
const INLINE: usize = 96;

/// Remembered answers to "may this caller have this?".
struct Remembered {
    grants: HashMap<Asked, Grant, foldhash::fast::RandomState>,
    units: AtomicU64,
    most_units: u64,
}

/// Who asks, and the request's bytes.
struct Asked {
    principal: Principal,
    request: Request,
}

enum Request {
    Short([u8; INLINE], u8),
    Long(Box<[u8]>),
}

/// The same, borrowed.
struct Asking<'a> {
    principal: &'a Principal,
    request: &'a [u8],
}

struct Grant {
    revision: (u64, u64),
    until: Option<Wall>,
    seat: Seat,
    usage: Arc<Usage>,
}

impl Request {
    fn new(bytes: &[u8]) -> Self {
        let mut short = [0; INLINE];
        match (short.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(part), Ok(length)) => {
                part.copy_from_slice(bytes);
                Self::Short(short, length)
            }
            _ => Self::Long(bytes.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(bytes, length) => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }
}

impl Asked {
    fn asking(&self) -> Asking<'_> {
        Asking { principal: &self.principal, request: self.request.bytes() }
    }
}

impl Hash for Asking<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.principal.as_str().as_bytes());
        state.write(self.request);
    }
}

impl Hash for Asked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.asking().hash(state);
    }
}

impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        self.asking().equivalent(other)
    }
}

impl Eq for Asked {}

impl Equivalent<Asked> for Asking<'_> {
    fn equivalent(&self, asked: &Asked) -> bool {
        self.request == asked.request.bytes() && *self.principal == asked.principal
    }
}

impl Remembered {
    fn new(most: u64) -> Self {
        Self { grants: HashMap::default(), units: AtomicU64::new(0), most_units: most.max(1_024) }
    }

    fn find<R>(&self, asking: &Asking<'_>, found: impl FnOnce(&Grant) -> R) -> Option<R> {
        self.grants.pin().get(asking).map(found)
    }

    /// Remembers a yes. When there is no more room all are forgotten: each costs one decision to come back.
    fn remember(&self, asking: &Asking<'_>, grant: Grant) {
        let units = 1 + (asking.request.len() / 256) as u64;
        if self.units.fetch_add(units, Relaxed) > self.most_units {
            self.units.store(0, Relaxed);
            self.grants.pin().clear();
        }
        let asked = Asked { principal: asking.principal.clone(), request: Request::new(asking.request) };
        self.grants.pin().insert(asked, grant);
    }
}

/// The way of GetToken that needs no wait.
pub struct GetTokenShortcut {
    engine: Engine,
    access: Access,
    clock: Arc<dyn Clock>,
    tally: Tally,
    remembered: Remembered,
}

impl std::fmt::Debug for GetTokenShortcut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GetTokenShortcut")
            .field("remembered", &self.remembered.grants.len())
            .finish_non_exhaustive()
    }
}

impl Shortcut for GetTokenShortcut {
    fn path(&self) -> &'static str {
        GET_TOKEN
    }

    fn answer(&self, caller: &Caller, body: &[u8], moment: &mut Moment) -> Option<Answer> {
        let now = moment.now(&*self.clock);
        let served = self.serve(&caller.principal, message(body)?, now, |fresh, state| match state {
            Freshness::Stale => (stale(fresh), state),
            Freshness::Fresh | Freshness::Expired => (fresh.clone().into(), state),
        });
        let (answer, state) = served?;
        moment.served(state);
        Some(answer)
    }

    fn answered(&self, fresh: u64, stale: u64) {
        self.engine.count_served(fresh, stale);
    }
}

/// The one message of a body, if it is there whole and uncompressed.
fn message(body: &[u8]) -> Option<&[u8]> {
    let (&[flag, a, b, c, d], message) = body.split_first_chunk::<PREFIX>()?;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    (flag == 0 && length == message.len()).then_some(message)
}

impl GetTokenShortcut {
    /// Remembers about as many decisions as there are slots.
    pub fn new(engine: Engine, access: Access, tally: Tally, clock: Arc<dyn Clock>, most: u64) -> Self {
        Self { engine, access, clock, tally, remembered: Remembered::new(most) }
    }

    /// Shows the framed answer to an encoded GetTokenRequest to `serve`, if the caller may have the token and it is in memory.
    pub fn serve<R>(
        &self,
        principal: &Principal,
        request: &[u8],
        now: Now,
        serve: impl Fn(&Bytes, Freshness) -> R,
    ) -> Option<R> {
        if !self.tally.has_room() {
            return None;
        }
        let asking = Asking { principal, request };
        let revision = self.access.revision();
        let remembered = self.remembered.find(&asking, |grant| {
            let holds = grant.revision == revision && grant.until.is_none_or(|until| now.wall < until);
            if holds { self.hand_out(&grant.seat, &grant.usage, now, &serve) } else { None }
        });
        if let Some(Some(answer)) = remembered {
            return Some(answer);
        }
        let authorized = self.decide(principal, request)?;
        let seat = self.engine.seat(&authorized.key)?;
        let usage = self.tally.usage(principal, &authorized.key);
        let answer = self.hand_out(&seat, &usage, now, &serve)?;
        if request.len() <= LONGEST {
            let until = authorized.assignment.expires_at;
            self.remembered.remember(&asking, Grant { revision, until, seat, usage });
        }
        Some(answer)
    }

    /// What is in memory, counted for the audit log.
    fn hand_out<R>(
        &self,
        seat: &Seat,
        usage: &Arc<Usage>,
        now: Now,
        serve: impl FnOnce(&Bytes, Freshness) -> R,
    ) -> Option<R> {
        self.engine.serve(seat, now, |encoded, state| {
            usage.served(encoded.hash, now.wall);
            serve(&encoded.bytes, state)
        })
    }

    /// The decision that is remembered; none where more is to be looked at than the token's place.
    fn decide(&self, principal: &Principal, request: &[u8]) -> Option<Authorized> {
        let request = v1::GetTokenRequest::decode(request).ok()?;
        let wanted = Wanted::parse(&request).ok()?;
        let authorized =
            self.access.allowed(principal, wanted.identity.as_ref(), &wanted.target, wanted.claims)?;
        (request.min_validity.is_none() && authorized.max_lifetime().is_none()).then_some(authorized)
    }
}

#[cfg(test)]
mod tests {
    use jeton_proto::v1::token_service_server::TokenServiceServer;
    use tonic::server::NamedService;

    use super::*;
    use crate::grpc::Broker;

    #[test]
    fn the_path_is_the_published_one() {
        let service = TokenServiceServer::<Broker>::NAME;
        assert_eq!(GET_TOKEN, format!("/{service}/GetToken"));
    }

    #[test]
    fn a_message_is_taken_whole_and_uncompressed_or_not_at_all() {
        assert_eq!(message(b"\0\0\0\0\x02ab"), Some(b"ab".as_slice()));
        for other in [b"\x01\0\0\0\x02ab".as_slice(), b"\0\0\0\0\x03ab", b"\0\0\0\0\x01ab", b"\0\0", b""] {
            assert_eq!(message(other), None);
        }
    }

    #[test]
    fn what_is_asked_by_another_or_in_other_bytes_is_another_thing() {
        let (one, two): (Principal, Principal) =
            ("loopback://dev".parse().unwrap(), "unix://n/uid/1".parse().unwrap());
        for length in [0, 1, INLINE - 1, INLINE, INLINE + 1, LONGEST] {
            let bytes = vec![7; length];
            let asked = Asked { principal: one.clone(), request: Request::new(&bytes) };
            assert!(Asking { principal: &one, request: &bytes }.equivalent(&asked));
            assert!(!Asking { principal: &two, request: &bytes }.equivalent(&asked));
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(!Asking { principal: &one, request: &longer }.equivalent(&asked), "{length}");
        }
    }
}
