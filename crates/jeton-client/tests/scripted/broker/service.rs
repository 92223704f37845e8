//! The scripted broker's API.

use std::{collections::HashMap, pin::Pin, sync::atomic::Ordering::SeqCst};

use futures_util::{Stream, StreamExt, stream};
use jeton_proto::v1::{
    self, token_service_server::TokenService, watch_tokens_request::Action, watch_tokens_response::Event,
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::{Answer, Broker, State, Watch, failure, key_of, response};

#[tonic::async_trait]
impl TokenService for Broker {
    type WatchTokensStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn get_token(
        &self,
        request: Request<v1::GetTokenRequest>,
    ) -> Result<Response<v1::GetTokenResponse>, Status> {
        self.0.asked.fetch_add(1, SeqCst);
        self.authenticate(&request)?;
        let (key, now) = (key_of(request.get_ref()), self.now());
        // What was there when the question came, however long the answer takes.
        let (serial, issued) = *self.state().tokens.entry(key.clone()).or_insert((0, now));
        self.held(|state| state.get.clone()).await?;
        Ok(Response::new(response(&key, serial, issued)))
    }

    async fn batch_get_tokens(
        &self,
        _: Request<v1::BatchGetTokensRequest>,
    ) -> Result<Response<v1::BatchGetTokensResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn watch_tokens(
        &self,
        request: Request<Streaming<v1::WatchTokensRequest>>,
    ) -> Result<Response<Self::WatchTokensStream>, Status> {
        let number = self.0.opened.fetch_add(1, SeqCst);
        self.authenticate(&request)?;
        self.held(|state| state.watch.clone()).await?;
        let (answers, mut receiver) = mpsc::unbounded_channel();
        let (broker, mut requests) = (self.clone(), request.into_inner());
        let deaf = self.state().deaf;
        self.state().watches.push(Watch { number, answers, added: HashMap::new() });
        tokio::spawn(async move {
            if deaf {
                std::future::pending::<()>().await;
            }
            while let Some(Ok(request)) = requests.next().await {
                broker.change(number, request);
            }
        });
        let answers = stream::poll_fn(move |context| receiver.poll_recv(context));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn report_rejected_token(
        &self,
        request: Request<v1::ReportRejectedTokenRequest>,
    ) -> Result<Response<v1::ReportRejectedTokenResponse>, Status> {
        assert_eq!(request.get_ref().token_sha256.len(), 32);
        self.0.reported.fetch_add(1, SeqCst);
        let outcome = self.state().outcome as i32;
        Ok(Response::new(v1::ReportRejectedTokenResponse { outcome }))
    }
}

impl Broker {
    fn change(&self, number: u64, request: v1::WatchTokensRequest) {
        let now = self.now();
        let mut state = self.state();
        let State { watches, tokens, refuse_key, .. } = &mut *state;
        let Some(watch) = watches.iter_mut().find(|watch| watch.number == number) else {
            return;
        };
        match request.action {
            Some(Action::Remove(id)) => drop(watch.added.remove(&id)),
            Some(Action::Add(add)) => {
                let key = key_of(&add.request.unwrap());
                let event = match refuse_key {
                    Some((code, reason)) => Event::Failure(failure(*code, reason)),
                    None => {
                        let (serial, issued) = *tokens.entry(key.clone()).or_insert((0, now));
                        let before = watch.added.insert(add.id.clone(), key.clone());
                        assert!(before.is_none(), "{} was added twice", add.id);
                        Event::Token(response(&key, serial, issued))
                    }
                };
                let _ = watch.answers.send(Ok(v1::WatchTokensResponse { id: add.id, event: Some(event) }));
            }
            None => panic!("an empty request"),
        }
    }
}
