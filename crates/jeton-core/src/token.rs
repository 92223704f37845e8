//! An access token, and the one rule that says whether it may still be served.
//!
//! A token is fresh, then stale (past `refresh_at`, still served), then expired. Expired is earlier than its `expires_at`: a
//! token handed out with a second to live is of no use to anybody. Both the wall clock and the boot-time clock must agree that
//! life is left, so neither a stepped clock nor a suspended machine makes a dead token look alive.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use secrecy::ExposeSecret;

use crate::{IdentityName, Mono, Now, Wall};

/// Longest floor of remaining life.
pub const MAX_SERVE_FLOOR: Duration = Duration::from_secs(30);

/// The least remaining life with which a token is served: `min(30 s, lifetime / 4)`.
pub fn serve_floor(lifetime: Duration) -> Duration {
    MAX_SERVE_FLOOR.min(lifetime / 4)
}

/// The text of an access token. It can be a part of other bytes that are kept anyway, and then has no memory of its own.
#[derive(Clone)]
pub struct AccessToken(Bytes);

impl AccessToken {
    /// The text that stands at this place of the bytes. None: they are shorter, or no text stands there.
    pub fn within(bytes: &Bytes, place: Range<usize>) -> Option<Self> {
        std::str::from_utf8(bytes.get(place.clone())?).ok()?;
        Some(Self(bytes.slice(place)))
    }
}

impl From<String> for AccessToken {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl ExposeSecret<str> for AccessToken {
    fn expose_secret(&self) -> &str {
        // Whoever makes one has seen that it is text.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").finish_non_exhaustive()
    }
}

/// What an authority answered (RFC 6749 section 5.1), checked and typed.
#[derive(Clone)]
pub struct IssuedToken {
    /// The token itself.
    pub access_token: AccessToken,
    /// `Bearer`, in the authority's spelling.
    pub token_type: Arc<str>,
    /// `expires_in`.
    pub expires_in: Duration,
    /// `refresh_in`, where the authority says when to refresh.
    pub refresh_in: Option<Duration>,
    /// The scopes as granted; those of the request where the answer has none.
    pub scopes: Arc<[Arc<str>]>,
    /// The identity it was issued to.
    pub identity: IdentityName,
    /// The identity's client id.
    pub client_id: Arc<str>,
}

/// A token in the cache.
#[derive(Clone)]
pub struct Token {
    /// What the authority answered.
    pub issued: IssuedToken,
    /// Wall time at the start of the request.
    pub issued_at: Wall,
    /// `issued_at` plus `expires_in`.
    pub expires_at: Wall,
    /// The same moment on the boot-time clock.
    pub expires_boot: Mono,
    /// When the refresh is due.
    pub refresh_at: Wall,
    /// The same moment on the boot-time clock.
    pub refresh_boot: Mono,
}

/// Whether a token may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Before `refresh_at`.
    Fresh,
    /// Past `refresh_at`; served while it is refreshed.
    Stale,
    /// Not served any more.
    Expired,
}

impl Token {
    /// A token whose request started at `started`, due for refresh `refresh_after` later.
    pub fn new(issued: IssuedToken, started: Now, refresh_after: Duration) -> Self {
        let lifetime = issued.expires_in;
        Self {
            issued_at: started.wall,
            expires_at: started.wall + lifetime,
            expires_boot: started.boot + lifetime,
            refresh_at: started.wall + refresh_after,
            refresh_boot: started.boot + refresh_after,
            issued,
        }
    }

    /// A token that was stored with its wall times alone: the boot-time deadlines are derived from the present.
    pub fn restored(issued: IssuedToken, issued_at: Wall, refresh_at: Wall, now: Now) -> Self {
        let expires_at = issued_at + issued.expires_in;
        Self {
            issued_at,
            expires_at,
            expires_boot: now.boot + expires_at.saturating_since(now.wall),
            refresh_at,
            refresh_boot: now.boot + refresh_at.saturating_since(now.wall),
            issued,
        }
    }

    /// The whole life, from the start of the request.
    pub fn lifetime(&self) -> Duration {
        self.issued.expires_in
    }

    /// What is left, by the more pessimistic clock.
    pub fn remaining(&self, now: Now) -> Duration {
        self.expires_at.saturating_since(now.wall).min(self.expires_boot.saturating_since(now.boot))
    }

    /// How long it may still be served, by the more pessimistic clock.
    pub fn served_for(&self, now: Now) -> Duration {
        self.remaining(now).saturating_sub(serve_floor(self.lifetime()))
    }

    /// Whether the token may be served now.
    pub fn freshness(&self, now: Now) -> Freshness {
        self.phases().at(now)
    }

    /// When the token changes its state.
    pub fn phases(&self) -> Phases {
        // With as much left as the floor it is still served.
        let floor = serve_floor(self.lifetime()).saturating_sub(Duration::from_millis(1));
        Phases {
            stale_wall: self.refresh_at,
            stale_boot: self.refresh_boot,
            expired_wall: self.expires_at - floor,
            expired_boot: Mono::from_millis(
                self.expires_boot
                    .as_millis()
                    .saturating_sub(u64::try_from(floor.as_millis()).unwrap_or(u64::MAX)),
            ),
        }
    }
}

