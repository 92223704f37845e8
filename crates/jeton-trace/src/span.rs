//! A span that is under way.

use std::{
    borrow::Cow,
    fmt::{self, Display, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use rand::Rng;
use tokio::task::futures::TaskLocalFuture;

use crate::{Context, Ended, Sink};

/// Links of one span; more are counted.
const MOST_LINKS: usize = 128;
/// Bytes of a text. What comes from outside may be long.
const MOST_TEXT: usize = 1_024;

tokio::task_local! {
    static CURRENT: Span;
}

/// On which side of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of none.
    Internal,
    /// Who is asked.
    Server,
    /// Who asks.
    Client,
}

/// What an attribute says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
}

/// What a span is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Its id, in the same trace.
    pub span_id: u64,
    /// Whether it is a caller's.
    pub remote: bool,
}

/// A cloneable handle on a span, or on none. It ends with its last handle.
#[derive(Clone, Default)]
pub struct Span(Option<Arc<Recording>>);

struct Recording {
    sink: Sink,
    context: Context,
    parent: Option<Parent>,
    name: Cow<'static, str>,
    kind: Kind,
    started_at: SystemTime,
    began: Instant,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    attributes: Vec<(&'static str, Value)>,
    links: Vec<Context>,
    dropped_links: u32,
    failed: bool,
}

/// The span under which the present task works; none outside of [`Span::within`].
pub fn current() -> Span {
    CURRENT.try_with(Span::clone).unwrap_or_default()
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Span").field(&self.0.as_ref().map(|recording| &recording.name)).finish()
    }
}

impl Span {
    /// What is not recorded. Everything that is done with it does nothing, and costs as much.
    pub const NONE: Self = Self(None);

    pub(crate) fn begin(
        sink: &Sink,
        context: Context,
        parent: Option<Parent>,
        name: Cow<'static, str>,
        kind: Kind,
    ) -> Self {
        Self(Some(Arc::new(Recording {
            sink: Arc::clone(sink),
            context,
            parent,
            name,
            kind,
            started_at: SystemTime::now(),
            began: Instant::now(),
            noted: Mutex::default(),
        })))
    }

    /// Whether it is there.
    pub fn is_recording(&self) -> bool {
        self.0.is_some()
    }

    /// Its place, if it is there.
    pub fn context(&self) -> Option<&Context> {
        self.0.as_ref().map(|recording| &recording.context)
    }

    /// A part of it.
    pub fn child(&self, name: &'static str) -> Self {
        self.part(name.into(), Kind::Internal)
    }

    /// A call to somebody else that is a part of it.
    pub fn call(&self, name: impl Display) -> Self {
        if self.is_recording() { self.part(name.to_string().into(), Kind::Client) } else { Self::NONE }
    }

    /// Everything that the future does is under this span, up to what it hands to other tasks.
    pub fn within<F: Future>(self, future: F) -> TaskLocalFuture<Self, F> {
        CURRENT.scope(self, future)
    }

    /// Says more about it. Never a secret, a token, or what stands in one.
    pub fn text(&self, key: &'static str, value: impl Display) {
        if let Some(mut noted) = self.noted() {
            let mut bounded = Bounded(String::new());
            // It fails where there is no more room.
            let _ = write!(bounded, "{value}");
            noted.set(key, Value::Text(bounded.0));
        }
    }

    /// The same with a number.
    pub fn number(&self, key: &'static str, value: impl Into<i64>) {
        if let Some(mut noted) = self.noted() {
            noted.set(key, Value::Number(value.into()));
        }
    }

    /// It failed; `error_type` is one of few.
    pub fn fail(&self, error_type: impl Display) {
        self.text("error.type", error_type);
        if let Some(mut noted) = self.noted() {
            noted.failed = true;
        }
    }

    /// It has to do with that one.
    pub fn link(&self, to: Option<&Context>) {
        if let (Some(mut noted), Some(to)) = (self.noted(), to) {
            if noted.links.len() < MOST_LINKS {
                noted.links.push(to.clone());
            } else {
                noted.dropped_links += 1;
            }
        }
    }

