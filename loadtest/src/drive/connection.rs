//! One connection under load; when the server ends it in order, the next one takes over what is due.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::ReadBuf;

use super::{
    Intent, Lane, Pace, Shared,
    connect::{Connected, Socket, connect},
};
use crate::{
    check::Checker,
    record::Failure,
    target::Ask,
    wire::{Client, Outcome},
};

/// A connection that the server ends sooner than this has not aged.
const SHORTEST_LIFE: Duration = Duration::from_millis(100);
/// Connections in a row that the server ended so soon, and without an answer; more is no ageing.
const MOST_FRUITLESS: u32 = 3;

pub(super) struct Connection<'a> {
    shared: &'a Shared<'a>,
    /// Which caller connects here.
    caller: usize,
    lane: Rc<Lane>,
    socket: Socket,
    client: Client,
    sent: usize,
    unflushed: bool,
    buffer: Box<[u8]>,
    /// What is under way, by tag.
    under_way: Vec<Option<Intent>>,
    free: Vec<usize>,
    since: Instant,
    answered: bool,
    fruitless: u32,
}

/// Why a connection is no longer needed.
enum Ended {
    /// The measurement is over.
    Over,
    /// The server wants no more of it, and nothing is under way.
    Aged,
}

impl<'a> Connection<'a> {
    pub(super) fn new(shared: &'a Shared<'a>, caller: usize, connected: Connected, lane: Rc<Lane>) -> Self {
        let streams = shared.plan.streams;
        Self {
            shared,
            caller,
            lane,
            socket: connected.socket,
            client: connected.client,
            sent: 0,
            unflushed: false,
            buffer: vec![0; 64 * 1024].into(),
            under_way: vec![None; streams],
            free: (0..streams).collect(),
            since: Instant::now(),
            answered: false,
            fruitless: 0,
        }
    }

