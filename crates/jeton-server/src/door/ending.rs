//! The end of a stream when a drain has begun.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::time::sleep;
use tonic::body::Body;

use super::Drain;

/// How long a stream may go on talking when a drain has begun.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A stream that has nothing more to say when a drain has begun ends: the drain does not wait for it.
pub(crate) fn ending(body: Body, drain: &Drain) -> Body {
    let drain = drain.clone();
    let begun = Box::pin(async move {
        drain.begun().await;
        sleep(LAST_WORDS).await;
    });
    Body::new(Ending { body, begun: Some(begun) })
}

struct Ending {
    body: Body,
    /// None: it has ended.
    begun: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = &mut *self;
        let Some(begun) = &mut this.begun else { return Poll::Ready(None) };
        if let Poll::Ready(next) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(next);
        }
        ready!(begun.as_mut().poll(cx));
        this.begun = None;
        let mut trailers = HeaderMap::new();
        let status = tonic::Status::unavailable("this broker is about to stop: connect again");
        Poll::Ready(Some(match status.add_header(&mut trailers) {
            Ok(()) => Ok(Frame::trailers(trailers)),
            Err(status) => Err(status),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_none() || self.body.is_end_stream()
    }
}
