//! The body of a request: what was read of it already, then the rest.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http_body::Frame;

use super::{meter::Meter, request::Shared};

/// Messages beyond this are not waited for in one piece.
const SHORT_MESSAGE: usize = 8 * 1024;

/// A message that is not all here yet.
pub(crate) struct Reading {
    stream: RecvStream,
    pub(crate) head: Bytes,
}

pub(crate) enum Read {
    /// All of it.
    Whole,
    /// It is for a reader that takes it in parts.
    TooLong,
    /// The peer is gone.
    Broken,
}

impl Reading {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, head: Bytes::new() }
    }

    /// Reads into the head until all of a short message is there.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, meter: &Meter) -> Poll<Read> {
        while !self.stream.is_end_stream() {
            match ready!(self.poll_data(cx, meter)) {
                Some(Ok(data)) if self.head.is_empty() => self.head = data,
                Some(Ok(data)) => self.head = joined(&self.head, &data),
                Some(Err(_)) => return Poll::Ready(Read::Broken),
                None => break,
            }
            if self.head.len() > SHORT_MESSAGE {
                return Poll::Ready(Read::TooLong);
            }
        }
        Poll::Ready(Read::Whole)
    }

    fn poll_data(&mut self, cx: &mut Context<'_>, meter: &Meter) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let next = ready!(self.stream.poll_data(cx));
        if let Some(Ok(data)) = &next {
            meter.body(data.len());
            // A stream that has ended gives its window back by itself; one that was reset has none.
            if !self.stream.is_end_stream() {
                let _ = self.stream.flow_control().release_capacity(data.len());
            }
        }
        Poll::Ready(next)
    }
}

fn joined(head: &[u8], data: &[u8]) -> Bytes {
    let mut joined = BytesMut::with_capacity(head.len() + data.len());
    joined.extend_from_slice(head);
    joined.extend_from_slice(data);
    joined.freeze()
}

/// The same as a body, for tonic.
pub(crate) struct Incoming {
    pub(crate) reading: Reading,
    pub(crate) shared: Arc<Shared>,
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let Self { reading, shared } = &mut *self;
        if !reading.head.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut reading.head)))));
        }
        // gRPC clients send no trailers; what comes there is for nobody.
        reading.poll_data(cx, &shared.meter).map(|next| next.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.reading.head.is_empty() && self.reading.stream.is_end_stream()
    }
}
