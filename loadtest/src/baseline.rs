//! What a user would write without this project: stock tonic, an interceptor that checks the caller, a moka look-up.
//!
//! It answers the same call with a token of the same size, so that two servers can be compared by the same client. It is honest work with
//! the crates' defaults, and built in the same profile.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use jeton_proto::v1::{
    self,
    token_service_server::{TokenService, TokenServiceServer},
};
use moka::sync::Cache;
use tonic::{
    Request, Response, Status, service::interceptor::InterceptedService, transport::server::TcpConnectInfo,
};

use crate::{
    bounds::{self, number, whole},
    output::say,
};

/// `loadtest baseline`
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BaselineArguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Bytes of each access token
    #[arg(long, default_value_t = 1_600, value_parser = whole(bounds::PADDED_BYTES))]
    pub(crate) token_bytes: usize,
    /// The identities there are tokens for
    #[arg(long, required = true)]
    pub(crate) identity: Vec<String>,
    /// The scopes there are tokens for
    #[arg(long, required = true)]
    pub(crate) scope: Vec<String>,
    /// A server certificate (PEM), for TLS
    #[arg(long, requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Seconds after which it asks the callers of a connection to take another one (GOAWAY); 0: never
    #[arg(long, default_value_t = 0.0, value_parser = number(bounds::MOMENT))]
    pub(crate) max_connection_age: f64,
    /// Runtime threads
    #[arg(long, default_value_t = 1, value_parser = whole(bounds::THREADS))]
    pub(crate) threads: usize,
}

type Key = (String, String);

#[derive(Clone)]
struct Tokens(Cache<Key, Arc<v1::Token>>);

#[tonic::async_trait]
impl TokenService for Tokens {
    type WatchTokensStream =
        std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<v1::WatchTokensResponse, Status>> + Send>>;

    async fn get_token(
        &self,
        request: Request<v1::GetTokenRequest>,
    ) -> Result<Response<v1::GetTokenResponse>, Status> {
        if request.extensions().get::<Allowed>().is_none() {
            return Err(Status::permission_denied("unknown caller"));
        }
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
        Err(Status::unimplemented("the baseline knows GetToken"))
    }

    async fn watch_tokens(
        &self,
        _: Request<tonic::Streaming<v1::WatchTokensRequest>>,
    ) -> Result<Response<Self::WatchTokensStream>, Status> {
        Err(Status::unimplemented("the baseline knows GetToken"))
    }

    async fn report_rejected_token(
        &self,
        _: Request<v1::ReportRejectedTokenRequest>,
    ) -> Result<Response<v1::ReportRejectedTokenResponse>, Status> {
        Err(Status::unimplemented("the baseline knows GetToken"))
    }
}

#[derive(Clone)]
struct Allowed;

/// Lets in this machine alone.
fn check(mut request: Request<()>) -> Result<Request<()>, Status> {
    let info = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    let secured = request.remote_addr();
    match info.or(secured) {
        Some(remote) if remote.ip().is_loopback() => {
            request.extensions_mut().insert(Allowed);
            Ok(request)
        }
        _ => Err(Status::unauthenticated("not a loopback caller")),
    }
}

/// Serves until killed; prints the address first.
pub(crate) fn run(arguments: &BaselineArguments) -> anyhow::Result<()> {
    let tokens = Cache::builder().max_capacity(100_000).time_to_live(Duration::from_secs(3_600)).build();
    for (number, identity) in arguments.identity.iter().enumerate() {
        for scope in &arguments.scope {
            let token = v1::Token {
                // No two identities have the same token.
                access_token: format!("{number:x>width$}", width = arguments.token_bytes),
                token_type: "Bearer".into(),
                identity: identity.clone(),
                client_id: "baseline".into(),
                scopes: vec![scope.clone()],
                ..Default::default()
            };
            tokens.insert((identity.clone(), scope.clone()), Arc::new(token));
        }
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(arguments.threads).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(arguments.listen).await?;
        say(&format!("{}\n", listener.local_addr()?))?;
        let service: InterceptedService<_, _> = TokenServiceServer::with_interceptor(Tokens(tokens), check);
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let mut server = tonic::transport::Server::builder();
        if let (Some(cert), Some(key)) = (&arguments.cert, &arguments.key) {
            let identity = tonic::transport::Identity::from_pem(std::fs::read(cert)?, std::fs::read(key)?);
            server = server.tls_config(tonic::transport::ServerTlsConfig::new().identity(identity))?;
        }
        if arguments.max_connection_age > 0.0 {
            server = server.max_connection_age(Duration::try_from_secs_f64(arguments.max_connection_age)?);
        }
        server.add_service(service).serve_with_incoming(incoming).await?;
        Ok(())
    })
}
