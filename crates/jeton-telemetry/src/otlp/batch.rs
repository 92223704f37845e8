//! Spans and log records on their way out: handed over without a wait, sent together by one task.

use std::{fmt, future::pending, mem, sync::Arc};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    environment::Otlp,
    export::{Counts, Exporter},
    transport::Export,
};

/// Where they are handed over; a cloneable handle. Whoever hands over never waits: what there is no room for is dropped and counted.
pub(crate) struct Queue<T> {
    sender: mpsc::Sender<T>,
    counts: Arc<Counts>,
}

/// The other end, with what its task has to know.
pub(crate) struct Batches<T> {
    otlp: Otlp,
    queued: mpsc::Receiver<T>,
    counts: Arc<Counts>,
}

/// Both ends.
pub(crate) fn queue<T>(otlp: Otlp, counts: Arc<Counts>) -> (Queue<T>, Batches<T>) {
    let (sender, queued) = mpsc::channel(otlp.max_queued);
    (Queue { sender, counts: Arc::clone(&counts) }, Batches { otlp, queued, counts })
}

impl<T> Queue<T> {
    pub(crate) fn put(&self, one: T) {
        if self.sender.try_send(one).is_err() {
            self.counts.dropped.add();
        }
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), counts: Arc::clone(&self.counts) }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Batches<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches").field("otlp", &self.otlp).finish_non_exhaustive()
    }
}

impl<T> Batches<T> {
    /// Exports what is handed over until told to stop, and then what is left.
    pub(crate) async fn run<M: Export>(mut self, encode: impl Fn(Vec<T>) -> M, stop: CancellationToken) {
        let Some(exporter) = Exporter::new(self.otlp.clone(), Arc::clone(&self.counts), stop.clone()) else {
            // What is handed over from now on is dropped, and counted as such.
            self.queued.close();
            return stop.cancelled().await;
        };
        let mut batch = vec![];
        while stop.run_until_cancelled(self.fill(&mut batch)).await.is_some() {
            self.send(&exporter, &encode, mem::take(&mut batch)).await;
        }
        self.queued.close();
        loop {
            while batch.len() < self.otlp.max_batch
                && let Ok(one) = self.queued.try_recv()
            {
                batch.push(one);
            }
            if batch.is_empty() {
                return;
            }
            self.send(&exporter, &encode, mem::take(&mut batch)).await;
        }
    }

    /// Comes back when the batch is full, or when its first has waited for long enough. What is in it stays there if it does not.
    async fn fill(&mut self, batch: &mut Vec<T>) {
        let most = self.otlp.max_batch;
        if batch.is_empty() && self.queued.recv_many(batch, most).await == 0 {
            // Nobody is left who could hand over anything.
            return pending().await;
        }
        let until = Instant::now() + self.otlp.interval;
        while batch.len() < most {
            let more = timeout_at(until, self.queued.recv_many(batch, most - batch.len())).await;
            if more.unwrap_or(0) == 0 {
                return;
            }
        }
    }

    async fn send<M: Export>(&self, exporter: &Exporter, encode: impl Fn(Vec<T>) -> M, batch: Vec<T>) {
        let count = batch.len() as u64;
        if !exporter.export(&encode(batch)).await {
            self.counts.dropped.add_many(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Router;
    use http::{StatusCode, header};
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{Environment, OtlpSettings, Signal};

    fn ends(variables: &[(&str, &str)]) -> (Queue<u8>, Batches<u8>, Arc<Counts>) {
        let named = ("OTEL_LOGS_EXPORTER", "otlp");
        let environment = Environment::of(variables.iter().copied().chain([named]));
        let exports = environment.exports(&OtlpSettings::default());
        let counts = exports.counts(Signal::Logs);
        let (queue, batches) = queue(exports.logs.unwrap(), Arc::clone(&counts));
        (queue, batches, counts)
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_goes_when_it_is_full_or_when_its_first_has_waited_for_the_delay() {
        let (queue, mut batches, _) =
            ends(&[("OTEL_BLRP_SCHEDULE_DELAY", "3000"), ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "2")]);
        let begun = Instant::now();
        let mut batch = vec![];
        (0..3).for_each(|one| queue.put(one));
        batches.fill(&mut batch).await;
        assert_eq!((mem::take(&mut batch), begun.elapsed()), (vec![0, 1], Duration::ZERO));
        batches.fill(&mut batch).await;
        assert_eq!((batch, begun.elapsed()), (vec![2], Duration::from_secs(3)));
    }

    #[tokio::test]
    async fn what_there_is_no_room_for_is_dropped_and_counted() {
        let (queue, batches, counts) = ends(&[("OTEL_BLRP_MAX_QUEUE_SIZE", "2")]);
        (0..5).for_each(|one| queue.put(one));
        assert_eq!(counts.dropped.get(), 3);
        drop(batches);
        queue.put(5);
        assert_eq!(counts.dropped.get(), 4, "nobody takes it any more");
    }

    #[tokio::test]
    async fn nothing_more_goes_to_a_collector_that_asked_to_be_left_alone_and_a_stop_does_not_wait_for_it() {
        let (tell, mut told) = mpsc::unbounded_channel();
        let answer = move || {
            tell.send(()).unwrap();
            std::future::ready((StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "3600")]))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
        let one = ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "1");
        let (queue, batches, counts) =
            ends(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), one, ("OTEL_BLRP_MAX_QUEUE_SIZE", "3")]);
        (0..3).for_each(|one| queue.put(one));
        let stop = CancellationToken::new();
        let run = batches.run(|_| ExportLogsServiceRequest::default(), stop.clone());
        let (_, first) = tokio::join!(run, async {
            let first = told.recv().await;
            stop.cancel();
            first
        });
        assert!(first.is_some() && told.try_recv().is_err(), "asked once");
        assert_eq!((counts.dropped.get(), counts.failed.get()), (3, 3), "what did not go is counted");
        server.abort();
    }
}