    fn part(&self, name: Cow<'static, str>, kind: Kind) -> Self {
        let Some(Recording { sink, context, .. }) = self.0.as_deref() else { return Self::NONE };
        let parent = Parent { span_id: context.span_id, remote: false };
        let context = Context { span_id: new_span_id(), ..context.clone() };
        Self::begin(sink, context, Some(parent), name, kind)
    }

    fn noted(&self) -> Option<MutexGuard<'_, Noted>> {
        self.0.as_ref().map(|recording| recording.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Noted {
    /// The last word counts.
    fn set(&mut self, key: &'static str, value: Value) {
        match self.attributes.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => self.attributes.push((key, value)),
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let noted = self.noted.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Noted { attributes, links, dropped_links, failed } = std::mem::take(noted);
        (self.sink)(Ended {
            context: self.context.clone(),
            parent: self.parent,
            name: std::mem::take(&mut self.name),
            kind: self.kind,
            started_at: self.started_at,
            ended_at: self.started_at + self.began.elapsed(),
            attributes,
            links,
            dropped_links,
            failed,
        });
    }
}

/// A text that grows no further than it may.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MOST_TEXT - self.0.len();
        let end = text.floor_char_boundary(room);
        self.0.push_str(&text[..end]);
        if end < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

pub(crate) fn new_span_id() -> u64 {
    rand::rng().random_range(1..=u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::{Sampler, Tracer};

    fn tracer() -> (Tracer, Receiver<Ended>) {
        let (tell, told) = channel();
        (Tracer::new(Sampler::ratio(1.0), Arc::new(move |ended| tell.send(ended).unwrap())), told)
    }

    #[tokio::test]
    async fn what_is_done_within_a_span_is_part_of_it_and_tasks_beside_it_are_not() {
        let (tracer, told) = tracer();
        let flight = tracer.root("flight");
        let work = async {
            current().text("jeton.target", "orders");
            let signing = current().child("sign");
            signing.clone().within(async { current().number("bytes", 1_600) }).await;
            let elsewhere = tokio::spawn(async { current().is_recording() }).await.unwrap();
            assert!(!elsewhere);
        };
        flight.within(work).await;
        assert!(!current().is_recording());
        let (sign, flight) = (told.recv().unwrap(), told.recv().unwrap());
        assert_eq!(sign.parent, Some(Parent { span_id: flight.context.span_id, remote: false }));
        assert_eq!(sign.context.trace_id, flight.context.trace_id);
        assert_eq!(sign.attributes, [("bytes", Value::Number(1_600))]);
        assert_eq!(flight.attributes, [("jeton.target", Value::Text("orders".into()))]);
    }

    #[test]
    fn what_comes_from_outside_is_bounded_and_the_last_word_counts() {
        let (tracer, told) = tracer();
        let span = tracer.root("flight");
        let other = tracer.root("other");
        (0..130).for_each(|_| span.link(other.context()));
        span.text("jeton.target", "ü".repeat(2_000));
        span.text("code", "UNKNOWN");
        span.text("code", "OK");
        span.fail("timeout");
        drop(span);
        let ended = told.recv().unwrap();
        assert_eq!((ended.links.len(), ended.dropped_links, ended.failed), (128, 2, true));
        let expected =
            [("jeton.target", "ü".repeat(512)), ("code", "OK".into()), ("error.type", "timeout".into())];
        assert_eq!(ended.attributes, expected.map(|(key, text)| (key, Value::Text(text))));
    }

    #[test]
    fn it_ends_with_its_last_handle() {
        let (tracer, told) = tracer();
        let (one, two) = (tracer.root("flight"), tracer.root("other"));
        let again = one.clone();
        drop((one, two));
        assert_eq!(told.try_iter().count(), 1);
        drop(again);
        assert_eq!(told.try_iter().count(), 1);
    }
}
