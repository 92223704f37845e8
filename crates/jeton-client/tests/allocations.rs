//! A warm token takes no memory. A process of its own, so that every allocation in it is counted and nobody else's is.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::{
    io,
    time::{Duration, SystemTime},
};

use jeton_client::{Client, Target};
use jeton_proto::v1;
use tokio::{io::duplex, runtime::Builder};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use v1::token_service_server::{TokenService, TokenServiceServer};

#[global_allocator]
static COUNTING: dhat::Alloc = dhat::Alloc;

/// Hands out one token, and knows nothing else.
struct OneToken;

#[tonic::async_trait]
impl TokenService for OneToken {
    type WatchTokensStream = tokio_stream::Empty<Result<v1::WatchTokensResponse, Status>>;

    async fn get_token(
        &self,
        _: Request<v1::GetTokenRequest>,
    ) -> Result<Response<v1::GetTokenResponse>, Status> {
        let now = SystemTime::now();
        let token = v1::Token {
            access_token: "x".repeat(1_600),
            issued_at: Some(now.into()),
            expires_at: Some((now + Duration::from_secs(86_400)).into()),
            ..Default::default()
        };
        Ok(Response::new(v1::GetTokenResponse { token: Some(token), state: 1 }))
    }

    async fn batch_get_tokens(
        &self,
        _: Request<v1::BatchGetTokensRequest>,
    ) -> Result<Response<v1::BatchGetTokensResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn watch_tokens(
        &self,
        _: Request<Streaming<v1::WatchTokensRequest>>,
    ) -> Result<Response<Self::WatchTokensStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn report_rejected_token(
        &self,
        _: Request<v1::ReportRejectedTokenRequest>,
    ) -> Result<Response<v1::ReportRejectedTokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[test]
fn a_warm_token_allocates_nothing() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async {
        let (near, far) = duplex(64 * 1024);
        let incoming = tokio_stream::once(Ok::<_, io::Error>(far));
        tokio::spawn(
            Server::builder().add_service(TokenServiceServer::new(OneToken)).serve_with_incoming(incoming),
        );
        let near = std::sync::Mutex::new(Some(near));
        let open = move || near.lock().unwrap().take().ok_or(io::ErrorKind::ConnectionRefused.into());
        let client = Client::builder().transport(open).build().unwrap();
        client.token("identities/billing", "orders.read").await.unwrap();
        client
    });
    // The client's task stands still with its runtime, so it is not counted.
    let hits = || {
        for _ in 0..1_000 {
            let asking = client.token("identities/billing", "orders.read");
            futures_util::FutureExt::now_or_never(asking).unwrap().unwrap();
            let asking = client.token("identities/billing", Target::scopes(&["orders.read"]));
            futures_util::FutureExt::now_or_never(asking).unwrap().unwrap();
        }
    };
    let _profiler = dhat::Profiler::builder().testing().build();
    hits();
    let first = dhat::HeapStats::get();
    hits();
    let second = dhat::HeapStats::get();
    assert_eq!(second.total_blocks - first.total_blocks, 0, "blocks for 2000 hits");
    drop(Vec::<u8>::with_capacity(1));
    assert_eq!(dhat::HeapStats::get().total_blocks, second.total_blocks + 1, "the allocator counts");
}
