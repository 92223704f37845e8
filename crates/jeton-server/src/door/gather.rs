//! Writes of one turn in one system call.
//!
//! The HTTP/2 library flushes after every response. With many requests on a connection that is a system call for each, and the calls
//! cost more than everything else together. Here writes and flushes only gather; whoever drives the connection sends once, at the end
//! of its turn.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::received::{Frames, Received};

/// With this much gathered, writes wait for the peer to read.
const MOST: usize = 128 * 1024;
/// A buffer larger than this is not kept for a quiet connection.
const KEPT: usize = 16 * 1024;

/// A stream whose writes gather; a handle for the library and one for the driver.
pub(crate) struct Gather<S>(Arc<Mutex<Gathered<S>>>);

struct Gathered<S> {
    io: S,
    pending: Vec<u8>,
    /// How much of it is sent.
    sent: usize,
    /// The stream below may hold something back until it is flushed (TLS).
    unflushed: bool,
    received: Frames,
}

impl<S> Clone for Gather<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Gather<S> {
    pub(crate) fn new(io: S) -> Self {
        let gathered =
            Gathered { io, pending: Vec::new(), sent: 0, unflushed: false, received: Frames::new() };
        Self(Arc::new(Mutex::new(gathered)))
    }

    /// What came in so far.
    pub(crate) fn received(&self) -> Received {
        self.lock().received.received()
    }

    fn lock(&self) -> MutexGuard<'_, Gathered<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    /// Sends what has gathered. Pending: the peer does not read; the task is woken when it does.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_send(cx)
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let turn = self.pending.len();
        while self.sent < self.pending.len() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.pending[self.sent..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
            self.unflushed = true;
        }
        self.pending.clear();
        self.sent = 0;
        if self.pending.capacity() > KEPT && turn < KEPT / 4 {
            self.pending.shrink_to(KEPT);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_gather(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.pending.len() - self.sent >= MOST {
            ready!(self.poll_send(cx))?;
        }
        slices.iter().for_each(|slice| self.pending.extend_from_slice(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut gathered = self.lock();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut gathered.io).poll_read(cx, buffer);
        gathered.received.read(&buffer.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.lock().poll_gather(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lock().poll_gather(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.lock();
        ready!(gathered.poll_send(cx))?;
        Pin::new(&mut gathered.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn writes_and_flushes_gather_until_they_are_sent() {
        let (near, mut far) = duplex(1_024);
        let gather = Gather::new(near);
        let mut stream = gather.clone();
        for part in [b"one ".as_slice(), b"two ", b"three"] {
            stream.write_all(part).await.unwrap();
            stream.flush().await.unwrap();
        }
        let mut buffer = [0; 64];
        let early = tokio::time::timeout(std::time::Duration::ZERO, far.read(&mut buffer)).await;
        assert!(early.is_err(), "nothing is sent before the end of the turn");
        std::future::poll_fn(|cx| gather.poll_send(cx)).await.unwrap();
        let count = far.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..count], b"one two three");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_holds_back_the_writer_within_a_bound() {
        let (near, mut far) = duplex(1_000);
        let gather = Gather::new(near);
        let mut stream = gather.clone();
        let (mut written, block) = (0, [7; 10_000]);
        while let Ok(count) =
            tokio::time::timeout(std::time::Duration::from_millis(20), stream.write(&block)).await
        {
            written += count.unwrap();
            assert!(written < MOST + 100_000, "the buffer grows without end");
        }
        drop(stream);
        let reader = tokio::spawn(async move {
            let mut all = vec![];
            far.read_to_end(&mut all).await.unwrap();
            all.len()
        });
        std::future::poll_fn(|cx| gather.poll_send(cx)).await.unwrap();
        drop(gather);
        assert_eq!(reader.await.unwrap(), written, "nothing is lost");
    }
}
