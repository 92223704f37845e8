//! The two ways that a call may take through the door. What is promised of calls holds on both.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{SendStream, client::ResponseFuture};
use jeton_core::Freshness;
use jeton_server::door::{Answer, Caller, Moment, Shortcut};

use crate::{
    frames::{DATA, END_HEADERS, END_STREAM, HEADERS, ask, frame, framed, header_block},
    support::{LARGE, MESSAGE, Peer, request},
};

/// The call that may take the short way.
pub(crate) const HIT: &str = "/test.Slow/hit";
/// A message that asks for a large one.
const WANTS_LARGE: &[u8] = b"large";
/// A message whose answer is not in memory.
pub(crate) const MISS: &[u8] = b"a miss";

/// The short way: what is there whole is answered, but for a [`MISS`].
#[derive(Default)]
pub(crate) struct Hits(pub(crate) Arc<AtomicU32>);

impl Shortcut for Hits {
    fn path(&self) -> &'static str {
        HIT
    }

    fn answer(&self, _: &Caller, body: &[u8], moment: &mut Moment) -> Option<Answer> {
        let message = body.get(framed(&[]).len()..)?;
        let answer = match message {
            _ if body != framed(message) || message.starts_with(MISS) => return None,
            WANTS_LARGE => LARGE,
            _ => MESSAGE,
        };
        self.0.fetch_add(1, Relaxed);
        moment.served(Freshness::Fresh);
        Some(Bytes::from_static(answer).into())
    }

    fn answered(&self, _: u64, _: u64) {}
}

/// How a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Through tonic.
    Long,
    /// Answered by the door itself.
    Short,
}

pub(crate) const WAYS: [Way; 2] = [Way::Long, Way::Short];

impl Way {
    /// A call that is answered at once with [`MESSAGE`].
    pub(crate) fn call(self, stream: u32) -> Vec<u8> {
        match self {
            Self::Long => call(stream, "message"),
            Self::Short => ask(stream, HIT, b""),
        }
    }

    /// A call that is answered at once with [`LARGE`].
    pub(crate) fn large(self, stream: u32) -> Vec<u8> {
        match self {
            Self::Long => call(stream, "large-message"),
            Self::Short => ask(stream, HIT, WANTS_LARGE),
        }
    }

    /// A call that is under way for as long: its answer takes so long, or, the short way, its message is not all there before the rest.
    pub(crate) fn begun(self, stream: u32, millis: u32) -> Vec<u8> {
        match self {
            Self::Long => call(stream, &format!("message/{millis}")),
            Self::Short => {
                let head = frame(HEADERS, END_HEADERS, stream, &header_block(HIT));
                [head, frame(DATA, 0, stream, &halves().0)].concat()
            }
        }
    }

    /// What is left to send of it.
    pub(crate) fn rest(self, stream: u32) -> Vec<u8> {
        match self {
            Self::Long => vec![],
            Self::Short => frame(DATA, END_STREAM, stream, &halves().1),
        }
    }

    /// The same by an orderly peer.
    pub(crate) async fn begin(self, peer: &mut Peer, millis: u32) -> UnderWay {
        peer.send = peer.send.clone().ready().await.unwrap();
        let path = match self {
            Self::Long => format!("message/{millis}"),
            Self::Short => "hit".to_owned(),
        };
        let (answer, mut stream) = peer.send.send_request(request(&path), self == Self::Long).unwrap();
        if self == Self::Short {
            stream.send_data(halves().0.into(), false).unwrap();
        }
        UnderWay { way: self, pause: Duration::from_millis(millis.into()), answer, stream }
    }
}

/// A call that is not answered yet.
pub(crate) struct UnderWay {
    way: Way,
    pause: Duration,
    answer: ResponseFuture,
    stream: SendStream<Bytes>,
}

impl UnderWay {
    /// Whether it is answered, and well.
    pub(crate) async fn answered_well(mut self) -> bool {
        if self.way == Way::Short {
            tokio::time::sleep(self.pause).await;
            self.stream.send_data(halves().1.into(), true).unwrap();
        }
        let mut body = self.answer.await.unwrap().into_body();
        let mut message = vec![];
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            message.extend_from_slice(&data);
        }
        message == MESSAGE && body.trailers().await.unwrap().unwrap()["grpc-status"] == "0"
    }

    pub(crate) fn cancel(mut self) {
        self.stream.send_reset(h2::Reason::CANCEL);
    }
}

/// A call without a message.
pub(crate) fn call(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &header_block(&format!("/test.Slow/{path}")))
}

fn halves() -> (Vec<u8>, Vec<u8>) {
    let mut first = framed(b"in two parts");
    let second = first.split_off(7);
    (first, second)
}
