//! WatchTokens over whatever interrupts it: the broker's restarts, its upgrades, a network that goes away.

use std::time::Duration;

use tokio::time::sleep;
use tonic::{Status, Streaming, transport::Channel};
use tonic_types::StatusExt;

use crate::{
    connect::{backoff, retry_after, unavailable},
    v1::{
        Failure, GetTokenRequest, Token, WatchTokensAdd, WatchTokensRequest, WatchTokensResponse,
        token_service_client::TokenServiceClient, watch_tokens_request::Action, watch_tokens_response::Event,
    },
};

/// One watched token.
pub(crate) struct Watch {
    tokens: TokenServiceClient<Channel>,
    request: GetTokenRequest,
    stream: Option<Streaming<WatchTokensResponse>>,
    attempt: u32,
    /// Why streams ended, before another was opened.
    pub(crate) interruptions: Vec<String>,
}

/// Why a stream ended.
enum Ending {
    Interrupted { why: String, wait: Duration },
    ForGood(Status),
}

impl Watch {
    pub(crate) fn new(tokens: TokenServiceClient<Channel>, request: GetTokenRequest) -> Self {
        Self { tokens, request, stream: None, attempt: 0, interruptions: vec![] }
    }

    /// The token at once, and then each that replaces it. An error is one that trying again does not mend.
    pub(crate) async fn next(&mut self) -> Result<Token, Status> {
        loop {
            match self.read().await {
                Ok(token) => {
                    self.attempt = 0;
                    return Ok(token);
                }
                Err(Ending::ForGood(error)) => return Err(error),
                Err(Ending::Interrupted { why, wait }) => {
                    self.stream = None;
                    self.interruptions.push(why);
                    sleep(wait.max(backoff(self.attempt))).await;
                    self.attempt += 1;
                }
            }
        }
    }

    async fn read(&mut self) -> Result<Token, Ending> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let add = WatchTokensAdd { id: "token".into(), request: Some(self.request.clone()) };
                let add = WatchTokensRequest { action: Some(Action::Add(add)) };
                // No deadline: a watch has no end of its own, and keepalive finds a dead connection.
                none.insert(self.tokens.watch_tokens(tokio_stream::once(add)).await?.into_inner())
            }
        };
        while let Some(answer) = stream.message().await? {
            match answer.event {
                Some(Event::Token(response)) => return Ok(response.token.unwrap_or_default()),
                Some(Event::Moving(_)) => return Err(interrupted("the broker is about to stop")),
                // If a refresh failed, the token at hand stays good, and the broker itself tries again.
                Some(Event::Failure(failure)) if !failure.reason.starts_with("AUTHORITY_") => {
                    return Err(failure.into());
                }
                Some(Event::Failure(_)) | None => {}
            }
        }
        Err(interrupted("the stream ended"))
    }
}

fn interrupted(why: &str) -> Ending {
    Ending::Interrupted { why: why.to_owned(), wait: Duration::ZERO }
}

impl From<Status> for Ending {
    fn from(error: Status) -> Self {
        let why = error.get_details_error_info().map_or_else(|| error.code().to_string(), |info| info.reason);
        match retry_after(&error) {
            Some(wait) => Self::Interrupted { why, wait },
            None if unavailable(&error) => Self::Interrupted { why, wait: Duration::ZERO },
            None => Self::ForGood(error),
        }
    }
}

/// The token is not watched any longer.
impl From<Failure> for Ending {
    fn from(failure: Failure) -> Self {
        match failure.retry_delay {
            Some(wait) => {
                Self::Interrupted { why: failure.reason, wait: wait.try_into().unwrap_or_default() }
            }
            None => Self::ForGood(Status::new(
                failure.code.into(),
                format!("{}: {}", failure.reason, failure.message),
            )),
        }
    }
}
