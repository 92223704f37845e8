//! Connections, made; and one answer outside of any measurement.

use std::{io, pin::Pin, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use super::Plan;
use crate::{
    check::Checker,
    target::{Address, Target},
    wire::{Client, Outcome, Request},
};

/// How long a connection may take, and so may its first answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that are made at once; a listener keeps no more waiting than it is told to.
const AT_ONCE: usize = 32;
/// What to do where a server ends a connection that TLS secured, or would not.
const CLIENT_CERTIFICATE: &str =
    "if the server wants a client certificate, give one that it trusts: --cert and --key";

pub(super) trait Io: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite> Io for T {}
/// A connection of any kind.
pub(super) type Socket = Pin<Box<dyn Io>>;

/// A connection on which the caller has asked once: servers end those that stay silent while the others connect.
pub(super) struct Connected {
    pub(super) socket: Socket,
    pub(super) client: Client,
}

/// The connections of one thread.
pub(super) async fn connect_all(
    target: &Target,
    plan: &Plan,
    index: usize,
    count: usize,
) -> anyhow::Result<Vec<Connected>> {
    let connecting = (0..count).map(|n| connect(target, index + n * plan.threads));
    stream::iter(connecting).buffered(AT_ONCE).try_collect().await
}

/// One connection, in time.
pub(super) async fn connect(target: &Target, caller: usize) -> anyhow::Result<Connected> {
    let connecting = async {
        let socket = open(target, caller).await?;
        // With TLS 1.3 a client's handshake is over before the server looked at its certificate.
        let hint = if target.tls.is_empty() {
            "if the server speaks TLS here, give --ca"
        } else {
            CLIENT_CERTIFICATE
        };
        let first = &target.asks[caller % target.asks.len()].request;
        begin(socket, first).await.map_err(|error| anyhow!("no HTTP/2 from the server: {error} ({hint})"))
    };
    tokio::time::timeout(PATIENCE, connecting).await.context("a connection takes more than 10 s")?
}

/// Asks once. What the answer is will show when it counts.
async fn begin(mut socket: Socket, first: &Request) -> anyhow::Result<Connected> {
    let (mut client, mut buffer, mut begun) = (Client::default(), vec![0; 16 * 1024], false);
    client.send(first, 0);
    while !begun {
        exchange(&mut socket, &mut client, &mut buffer, |_, _| begun = true).await?;
    }
    // The server waits for the acknowledgement of its settings.
    socket.write_all(&std::mem::take(&mut client.out)).await?;
    socket.flush().await?;
    Ok(Connected { socket, client })
}

/// Sends what is to be sent, and takes in what comes.
async fn exchange(
    socket: &mut Socket,
    client: &mut Client,
    buffer: &mut [u8],
    ended: impl FnMut(u64, Outcome<'_>),
) -> anyhow::Result<()> {
    socket.write_all(&std::mem::take(&mut client.out)).await?;
    socket.flush().await?;
    let count = socket.read(buffer).await?;
    ensure!(count > 0, "closed by the server");
    Ok(client.receive(&buffer[..count], ended)?)
}

async fn open(target: &Target, caller: usize) -> anyhow::Result<Socket> {
    match &target.address {
        Address::Unix(path) => {
            let context = || format!("connecting to {}", path.display());
            Ok(Box::pin(UnixStream::connect(path).await.with_context(context)?))
        }
        Address::Tcp(address) => {
            let stream =
                TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
            stream.set_nodelay(true)?;
            let Some(tls) = target.tls.get(caller % target.tls.len().max(1)) else {
                return Ok(Box::pin(stream));
            };
            let name = rustls::pki_types::ServerName::try_from("localhost")?;
            let secured = tokio_rustls::TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
            Ok(Box::pin(secured.map_err(advised)?))
        }
    }
}

/// What to do about a handshake that failed.
fn advised(error: io::Error) -> anyhow::Error {
    let hint = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => {
            "--ca must hold the certificate of the authority that signed the server's"
        }
        Some(rustls::Error::AlertReceived(_)) => CLIENT_CERTIFICATE,
        _ => "if the server does not speak TLS here, leave --ca away",
    };
    anyhow!("TLS: {error} ({hint})")
}

/// The message that answers the first of what a target asks, on a connection of its own; it was checked.
pub(crate) fn one_answer(target: &Target) -> anyhow::Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asking =
        async { tokio::time::timeout(PATIENCE, ask(target)).await.context("no answer within 10 s")? };
    let answer = runtime.block_on(asking)?;
    let first = target.asks.first().context("nothing to ask")?;
    ensure!(
        Checker::default().right(&target.asks, 0, &answer),
        "the answer is no token of {}",
        first.identity
    );
    Ok(answer)
}

async fn ask(target: &Target) -> anyhow::Result<Vec<u8>> {
    let Connected { mut socket, mut client } = connect(target, 0).await?;
    client.send(&target.asks.first().context("nothing to ask")?.request, 0);
    let (mut buffer, mut answer) = (vec![0; 64 * 1024], None);
    loop {
        let ended = |_, outcome: Outcome<'_>| {
            answer = Some(match outcome {
                Outcome::Message(message) => Ok(message.to_vec()),
                Outcome::Status(_, said) if !said.is_empty() => Err(anyhow!("{outcome}: {said}")),
                other => Err(anyhow!("{other}")),
            });
        };
        exchange(&mut socket, &mut client, &mut buffer, ended).await?;
        if let Some(answer) = answer.take() {
            return answer;
        }
    }
}
