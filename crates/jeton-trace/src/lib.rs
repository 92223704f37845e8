//! Spans of distributed traces.
//!
//! Whether a trace is sampled is known before there is a span of it, so what is not sampled costs a look at one header and a random
//! number, and allocates nothing. A span that is there knows its tracer: whoever works under one begins its children by [`current`], and
//! needs to be told nothing. What has ended is handed on, to somebody who must not block.
//!
//! A span is for operators. Nothing here reads baggage, and nothing here writes a header.

mod context;
mod ended;
mod sampler;
mod span;
mod tracer;

pub use context::Context;
pub use ended::Ended;
pub use sampler::Sampler;
pub use span::{Kind, Parent, Span, Value, current};
pub use tracer::{Sink, Tracer};
