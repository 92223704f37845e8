//! Requests of a connection, polled inside the connection's own task.
//!
//! A task for each request costs a hand-off to the scheduler and back, which for an answer from memory is more than the answer. Here
//! a request is polled right after the connection that brought it; an answer that is there goes out in the same turn. What has to wait
//! moves into a set where each is polled only when it is woken. The boxes that requests live in are used again.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use hyper::rt::Executor;
use tokio::io::AsyncWrite;
use tokio_util::sync::ReusableBoxFuture;

use super::gather::Gather;

/// Boxes that are kept for requests to come.
const SPARE: usize = 128;
/// Rounds of one turn. A peer that sends without a pause does not keep the thread for itself.
const ROUNDS: usize = 8;

/// Something that ended: a request (nothing to tell), or what else the connection waits for.
pub(crate) type Work<E> = ReusableBoxFuture<'static, Option<E>>;

/// Takes the connection's requests as the HTTP/2 library hands them out.
pub(crate) struct Inline<E>(Arc<Mutex<Queue<E>>>);

struct Queue<E> {
    new: Vec<Work<E>>,
    spare: Vec<Work<E>>,
}

impl<E> Clone for Inline<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E> Default for Inline<E> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Queue { new: vec![], spare: vec![] })))
    }
}

impl<E> Inline<E> {
    fn lock(&self) -> MutexGuard<'_, Queue<E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: 'static, F> Executor<F> for Inline<E>
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let nothing: fn(()) -> Option<E> = |()| None;
        // Fused: a future that ended is dropped then and there, and not when its box is used again.
        let work = future.map(nothing).fuse();
        let mut queue = self.lock();
        let boxed = match queue.spare.pop() {
            Some(mut spare) => {
                spare.set(work);
                spare
            }
            None => Work::new(work),
        };
        queue.new.push(boxed);
    }
}

/// How a turn ended.
#[derive(Debug)]
pub(crate) enum Turn<E> {
    /// The connection ended; it must not be polled again. What it wrote last may not be sent yet.
    Ended,
    /// Something else that was waited for.
    Event(E),
}

/// A connection with its requests.
pub(crate) struct Driven<C, S, E> {
    pub(crate) connection: Pin<Box<C>>,
    pub(crate) stream: Gather<S>,
    requests: Inline<E>,
    new: Vec<Work<E>>,
    waiting: FuturesUnordered<Work<E>>,
}

impl<C, S, E: 'static> Driven<C, S, E>
where
    C: Future<Output = hyper::Result<()>>,
    S: AsyncWrite + Unpin,
{
    pub(crate) fn new(connection: C, stream: Gather<S>, requests: Inline<E>) -> Self {
        let (new, waiting) = (vec![], FuturesUnordered::new());
        Self { connection: Box::pin(connection), stream, requests, new, waiting }
    }

    /// Waits for something beside the requests.
    pub(crate) fn wait_for(&mut self, event: impl Future<Output = E> + Send + 'static) {
        self.waiting.push(Work::new(event.map(Some)));
    }

    /// One turn: read, answer, write, and one send at its end.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Turn<E>> {
        let turned = self.poll_rounds(cx);
        match self.stream.poll_send(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(Turn::Ended),
            // Sent, or the peer does not read: then the task is woken when it does.
            Poll::Ready(Ok(())) | Poll::Pending => turned,
        }
    }

    fn poll_rounds(&mut self, cx: &mut Context<'_>) -> Poll<Turn<E>> {
        for _ in 0..ROUNDS {
            if self.connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Turn::Ended);
            }
            let mut answered = self.poll_new(cx);
            loop {
                match self.waiting.poll_next_unpin(cx) {
                    Poll::Ready(Some(None)) => answered = true,
                    Poll::Ready(Some(Some(event))) => return Poll::Ready(Turn::Event(event)),
                    Poll::Ready(None) | Poll::Pending => break,
                }
            }
            if !answered {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Polls the requests that are new; says whether one was answered.
    fn poll_new(&mut self, cx: &mut Context<'_>) -> bool {
        std::mem::swap(&mut self.new, &mut self.requests.lock().new);
        if self.new.is_empty() {
            return false;
        }
        let mut answered = false;
        for mut work in self.new.drain(..) {
            match work.poll(cx) {
                Poll::Pending => self.waiting.push(work),
                Poll::Ready(_) => {
                    answered = true;
                    let mut queue = self.requests.lock();
                    if queue.spare.len() < SPARE {
                        queue.spare.push(work);
                    }
                }
            }
        }
        answered
    }
}
