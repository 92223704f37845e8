//! The end of a stream: when a drain has begun, and when its caller's credential ends.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use jeton_core::Wall;
use tokio::time::sleep;
use tonic::body::Body;

use super::{caller::not_authenticated, request::Shared, standing::passed};

/// How long a stream may go on talking when a drain has begun.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A stream that has nothing more to say when a drain has begun ends: the drain does not wait for it. It ends at once when nobody's
/// credential stands behind it any more.
pub(crate) fn ending(body: Body, shared: &Arc<Shared>, until: Option<Wall>) -> Body {
    let drain = shared.common.drain.clone();
    let begun = Box::pin(async move {
        drain.begun().await;
        sleep(LAST_WORDS).await;
    });
    let own = Arc::clone(shared);
    let over = Box::pin(async move {
        tokio::select! {
            () = passed(until, Arc::clone(&own.common.clock)) => {}
            () = own.standing.ended() => {}
        }
        (own.common.complete)(not_authenticated()).into_parts().0.headers
    });
    Body::new(Ending { body, ends: Some(Ends { begun, over }) })
}

struct Ending {
    body: Body,
    /// None: it has ended.
    ends: Option<Ends>,
}

struct Ends {
    begun: Pin<Box<dyn Future<Output = ()> + Send>>,
    over: Pin<Box<dyn Future<Output = HeaderMap> + Send>>,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = &mut *self;
        let Some(ends) = &mut this.ends else { return Poll::Ready(None) };
        if let Poll::Ready(mut trailers) = ends.over.as_mut().poll(cx) {
            this.ends = None;
            trailers.remove(http::header::CONTENT_TYPE);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if let Poll::Ready(next) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(next);
        }
        ready!(ends.begun.as_mut().poll(cx));
        this.ends = None;
        let mut trailers = HeaderMap::new();
        let status = tonic::Status::unavailable("this broker is about to stop: connect again");
        Poll::Ready(Some(match status.add_header(&mut trailers) {
            Ok(()) => Ok(Frame::trailers(trailers)),
            Err(status) => Err(status),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.ends.is_none() || self.body.is_end_stream()
    }
}
