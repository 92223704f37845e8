//! The broker's API as this client uses it.

use std::{sync::Arc, time::Duration};

use jeton_proto::v1::{self, token_service_client::TokenServiceClient};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming, transport::Channel};

use crate::{bearer::BearerFile, error::Error, target::Key};

/// The broker's own bound on what it sends at once.
const MAX_MESSAGE: usize = 256 * 1024;

pub(crate) struct Broker {
    stub: TokenServiceClient<Channel>,
    bearer: Option<BearerFile>,
    place: Arc<str>,
}

impl Broker {
    pub(crate) fn new(channel: Channel, bearer: Option<BearerFile>, place: Arc<str>) -> Self {
        Self { stub: TokenServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE), bearer, place }
    }

    pub(crate) async fn token(&self, key: &Key) -> Result<v1::Token, Error> {
        match self.ask(key).await {
            // The file may hold another bearer token by now.
            Err(error) if self.bearer.is_some() && error.code() == Some(Code::Unauthenticated) => {
                self.ask(key).await
            }
            outcome => outcome,
        }
    }

    pub(crate) async fn watch(
        &self,
        requests: ReceiverStream<v1::WatchTokensRequest>,
    ) -> Result<Streaming<v1::WatchTokensResponse>, Error> {
        let request = self.signed(requests).await?;
        let answer = self.stub.clone().watch_tokens(request).await.map_err(|status| self.failed(&status))?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn report(
        &self,
        request: v1::ReportRejectedTokenRequest,
    ) -> Result<v1::ReportOutcome, Error> {
        let request = self.signed(request).await?;
        let answer =
            self.stub.clone().report_rejected_token(request).await.map_err(|status| self.failed(&status))?;
        Ok(answer.into_inner().outcome())
    }

    pub(crate) fn failed(&self, status: &tonic::Status) -> Error {
        if let (Code::Unauthenticated, Some(bearer)) = (status.code(), &self.bearer) {
            bearer.forget();
        }
        Error::of_call(status, &self.place)
    }

    pub(crate) fn timed_out(&self, after: Duration) -> Error {
        Error::TimedOut { place: Arc::clone(&self.place), after }
    }

    async fn ask(&self, key: &Key) -> Result<v1::Token, Error> {
        let request = self.signed(key.request()).await?;
        let answer = self.stub.clone().get_token(request).await.map_err(|status| self.failed(&status))?;
        answer.into_inner().token.ok_or(Error::Malformed("it is empty"))
    }

    async fn signed<T>(&self, message: T) -> Result<Request<T>, Error> {
        let mut request = Request::new(message);
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.authorization().await?);
        }
        Ok(request)
    }
}
