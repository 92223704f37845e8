//! What a user would write without this project: stock tonic with the crates' defaults, and a moka look-up.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use futures_util::Stream;
use jeton_proto::v1::{
    self,
    token_service_server::{TokenService, TokenServiceServer},
};
use moka::sync::Cache;
use tonic::{Request, Response, Status, Streaming, transport::Server, transport::server::TcpIncoming};

use crate::{Size, TOKEN_BYTES, names};

/// Serves a token for each slot of such a world, on a free port.
pub async fn open_stock(size: Size) -> SocketAddr {
    let tokens = Cache::new(2 * size.slots as u64);
    for (identity, scope) in (0..size.slots).map(|n| names(n, size)) {
        let token = v1::Token {
            access_token: "x".repeat(TOKEN_BYTES),
            token_type: "Bearer".into(),
            identity: identity.clone(),
            client_id: "stock".into(),
            scopes: vec![scope.clone()],
            ..Default::default()
        };
        tokens.insert((identity, scope), Arc::new(token));
    }
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder().add_service(TokenServiceServer::new(Tokens(tokens)));
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

struct Tokens(Cache<(String, String), Arc<v1::Token>>);

#[tonic::async_trait]
impl TokenService for Tokens {
    type WatchTokensStream = Pin<Box<dyn Stream<Item = Result<v1::WatchTokensResponse, Status>> + Send>>;

    async fn get_token(
        &self,
        request: Request<v1::GetTokenRequest>,
    ) -> Result<Response<v1::GetTokenResponse>, Status> {
        let request = request.into_inner();
        let scope = request.scopes.into_iter().next().unwrap_or_default();
        let token =
            self.0.get(&(request.identity, scope)).ok_or_else(|| Status::not_found("no such token"))?;
        Ok(Response::new(v1::GetTokenResponse { token: Some(token.as_ref().clone()), state: 1 }))
    }

    async fn batch_get_tokens(
        &self,
        _: Request<v1::BatchGetTokensRequest>,
    ) -> Result<Response<v1::BatchGetTokensResponse>, Status> {
        Err(Status::unimplemented("it knows GetToken"))
    }

    async fn watch_tokens(
        &self,
        _: Request<Streaming<v1::WatchTokensRequest>>,
    ) -> Result<Response<Self::WatchTokensStream>, Status> {
        Err(Status::unimplemented("it knows GetToken"))
    }

    async fn report_rejected_token(
        &self,
        _: Request<v1::ReportRejectedTokenRequest>,
    ) -> Result<Response<v1::ReportRejectedTokenResponse>, Status> {
        Err(Status::unimplemented("it knows GetToken"))
    }
}
