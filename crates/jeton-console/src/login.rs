//! Who is let in: whoever shows the code of the link, once and in time, and from then on the browser that got the cookie for it.
//!
//! There is one code, so there is one session. Neither is kept: what is compared are digests, in constant time.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest, rand};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use tokio::time::Instant;

/// How long the link waits to be used.
const LINK_LIFE: Duration = Duration::from_secs(5 * 60);
/// How long a browser stays in.
const SESSION_LIFE: Duration = Duration::from_secs(12 * 60 * 60);

/// The one login of a console.
#[derive(Debug, Clone)]
pub(crate) struct Login(Arc<Mutex<State>>);

#[derive(Debug)]
enum State {
    /// The link has not been used.
    Waiting(Secret),
    /// It has.
    In(Secret),
}

/// What is to be shown, and until when.
struct Secret {
    digest: digest::Digest,
    until: Instant,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Login {
    /// With its code. None: there are no random bytes.
    pub(crate) fn new() -> Option<(Self, String)> {
        let (secret, code) = Secret::made(LINK_LIFE)?;
        Some((Self(Arc::new(Mutex::new(State::Waiting(secret)))), code))
    }

    /// Lets in whoever shows the code: the session's own secret, for the cookie.
    pub(crate) fn enter(&self, code: &str) -> Option<String> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Waiting(link) = &*state else { return None };
        if !link.is(code) {
            return None;
        }
        let (secret, session) = Secret::made(SESSION_LIFE)?;
        *state = State::In(secret);
        Some(session)
    }

    /// Whether this is the session's secret.
    pub(crate) fn is_in(&self, session: &str) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(&*state, State::In(secret) if secret.is(session))
    }
}

impl Secret {
    fn made(life: Duration) -> Option<(Self, String)> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).ok()?;
        let text = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        Some((Self { digest: hashed(&text), until: Instant::now() + life }, text))
    }

    fn is(&self, shown: &str) -> bool {
        let same = verify_slices_are_equal(self.digest.as_ref(), hashed(shown).as_ref()).is_ok();
        same && Instant::now() < self.until
    }
}

fn hashed(text: &str) -> digest::Digest {
    digest::digest(&digest::SHA256, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_code_lets_in_once_and_in_time_and_a_session_ends() {
        let (login, code) = Login::new().unwrap();
        assert!(!login.is_in(&code), "the code is no session");
        assert_eq!(login.enter("another"), None);
        let session = login.enter(&code).expect("a wrong code spends nothing");
        assert!(login.is_in(&session) && !login.is_in("another"));
        assert_eq!(login.enter(&code), None, "it is used");
        tokio::time::advance(SESSION_LIFE).await;
        assert!(!login.is_in(&session));

        let (late, code) = Login::new().unwrap();
        tokio::time::advance(LINK_LIFE).await;
        assert_eq!(late.enter(&code), None);
        assert!(!format!("{late:?}").contains(&code));
    }
}