    /// Until the measurement's end, or until nothing can be had any more.
    pub(super) async fn run(&mut self) {
        let ended = loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Ok(Ended::Over) => break Ok(()),
                Ok(Ended::Aged) => {
                    if let Err(error) = self.reconnect().await {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error.to_string()),
            }
        };
        self.lane.gone.set(true);
        if let Err(what) = ended {
            let now = Instant::now();
            if now < self.shared.end {
                let at = now.saturating_duration_since(self.shared.begin);
                self.shared.record.borrow_mut().error(at, format!("connection: {what}"));
            }
            self.lose(&format!("connection: {what}"));
        }
    }

    /// What is under way or due will not be answered any more.
    pub(super) fn lose(&mut self, what: &str) {
        let shared = self.shared;
        let at = Instant::now().saturating_duration_since(shared.begin);
        let due = std::mem::take(&mut *self.lane.due.borrow_mut());
        let lost = self.under_way.iter_mut().filter_map(Option::take).chain(due);
        for _ in lost.filter(|i| i.at >= shared.begin && i.at < shared.end) {
            shared.record.borrow_mut().error(at, what);
        }
    }

    /// Takes another connection in place of one that the server ended in order. What is due is sent on it.
    async fn reconnect(&mut self) -> Result<(), String> {
        let fruitless = !self.answered && self.since.elapsed() < SHORTEST_LIFE;
        self.fruitless = if fruitless { self.fruitless + 1 } else { 0 };
        if self.fruitless >= MOST_FRUITLESS {
            return Err("ended by the server (GOAWAY) again and again without an answer".into());
        }
        let next = connect(self.shared.target, self.caller).await.map_err(|error| format!("{error:#}"))?;
        (self.socket, self.client) = (next.socket, next.client);
        (self.sent, self.unflushed) = (0, false);
        (self.since, self.answered) = (Instant::now(), false);
        self.shared.record.borrow_mut().reconnected += 1;
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Ended>> {
        loop {
            let over = Instant::now() >= self.shared.end && self.shared.handed_out.get();
            self.fill(over);
            if self.client.in_flight() == 0 {
                if over && self.lane.due.borrow().is_empty() {
                    return Poll::Ready(Ok(Ended::Over));
                }
                if self.client.ended() {
                    return Poll::Ready(Ok(Ended::Aged));
                }
            }
            self.poll_write(cx)?;
            if !self.poll_read(cx)? {
                *self.lane.waker.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
    }

    /// Sends what is due, as far as there is room.
    fn fill(&mut self, over: bool) {
        let target = self.shared.target;
        while let Some(&tag) = self.free.last() {
            let due = self.lane.due.borrow().front().copied();
            let next = match (due, self.shared.plan.pace) {
                (Some(next), _) => next,
                (None, Pace::Closed) if !over => {
                    let ask = target.draw(&mut *self.shared.rng.borrow_mut());
                    Intent { at: Instant::now(), ask }
                }
                (None, _) => return,
            };
            let request = &target.asks[next.ask].request;
            if !self.client.ready(request) {
                return;
            }
            self.lane.due.borrow_mut().pop_front();
            self.free.pop();
            self.under_way[tag] = Some(next);
            self.client.send(request, tag as u64);
            self.shared.worked.set(true);
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.sent < self.client.out.len() {
            match self.socket.as_mut().poll_write(cx, &self.client.out[self.sent..]) {
                Poll::Ready(count) => {
                    self.sent += count?;
                    self.shared.worked.set(true);
                }
                Poll::Pending => return Ok(()),
            }
        }
        if self.sent > 0 {
            self.client.out.clear();
            (self.sent, self.unflushed) = (0, true);
        }
        // What TLS took is not sent yet: a flush that waits is tried again although there is nothing new to write.
        if self.unflushed
            && let Poll::Ready(flushed) = self.socket.as_mut().poll_flush(cx)
        {
            flushed?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// Whether something came.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        match self.socket.as_mut().poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(false),
            Poll::Ready(read) => read?,
        }
        if buffer.filled().is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server"));
        }
        self.shared.worked.set(true);
        let (shared, under_way, free) = (self.shared, &mut self.under_way, &mut self.free);
        let (lane, answered) = (&self.lane, &mut self.answered);
        let now = Instant::now();
        let mut record = shared.record.borrow_mut();
        let mut checker = shared.checker.borrow_mut();
        let ended = |tag: u64, outcome: Outcome<'_>| {
            let tag = usize::try_from(tag).unwrap_or(0);
            let Some(intent) = under_way[tag].take() else { return };
            free.push(tag);
            if outcome == Outcome::Refused {
                // It is sent again, and its latency counts from where it was meant to be sent.
                lane.due.borrow_mut().push_front(intent);
                return;
            }
            *answered = true;
            shared.plan.progress.fetch_add(1, Relaxed);
            let measured = shared.begin..shared.end;
            let (due, came) = (measured.contains(&intent.at), measured.contains(&now));
            if !due && !came {
                return;
            }
            let at = now.saturating_duration_since(shared.begin);
            match judged(&mut checker, &shared.target.asks, intent.ask, outcome) {
                Ok(()) => {
                    record.came += u64::from(came);
                    if due {
                        record.answer(at, now - intent.at);
                    }
                }
                Err(what) if due => record.error(at, what),
                Err(_) => {}
            }
        };
        self.client
            .receive(buffer.filled(), ended)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(true)
    }
}

/// What is wrong with an answer.
fn judged(checker: &mut Checker, asks: &[Ask], index: usize, outcome: Outcome<'_>) -> Result<(), Failure> {
    match outcome {
        Outcome::Message(message) if checker.right(asks, index, message) => Ok(()),
        Outcome::Message(_) => Err("a token of another identity".into()),
        Outcome::Status(_, said) => Err(Failure { what: outcome.to_string(), said: said.to_owned() }),
        Outcome::Reset(_) | Outcome::Refused => Err(outcome.to_string().into()),
    }
}
