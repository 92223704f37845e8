//! Tokens, and how long each is served.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use jeton_proto::v1;
use prost_types::Timestamp;
use zeroize::Zeroizing;

use crate::{clock::Moment, error::Error, target::Key};

/// Longest floor of remaining life, in milliseconds.
const LONGEST_FLOOR: i64 = 30_000;

/// An access token. Cloning it copies a pointer.
///
/// `Debug` does not show the secret.
#[derive(Clone)]
pub struct Token(pub(crate) Arc<Issued>);

pub(crate) struct Issued {
    pub(crate) key: Key,
    secret: Zeroizing<String>,
    token_type: String,
    identity: String,
    client_id: String,
    scopes: Vec<String>,
    /// Milliseconds since the Unix epoch, by the broker's clock.
    pub(crate) issued_at: i64,
    pub(crate) expires_at: i64,
    pub(crate) refresh_at: i64,
    /// When it came.
    pub(crate) received: Moment,
    /// Not served from here on, by either clock.
    until: Moment,
}

impl Token {
    /// The token itself. Keep it out of logs.
    pub fn secret(&self) -> &str {
        &self.0.secret
    }

    /// How to present it, nearly always `Bearer` (RFC 6750).
    pub fn token_type(&self) -> &str {
        &self.0.token_type
    }

    /// When it ends at its authority.
    pub fn expires_at(&self) -> SystemTime {
        system_time(self.0.expires_at)
    }

    /// When it was asked for.
    pub fn issued_at(&self) -> SystemTime {
        system_time(self.0.issued_at)
    }

    /// The identity's name, such as `identities/billing`.
    pub fn identity(&self) -> &str {
        &self.0.identity
    }

    /// The identity's client id at its authority.
    pub fn client_id(&self) -> &str {
        &self.0.client_id
    }

    /// The scopes as granted.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.0.scopes.iter().map(String::as_str)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("identity", &self.identity())
            .field("client_id", &self.client_id())
            .field("token_type", &self.token_type())
            .field("expires_at", &self.expires_at())
            .field("scopes", &self.0.scopes)
            .finish_non_exhaustive()
    }
}

impl Issued {
    /// Takes over what the broker sent. An answer without a token, or without an end, is none.
    pub(crate) fn new(key: Key, token: v1::Token, now: Moment) -> Result<Self, Error> {
        if token.access_token.is_empty() {
            return Err(Error::Malformed("it has no access_token"));
        }
        let expires_at = token.expires_at.map(millis).ok_or(Error::Malformed("it has no expires_at"))?;
        let issued_at = token.issued_at.map_or(now.wall, millis);
        let lifetime = expires_at.saturating_sub(issued_at).max(0);
        let issued = Self {
            key,
            secret: Zeroizing::new(token.access_token),
            token_type: token.token_type,
            identity: token.identity,
            client_id: token.client_id,
            scopes: token.scopes,
            issued_at,
            expires_at,
            refresh_at: token.refresh_at.map_or(issued_at.saturating_add(lifetime / 2), millis),
            received: now,
            until: served_until(lifetime, expires_at, now),
        };
        if issued.serves(now) {
            Ok(issued)
        } else {
            Err(Error::ExpiredOnArrival { at: system_time(expires_at) })
        }
    }

    pub(crate) fn serves(&self, now: Moment) -> bool {
        now.wall < self.until.wall && now.boot < self.until.boot
    }

    pub(crate) fn same(&self, other: &Issued) -> bool {
        *self.secret == *other.secret
    }

    pub(crate) fn sha256(&self) -> Vec<u8> {
        digest::digest(&digest::SHA256, self.secret.as_bytes()).as_ref().to_vec()
    }
}

/// Until when a token is served, the floor before its end. By boot time it lives no longer than its whole life, however far behind the
/// wall clock was when it came.
fn served_until(lifetime: i64, expires_at: i64, now: Moment) -> Moment {
    let floor = LONGEST_FLOOR.min(lifetime / 4);
    let left = expires_at.saturating_sub(now.wall).min(lifetime);
    Moment {
        wall: expires_at.saturating_sub(floor),
        boot: now.boot.saturating_add(left).saturating_sub(floor),
    }
}

fn millis(at: Timestamp) -> i64 {
    at.seconds.saturating_mul(1_000).saturating_add(i64::from(at.nanos) / 1_000_000)
}

fn system_time(millis: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::target::Asked;

    const CANARY: &str = "canary-2b9f";

    fn timestamp(millis: i64) -> Timestamp {
        Timestamp { seconds: millis.div_euclid(1_000), nanos: (millis.rem_euclid(1_000) * 1_000_000) as i32 }
    }

    fn issued(issued_at: i64, expires_at: i64, now: Moment) -> Result<Issued, Error> {
        let key = Key::from(Asked { identity: "identities/a", target: "s".into() });
        let token = v1::Token {
            access_token: CANARY.into(),
            issued_at: Some(timestamp(issued_at)),
            expires_at: Some(timestamp(expires_at)),
            ..Default::default()
        };
        Issued::new(key, token, now)
    }

    #[test]
    fn a_token_does_not_show_its_secret() {
        let token = Token(Arc::new(issued(0, 60_000, Moment { wall: 0, boot: 0 }).unwrap()));
        assert_eq!(token.secret(), CANARY);
        assert!(!format!("{token:?}").contains(CANARY));
    }

    #[test]
    fn an_answer_that_is_no_token_is_an_error() {
        let key = || Key::from(Asked { identity: "identities/a", target: "s".into() });
        let now = Moment { wall: 0, boot: 0 };
        let endless = v1::Token { access_token: "x".into(), ..Default::default() };
        let empty = v1::Token { expires_at: Some(timestamp(60_000)), ..Default::default() };
        for token in [endless, empty] {
            assert!(matches!(Issued::new(key(), token, now), Err(Error::Malformed(_))));
        }
    }

    proptest! {
        /// The broker's clock is `skew` ahead of ours, ours is stepped meanwhile, and the token came late in its life.
        #[test]
        fn no_token_is_served_below_the_floor_by_either_clock(
            life in 1_000i64..100_000_000, age in 0.0f64..1.0, skew in -1_000_000i64..1_000_000,
            step in -100_000_000i64..100_000_000, later in 0i64..200_000_000,
        ) {
            let came = Moment { wall: 1_800_000_000_000, boot: 5_000 };
            let issued_at = came.wall + skew - (life as f64 * age) as i64;
            let Ok(token) = issued(issued_at, issued_at + life, came) else { return Ok(()) };
            let now = Moment { wall: came.wall + later + step, boot: came.boot + later };
            let floor = 30_000.min(life / 4);
            if token.serves(now) {
                prop_assert!(issued_at + life - now.wall >= floor, "by the wall clock");
                prop_assert!(later <= life - floor, "by boot time");
            }
        }
    }

    #[test]
    fn a_token_is_served_until_exactly_its_floor() {
        let (came, hour) = (Moment { wall: 1_000_000, boot: 7 }, 3_600_000);
        let token = issued(came.wall, came.wall + hour, came).unwrap();
        let after = |wall, boot| Moment { wall: came.wall + wall, boot: came.boot + boot };
        assert!(token.serves(after(hour - 30_001, hour - 30_001)));
        assert!(!token.serves(after(hour - 30_000, 0)) && !token.serves(after(0, hour - 30_000)));
        let late = after(hour - 20_000, 0);
        assert!(matches!(issued(came.wall, came.wall + hour, late), Err(Error::ExpiredOnArrival { .. })));
    }
}
