//! Where spans begin that are part of nothing here.

use std::{borrow::Cow, fmt, sync::Arc};

use http::HeaderMap;
use rand::Rng;

use crate::{
    Context, Ended, Kind, Sampler, Span,
    span::{Parent, new_span_id},
};

/// Takes what has ended. Must not block.
pub type Sink = Arc<dyn Fn(Ended) + Send + Sync>;

/// A cloneable handle; the usual one records nothing.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Recorder>>);

#[derive(Clone)]
struct Recorder {
    sampler: Sampler,
    sink: Sink,
    /// Whether requests may go on with their callers' traces.
    callers: bool,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("sampler", &self.sampler).finish_non_exhaustive()
    }
}

impl Tracer {
    /// One that records what the sampler takes.
    pub fn new(sampler: Sampler, sink: Sink) -> Self {
        Self(Some(Arc::new(Recorder { sampler, sink, callers: true })))
    }

    /// The same, for which every request begins a trace.
    #[must_use]
    pub fn without_callers(&self) -> Self {
        let alone = |recorder: &Arc<Recorder>| Arc::new(Recorder { callers: false, ..(**recorder).clone() });
        Self(self.0.as_ref().map(alone))
    }

    /// A request of somebody else, with its headers. Its name is asked for if it is recorded.
    pub fn request(&self, headers: &HeaderMap, name: impl FnOnce() -> Cow<'static, str>) -> Span {
        let Some(recorder) = &self.0 else { return Span::NONE };
        match Context::of_caller(headers).filter(|_| recorder.callers) {
            Some(caller) => {
                if !recorder.sampler.takes(Some(caller.sampled), caller.trace_id as u64) {
                    return Span::NONE;
                }
                let caller = caller.with_state_of(headers);
                let context = Context { span_id: new_span_id(), sampled: true, ..caller };
                let parent = Parent { span_id: caller.span_id, remote: true };
                Span::begin(&recorder.sink, context, Some(parent), name(), Kind::Server)
            }
            None => match recorder.begun() {
                Some(context) => Span::begin(&recorder.sink, context, None, name(), Kind::Server),
                None => Span::NONE,
            },
        }
    }

    /// Something that the broker does by itself.
    pub fn root(&self, name: &'static str) -> Span {
        let Some(recorder) = &self.0 else { return Span::NONE };
        let Some(context) = recorder.begun() else { return Span::NONE };
        Span::begin(&recorder.sink, context, None, Cow::Borrowed(name), Kind::Internal)
    }

    /// The same, because of something that is over: recorded if that was, and linked to it.
    pub fn following(&self, cause: Option<&Context>, name: impl FnOnce() -> Cow<'static, str>) -> Span {
        let Some(recorder) = &self.0 else { return Span::NONE };
        let cause = cause.filter(|cause| cause.sampled);
        let context = if cause.is_some() { Some(new_trace(rand::rng().random())) } else { recorder.begun() };
        let Some(context) = context else { return Span::NONE };
        let span = Span::begin(&recorder.sink, context, None, name(), Kind::Internal);
        span.link(cause);
        span
    }
}

impl Recorder {
    /// A trace that begins here, if it is taken. Half of its id says whether it is.
    fn begun(&self) -> Option<Context> {
        let lower = rand::rng().random();
        self.sampler.takes(None, lower).then(|| new_trace(lower))
    }
}

fn new_trace(lower: u64) -> Context {
    let upper = rand::rng().random_range(1..=u64::MAX);
    let trace_id = u128::from(upper) << 64 | u128::from(lower);
    Context { trace_id, span_id: new_span_id(), sampled: true, state: None }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn tracer(sampler: Sampler) -> (Tracer, Receiver<Ended>) {
        let (tell, told) = channel();
        (Tracer::new(sampler, Arc::new(move |ended| tell.send(ended).unwrap())), told)
    }

    fn headers(traceparent: &str) -> HeaderMap {
        let named = [("traceparent", traceparent), ("tracestate", "us=1"), ("baggage", "canary=1")];
        named.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_callers_trace_goes_on_and_another_begins() {
        let (tracer, told) = tracer(Sampler::parent_based(0.0));
        let caller = headers("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        drop(tracer.request(&caller, || "method".into()));
        let ended = told.try_recv().unwrap();
        assert_eq!(ended.context.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(ended.parent, Some(Parent { span_id: 0xb7ad_6b71_6920_3331, remote: true }));
        assert_eq!((ended.context.state.as_deref(), ended.kind), (Some("us=1"), Kind::Server));
        assert!(ended.ended_at >= ended.started_at);
        for unrecorded in [
            headers("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
            headers("nonsense"),
            HeaderMap::new(),
        ] {
            let span = tracer.request(&unrecorded, || panic!("its name is of no use"));
            assert!(!span.is_recording());
        }
        assert!(told.try_recv().is_err());
        let (tracer, told) = super::tests::tracer(Sampler::parent_based(1.0));
        for (tracer, headers) in [(&tracer, headers("nonsense")), (&tracer.without_callers(), caller)] {
            drop(tracer.request(&headers, || "method".into()));
            let ended = told.try_recv().unwrap();
            assert!(ended.parent.is_none() && ended.context.trace_id != 0 && ended.context.state.is_none());
        }
    }

    #[test]
    fn what_follows_something_recorded_is_recorded_in_a_trace_of_its_own() {
        let (tracer, told) = tracer(Sampler::parent_based(0.0));
        let cause = new_trace(u64::MAX);
        drop(tracer.following(Some(&cause), || "step".into()));
        let ended = told.try_recv().unwrap();
        assert_eq!((&ended.links[..], ended.parent), (&[cause.clone()][..], None));
        assert_ne!(ended.context.trace_id, cause.trace_id);
        let unrecorded = Context { sampled: false, ..cause };
        for cause in [None, Some(&unrecorded)] {
            assert!(!tracer.following(cause, || panic!("no name")).is_recording());
        }
    }

    #[test]
    fn the_usual_tracer_records_nothing() {
        let caller = headers("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let tracer = Tracer::default();
        assert!(!tracer.request(&caller, || panic!("no name")).is_recording());
        assert!(!tracer.root("flight").is_recording());
    }
}
