//! What is left of a span.

use std::{borrow::Cow, time::SystemTime};

use crate::{Context, Kind, Parent, Value};

/// A span that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its own place.
    pub context: Context,
    /// What it is part of; none: it is the root of its trace.
    pub parent: Option<Parent>,
    /// What was done; one of few.
    pub name: Cow<'static, str>,
    /// On which side of a call.
    pub kind: Kind,
    /// When it began.
    pub started_at: SystemTime,
    /// When it ended: never before it began, whatever was done to the clock.
    pub ended_at: SystemTime,
    /// More about it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Spans, of other traces too, that it has to do with.
    pub links: Vec<Context>,
    /// How many more there were.
    pub dropped_links: u32,
    /// Whether it failed; why is `error.type`.
    pub failed: bool,
}
