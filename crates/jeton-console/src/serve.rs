//! The listener: a bounded number of connections, each with bounds of its own.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};
use tower::Layer;

use crate::unread::Unread;

/// One browser opens six.
const MAX_CONNECTIONS: usize = 64;
/// For the head of a request, from the answer before it.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// For a browser to read on.
const READ_WITHIN: Duration = Duration::from_secs(10);
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// However busy it is: a browser opens another one.
const CONNECTION_LIFE: Duration = Duration::from_secs(60 * 60);
/// After a failure to accept: out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether a request with the session came on this connection. Each request has its connection's as an extension.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entered(Arc<AtomicBool>);

impl Entered {
    pub(crate) fn set(&self) {
        self.0.store(true, Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Serves until `stop` ends.
pub(crate) async fn serve(listener: TcpListener, routes: Router, stop: impl Future<Output = ()>) {
    let mut connections = Connections::default();
    tokio::pin!(stop);
    loop {
        let accepted = async {
            let accepted = listener.accept().await;
            connections.make_room().await;
            accepted
        };
        tokio::select! {
            () = &mut stop => return,
            accepted = accepted => match accepted {
                Ok((stream, _)) => connections.open(stream, routes.clone()),
                Err(error) => {
                    tracing::warn!(%error, "no connection is taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// Those that were without a session when last looked at, the oldest first.
    strangers: VecDeque<(AbortHandle, Entered)>,
}

impl Connections {
    /// Everybody on the machine can connect: where all places are taken, whoever has been without a session longest makes room, so
    /// nobody locks the operator out. Where all have one, somebody has to end.
    async fn make_room(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.strangers.retain(|(task, entered)| !task.is_finished() && !entered.get());
        if self.tasks.len() < MAX_CONNECTIONS {
            return;
        }
        if let Some((oldest, _)) = self.strangers.pop_front() {
            oldest.abort();
        }
        self.tasks.join_next().await;
    }

    fn open(&mut self, stream: TcpStream, routes: Router) {
        let entered = Entered::default();
        let connection = connection(stream, routes, entered.clone());
        let task = self.tasks.spawn(async move {
            // What it did not end itself by then is a browser's to do again.
            let _ = tokio::time::timeout(CONNECTION_LIFE, connection).await;
        });
        self.strangers.push_back((task, entered));
    }
}

async fn connection(stream: TcpStream, routes: Router, entered: Entered) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    let service = TowerToHyperService::new(Extension(entered).layer(routes));
    let stream = TokioIo::new(Unread::new(stream, READ_WITHIN));
    if let Err(error) = builder.serve_connection(stream, service).await {
        tracing::debug!(%error, "a browser's connection ended early");
    }
}