/// The moments at which a token's state changes, on both clocks: what a hit looks at, in one place in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    stale_wall: Wall,
    stale_boot: Mono,
    expired_wall: Wall,
    expired_boot: Mono,
}

impl Phases {
    /// The state at a moment, by the more pessimistic clock.
    pub fn at(&self, now: Now) -> Freshness {
        if now.wall >= self.expired_wall || now.boot >= self.expired_boot {
            Freshness::Expired
        } else if now.wall >= self.stale_wall || now.boot >= self.stale_boot {
            Freshness::Stale
        } else {
            Freshness::Fresh
        }
    }
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedToken")
            .field("identity", &self.identity)
            .field("client_id", &self.client_id)
            .field("token_type", &self.token_type)
            .field("expires_in", &self.expires_in)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("issued", &self.issued)
            .field("issued_at", &self.issued_at)
            .field("expires_at", &self.expires_at)
            .field("refresh_at", &self.refresh_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_s: i64, boot_s: u64) -> Now {
        Now {
            wall: Wall::from_secs(wall_s),
            mono: Mono::from_millis(0),
            boot: Mono::from_millis(boot_s * 1_000),
        }
    }

    fn token(lifetime_s: u64) -> Token {
        let issued = IssuedToken {
            access_token: "canary-7f3a".to_owned().into(),
            token_type: "Bearer".into(),
            expires_in: Duration::from_secs(lifetime_s),
            refresh_in: None,
            scopes: Arc::default(),
            identity: "identities/billing".parse().unwrap(),
            client_id: "c".into(),
        };
        Token::new(issued, at(1_000_000, 100), Duration::from_secs(lifetime_s / 2))
    }

    #[test]
    fn a_text_within_other_bytes_shares_their_memory_and_is_shown_to_nobody() {
        let bytes = Bytes::from_static(b"before canary-7f3a after");
        let text = AccessToken::within(&bytes, 7..18).unwrap();
        assert_eq!(text.expose_secret(), "canary-7f3a");
        assert!(bytes.as_ptr_range().contains(&text.expose_secret().as_ptr()));
        assert!(!format!("{text:?}").contains("canary"));
        assert!(AccessToken::within(&bytes, 20..99).is_none(), "beyond the end");
        assert!(AccessToken::within(&Bytes::from_static(b"\xff\xfe"), 0..2).is_none(), "not a text");
    }

    #[test]
    fn a_token_is_fresh_then_stale_then_expired_at_the_floor() {
        let token = token(3_600);
        assert_eq!(token.freshness(at(1_000_000, 100)), Freshness::Fresh);
        assert_eq!(token.freshness(at(1_001_800, 1_900)), Freshness::Stale);
        assert_eq!(token.freshness(at(1_003_570, 3_670)), Freshness::Stale);
        assert_eq!(token.freshness(at(1_003_571, 3_671)), Freshness::Expired);
    }

    #[test]
    fn the_floor_of_a_short_token_is_a_quarter_of_its_life() {
        assert_eq!(serve_floor(Duration::from_secs(12)), Duration::from_secs(3));
        let token = token(12);
        assert_eq!(token.freshness(at(1_000_009, 109)), Freshness::Stale);
        assert_eq!(token.freshness(at(1_000_010, 110)), Freshness::Expired);
    }

    #[test]
    fn a_token_is_served_with_the_floor_left_and_not_with_less_by_either_clock() {
        let at = |wall_ms, boot_ms| Now {
            wall: Wall::from_millis(wall_ms),
            mono: Mono::from_millis(0),
            boot: Mono::from_millis(boot_ms),
        };
        for lifetime in [1, 3, 12, 59, 60, 3_600, 86_400] {
            let token = token(lifetime);
            let floor = serve_floor(token.lifetime());
            let last = i64::try_from((token.lifetime() - floor).as_millis()).unwrap();
            let served = at(1_000_000_000 + last, 100_000 + last.unsigned_abs());
            assert!(token.remaining(served) >= floor);
            assert_ne!(token.freshness(served), Freshness::Expired, "{lifetime}");
            for late in [
                at(1_000_000_000 + last + 1, 100_000 + last.unsigned_abs()),
                at(1_000_000_000 + last, 100_001 + last.unsigned_abs()),
            ] {
                assert!(token.remaining(late) < floor);
                assert_eq!(token.freshness(late), Freshness::Expired, "{lifetime}");
            }
        }
    }

    #[test]
    fn a_token_without_life_is_expired() {
        assert_eq!(token(0).freshness(at(1_000_000, 100)), Freshness::Expired);
    }

    #[test]
    fn a_wall_clock_set_back_does_not_make_a_token_live_longer() {
        assert_eq!(token(3_600).freshness(at(1_000_000 - 7_200, 3_671)), Freshness::Expired);
    }

    #[test]
    fn a_suspended_machine_finds_its_tokens_expired() {
        assert_eq!(token(3_600).freshness(at(1_000_000, 200_000)), Freshness::Expired);
    }

    #[test]
    fn no_debug_output_shows_the_token() {
        assert!(!format!("{:?}", token(60)).contains("canary"));
    }
}
