//! A turn of a connection: read, answer, write, and one send at its end.
//!
//! A task for each request costs a hand-off to the scheduler and back, which for an answer from memory is more than the answer. Here a
//! request is looked at as soon as it is read, and what is there goes out in the same turn. What has to wait moves into a set where each
//! is polled only when it is woken.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use futures_util::{StreamExt, stream::FuturesUnordered, task::AtomicWaker};
use h2::server::Connection;
use jeton_core::{Clock, Freshness, Now};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Code;

use super::{
    answer::Answer,
    gather::Gather,
    request::{Shared, take},
};

/// Requests of one turn. A peer that sends without a pause does not keep the thread for itself.
const MOST: usize = 256;

/// Something that ended: a request (nothing to tell), or what else the connection waits for.
type Work<E> = Pin<Box<dyn Future<Output = Option<E>> + Send>>;

/// How a turn ended.
#[derive(Debug)]
pub(crate) enum Ended<E> {
    /// With the connection, which must not be polled again. What it wrote last may not be sent yet.
    Connection,
    /// With something else that was waited for.
    Event(E),
}

/// One moment for all that is answered in a turn: reading the clocks costs more than looking a token up.
#[derive(Debug, Default)]
pub struct Moment {
    now: Option<Now>,
    began: Option<Instant>,
    fresh: u32,
    stale: u32,
}

impl Moment {
    /// What the clock showed when it was first asked for.
    pub fn now(&mut self, clock: &dyn Clock) -> Now {
        *self.now.get_or_insert_with(|| clock.now())
    }

    /// How many were handed out before their refresh.
    pub(crate) fn fresh(&self) -> u32 {
        self.fresh
    }

    /// A token was handed out of memory.
    pub fn served(&mut self, state: Freshness) {
        if state == Freshness::Fresh {
            self.fresh += 1;
        } else {
            self.stale += 1;
        }
    }

    /// When the first request of the turn was looked at.
    pub(crate) fn began(&mut self) -> Instant {
        *self.began.get_or_insert_with(Instant::now)
    }
}

impl Shared {
    /// Counts what a turn answered at once, all together: for its peer, each was there when the turn was over.
    pub(crate) fn settle(&self, moment: &mut Moment) {
        let count = moment.fresh + moment.stale;
        if let Some(hits) = self.common.hits.as_ref().filter(|_| count > 0) {
            hits.ended(Code::Ok, moment.began().elapsed(), count.into());
            self.count(moment);
        }
    }

    /// Counts the tokens alone: the call is counted by itself.
    pub(crate) fn count(&self, moment: &Moment) {
        if let (Some(shortcut), Some(_)) = (&self.common.shortcut, &self.common.hits) {
            shortcut.answered(moment.fresh.into(), moment.stale.into());
        }
    }
}

/// A connection with its requests.
pub(crate) struct Driven<S, E> {
    pub(crate) connection: Connection<Gather<S>, Answer>,
    pub(crate) stream: Gather<S>,
    shared: Arc<Shared>,
    waiting: FuturesUnordered<Work<E>>,
    bell: Arc<Bell>,
}

impl<S, E: 'static> Driven<S, E>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    pub(crate) fn new(
        connection: Connection<Gather<S>, Answer>,
        stream: Gather<S>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { connection, stream, shared, waiting: FuturesUnordered::new(), bell: Arc::default() }
    }

    /// Waits for something beside the requests.
    pub(crate) fn wait_for(&mut self, event: impl Future<Output = E> + Send + 'static) {
        self.waiting.push(Box::pin(async { Some(event.await) }));
    }

    /// One turn. Pending: all that could be done is done.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended<E>> {
        self.bell.begin(cx.waker());
        let mut moment = Moment::default();
        let turned = self.turn(&mut moment);
        if self.bell.end() {
            cx.waker().wake_by_ref();
        }
        let sent = self.stream.poll_send(cx);
        self.shared.settle(&mut moment);
        match sent {
            Poll::Ready(Err(_)) => Poll::Ready(Ended::Connection),
            // Sent, or the peer does not read: then the task is woken when it does.
            Poll::Ready(Ok(())) | Poll::Pending => turned,
        }
    }

    fn turn(&mut self, moment: &mut Moment) -> Poll<Ended<E>> {
        let waker = Waker::from(Arc::clone(&self.bell));
        let mut cx = Context::from_waker(&waker);
        for _ in 0..MOST {
            self.bell.heard();
            match self.connection.poll_accept(&mut cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    if let Some(work) = take(&self.shared, request, respond, moment, &mut cx) {
                        self.waiting.push(Box::pin(async {
                            work.await;
                            None
                        }));
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Ended::Connection),
                Poll::Pending => match self.waiting.poll_next_unpin(&mut cx) {
                    // It may have left something to write.
                    Poll::Ready(Some(None)) => {}
                    Poll::Ready(Some(Some(event))) => return Poll::Ready(Ended::Event(event)),
                    Poll::Ready(None) | Poll::Pending if self.bell.rung() => {}
                    Poll::Ready(None) | Poll::Pending => return Poll::Pending,
                },
            }
        }
        // The others first; then it goes on.
        self.bell.wake_by_ref();
        Poll::Pending
    }
}

/// Wakes the connection's task, but not while it is in a turn: what rings then is heard before the turn ends. The library rings for every
/// answer that it is given, and the task would come back each time to find nothing left to do.
#[derive(Default)]
struct Bell {
    task: AtomicWaker,
    turning: AtomicBool,
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, SeqCst);
        if !self.turning.load(SeqCst) {
            self.task.wake();
        }
    }
}

impl Bell {
    fn begin(&self, task: &Waker) {
        self.task.register(task);
        self.turning.store(true, SeqCst);
    }

    /// Whether it has rung since it was last heard. From here on it wakes the task again.
    fn end(&self) -> bool {
        self.turning.store(false, SeqCst);
        self.rung()
    }

    fn rung(&self) -> bool {
        self.rung.load(SeqCst)
    }

    /// What has rung up to here is looked at now.
    fn heard(&self) {
        if self.rung() {
            self.rung.swap(false, SeqCst);
        }
    }
}
