//! Answers on their way out.

use std::{
    future::poll_fn,
    pin::pin,
    sync::LazyLock,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Reason, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header::CONTENT_TYPE};
use http_body::Body as _;
use tonic::{Code, body::Body};

use super::Answer;

static HEADERS: LazyLock<HeaderMap> =
    LazyLock::new(|| HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]));
static TRAILERS: LazyLock<HeaderMap> = LazyLock::new(|| {
    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))])
});

/// One framed message and success: handed to the library at once, which holds it back as long as the peer's windows want.
pub(crate) fn message(mut respond: SendResponse<Answer>, message: Answer) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    *head.headers_mut() = HEADERS.clone();
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(message, false)?;
    stream.send_trailers(TRAILERS.clone())
}

/// tonic's answer, frame by frame, as the peer's windows allow. Its status comes back.
pub(crate) async fn response(
    mut respond: SendResponse<Answer>,
    response: Response<Body>,
) -> Result<Code, h2::Error> {
    let (head, body) = response.into_parts();
    let mut code = status(&head.headers);
    let end = body.is_end_stream();
    let mut stream = respond.send_response(Response::from_parts(head, ()), end)?;
    let mut body = pin!(body);
    let mut ended = end;
    while !ended {
        let next =
            poll_fn(|cx| gone(&mut stream, cx).unwrap_or_else(|| body.as_mut().poll_frame(cx).map(Ok)));
        match next.await? {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    ended = body.is_end_stream();
                    send(&mut stream, data, ended).await?;
                }
                Err(frame) => {
                    stream.reserve_capacity(0);
                    let trailers = frame.into_trailers().unwrap_or_default();
                    code = status(&trailers);
                    stream.send_trailers(trailers)?;
                    ended = true;
                }
            },
            Some(Err(error)) => {
                tracing::debug!(%error, "an answer broke off");
                stream.send_reset(Reason::INTERNAL_ERROR);
                code = Code::Internal;
                ended = true;
            }
            None => {
                stream.send_data(Bytes::new().into(), true)?;
                ended = true;
            }
        }
    }
    Ok(code)
}

/// The status among headers or trailers; an answer without one is none of gRPC.
fn status(headers: &HeaderMap) -> Code {
    headers.get("grpc-status").map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()))
}

/// Hands over as much as the peer's windows let through, again and again: when this has returned, the peer has taken all of it.
async fn send(stream: &mut SendStream<Answer>, mut data: Bytes, end: bool) -> Result<(), h2::Error> {
    loop {
        if !data.is_empty() {
            room(stream, data.len()).await?;
        }
        let part = data.split_to(stream.capacity().min(data.len()));
        stream.send_data(part.into(), end && data.is_empty())?;
        if data.is_empty() {
            return Ok(());
        }
    }
}

/// Waits until the peer's windows let some of it through. What is asked for is taken from others, but is used as soon as it is there.
async fn room(stream: &mut SendStream<Answer>, bytes: usize) -> Result<(), h2::Error> {
    stream.reserve_capacity(bytes);
    while stream.capacity() == 0 {
        let more = poll_fn(|cx| gone(stream, cx).unwrap_or_else(|| stream.poll_capacity(cx).map(Ok)));
        if more.await?.transpose()?.is_none() {
            return Err(Reason::CANCEL.into());
        }
    }
    Ok(())
}

/// Whether the peer has reset the stream; if not, the task is woken when it does.
fn gone<T>(stream: &mut SendStream<Answer>, cx: &mut Context<'_>) -> Option<Poll<Result<T, h2::Error>>> {
    match stream.poll_reset(cx) {
        Poll::Pending => None,
        Poll::Ready(Ok(reason)) => Some(Poll::Ready(Err(reason.into()))),
        Poll::Ready(Err(error)) => Some(Poll::Ready(Err(error))),
    }
}
