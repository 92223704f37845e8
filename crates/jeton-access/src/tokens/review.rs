//! TokenReview: the one who issued a token says whether it still counts. A signature outlives the pod that it was made for.
//!
//! One question for each token at a time. It belongs to all who wait for its answer: whoever of them stays carries it on.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{Shared, WeakShared},
};
use jeton_core::{BoxFuture, Wall};
use tokio::{sync::Semaphore, time::timeout};

use super::{memory::TokenHash, shown, subject::Bound};
use crate::{Rejected, Reviewed, TokenReview};

/// The longest wait for an answer, and for one's turn.
const DEADLINE: Duration = Duration::from_secs(5);
/// Questions under way at one API server.
const MAX_ASKED: usize = 32;
/// Tokens in question.
const MAX_WAITING: usize = 4_096;

/// With the time of the question: what is heard later is no younger.
type Answer = (Wall, Result<Reviewed, String>);
type Question = BoxFuture<'static, Answer>;

/// What the API server said of a token, and when it was asked.
pub(crate) struct Answered {
    pub(crate) verdict: Result<(), String>,
    pub(crate) at: Wall,
}

pub(crate) struct Reviews {
    port: Arc<dyn TokenReview>,
    turns: Arc<Semaphore>,
    asked: Mutex<HashMap<TokenHash, WeakShared<Question>>>,
}

impl fmt::Debug for Reviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviews").finish_non_exhaustive()
    }
}

impl Reviews {
    pub(crate) fn new(port: Arc<dyn TokenReview>) -> Self {
        Self { port, turns: Arc::new(Semaphore::new(MAX_ASKED)), asked: Mutex::default() }
    }

    /// Whether the token counts still, for this audience and for what it is bound to. Without an answer it does not.
    pub(crate) async fn ask(
        &self,
        hash: TokenHash,
        token: &str,
        audience: &str,
        bound: &Bound,
        now: Wall,
    ) -> Result<Answered, Rejected> {
        let unanswered =
            |why: String| Rejected::Unavailable(format!("the API server reviews no token: {why}"));
        let (at, reviewed) = self.question(hash, token, audience, now).map_err(unanswered)?.await;
        let verdict = judge(&reviewed.map_err(unanswered)?, audience, bound);
        Ok(Answered { verdict, at })
    }

    fn question(
        &self,
        hash: TokenHash,
        token: &str,
        audience: &str,
        now: Wall,
    ) -> Result<Shared<Question>, String> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(question) = asked.get(&hash).and_then(WeakShared::upgrade) {
            return Ok(question);
        }
        if asked.len() >= MAX_WAITING {
            asked.retain(|_, question| question.upgrade().is_some());
            if asked.len() >= MAX_WAITING {
                return Err(format!("{MAX_WAITING} tokens wait for it already"));
            }
        }
        let (port, turns) = (Arc::clone(&self.port), Arc::clone(&self.turns));
        let (token, audience) = (token.to_owned(), audience.to_owned());
        let answer = async move {
            let _turn = turns.acquire().await.map_err(|e| e.to_string())?;
            port.review(&token, &audience).await
        };
        let bounded = async move {
            let late = format!("no answer within {} s", DEADLINE.as_secs());
            (now, timeout(DEADLINE, answer).await.unwrap_or(Err(late)))
        };
        let question = bounded.boxed().shared();
        if let Some(weak) = question.downgrade() {
            asked.insert(hash, weak);
        }
        Ok(question)
    }
}

/// A server that knows no audiences leaves them out; one that says another user speaks of another token.
fn judge(reviewed: &Reviewed, audience: &str, bound: &Bound) -> Result<(), String> {
    if !reviewed.authenticated {
        return Err(format!("the API server no longer accepts the token: {}", shown(&reviewed.error)));
    }
    if !reviewed.audiences.iter().any(|a| a == audience) {
        return Err(format!("the API server accepts the token, but not for {}", shown(audience)));
    }
    if reviewed.username != bound.username || reviewed.uid != bound.service_account_uid {
        return Err("the API server says that the token is another service account's".into());
    }
    if bound.pod_uid.is_some() && reviewed.pod_uid != bound.pod_uid {
        return Err("the API server says that the token is another pod's".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound() -> Bound {
        Bound {
            username: "system:serviceaccount:a:b".into(),
            service_account_uid: "u1".into(),
            pod_uid: Some("p1".into()),
        }
    }

    fn reviewed() -> Reviewed {
        Reviewed {
            authenticated: true,
            username: bound().username,
            uid: "u1".into(),
            audiences: vec!["jeton".into()],
            pod_uid: Some("p1".into()),
            ..Reviewed::default()
        }
    }

    #[test]
    fn an_answer_counts_only_for_the_same_audience_account_and_pod() {
        assert_eq!(judge(&reviewed(), "jeton", &bound()), Ok(()));
        for change in [
            (|r| r.authenticated = false) as fn(&mut Reviewed),
            |r| r.audiences = vec![],
            |r| r.audiences = vec!["vault".into()],
            |r| r.username = "system:serviceaccount:a:c".into(),
            |r| r.uid = "u2".into(),
            |r| r.pod_uid = None,
            |r| r.pod_uid = Some("p2".into()),
        ] {
            let mut other = reviewed();
            change(&mut other);
            assert!(judge(&other, "jeton", &bound()).is_err(), "{other:?}");
        }
    }
}
