//! Answers to requests that cannot be carried out twice, kept under their ids: what was counted once cannot be counted again.

use jeton_core::Uid;

use crate::{Access, AccessError, AccessRecorded, AccessWrite, assignments::check_request_id};

/// A request with an id of its caller's.
#[derive(Debug, Clone)]
pub struct Requested {
    request_id: String,
    fingerprint: String,
}

impl Requested {
    /// `fingerprint`: what it asks for, so that another request under the same id is noticed. None: it has no id, and nothing is remembered.
    pub fn new(request_id: &str, fingerprint: String) -> Result<Option<Self>, AccessError> {
        check_request_id(request_id)?;
        let named = !request_id.is_empty();
        Ok(named.then(|| Self { request_id: request_id.to_owned(), fingerprint }))
    }

    /// A second thing that the same request did, which is remembered apart.
    pub fn part(self, name: &str) -> Self {
        // A caller's id has no space in it.
        Self { request_id: format!("{} {name}", self.request_id), ..self }
    }
}

impl Access {
    /// What was answered before, if it was.
    pub async fn answered(&self, requested: &Requested) -> Result<Option<String>, AccessError> {
        match self.shared.store.recorded(requested.request_id.clone()).await? {
            Some(recorded) if recorded.fingerprint == requested.fingerprint => {
                Ok(Some(recorded.answer.unwrap_or_default()))
            }
            Some(_) => Err(AccessError::RequestIdReused(requested.request_id.clone())),
            None => Ok(None),
        }
    }

    /// Remembers an answer, durably. The first one stays.
    pub async fn remember_answer(&self, requested: &Requested, answer: String) -> Result<(), AccessError> {
        let shared = &self.shared;
        let _held = shared.change.lock().await;
        if self.answered(requested).await?.is_some() {
            return Ok(());
        }
        let Requested { request_id, fingerprint } = requested.clone();
        let (resource, at) = (Uid::LEAST, shared.clock.now().wall);
        let recorded = AccessRecorded { request_id, fingerprint, resource, at, answer: Some(answer) };
        Ok(shared.store.commit(vec![AccessWrite::Recorded(recorded)]).await?)
    }
}
