//! What ties together all that is said of one request: what its caller is told, the log's lines, the audit log.
//!
//! Nothing here is an `async fn`: that would keep the work twice, and thousands of requests may wait at once.

use jeton_core::{Clock, Principal, SystemClock, Uid, Wall};
use tokio::task::futures::TaskLocalFuture;
use tracing::{Instrument, Span, field::Empty, instrument::Instrumented};

tokio::task_local! {
    static CURRENT: String;
}

/// The id of the request under way.
pub(crate) fn current() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The same; outside of a request a new one.
pub(crate) fn id() -> String {
    current().unwrap_or_else(|| new(SystemClock.now().wall))
}

/// A request and its span of a trace: it has an id, and the log's lines about it have the id and the caller.
pub(crate) fn request<F: Future>(
    now: Wall,
    caller: Option<&Principal>,
    span: jeton_trace::Span,
    work: F,
) -> TaskLocalFuture<jeton_trace::Span, Instrumented<TaskLocalFuture<String, F>>> {
    let id = new(now);
    span.text("jeton.correlation_id", &id);
    let lines = tracing::error_span!("request", correlation_id = id, principal = Empty);
    if let Some(caller) = caller {
        lines.record("principal", tracing::field::display(caller));
    }
    span.within(under(id, work).instrument(lines))
}

/// From now on lines have the caller, who was not known before.
pub(crate) fn is_from(caller: &Principal) {
    Span::current().record("principal", tracing::field::display(caller));
}

/// Under an id that is known elsewhere.
pub(crate) fn under<F: Future>(id: String, work: F) -> TaskLocalFuture<String, F> {
    CURRENT.scope(id, work)
}

/// Part of a request that is answered by itself.
pub(crate) fn part<F: Future>(work: F) -> TaskLocalFuture<String, F> {
    under(new(SystemClock.now().wall), work)
}

/// For a task of its own.
pub(crate) fn carried<F: Future>(work: F) -> Instrumented<TaskLocalFuture<String, F>> {
    let (id, span) = (id(), Span::current());
    under(id, work).instrument(span)
}

fn new(now: Wall) -> String {
    Uid::new(now, rand::random()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_has_one_id_its_tasks_too_and_each_part_its_own() {
        assert_eq!(current(), None);
        let caller = Principal::loopback_dev();
        let ids = request(Wall::from_secs(1), Some(&caller), jeton_trace::Span::NONE, async {
            let elsewhere = tokio::spawn(carried(async { id() })).await.unwrap();
            let [one, two] = [part(async { id() }).await, part(async { id() }).await];
            [id(), elsewhere, one, two]
        });
        let [own, elsewhere, one, two] = ids.await;
        assert_eq!(own, elsewhere);
        assert!(own != one && one != two && own != two);
        assert_ne!(id(), id(), "outside of a request");
    }
}
