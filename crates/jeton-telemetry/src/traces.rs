//! Which traces are recorded, and spans on their way to a collector.

use std::sync::Arc;

use jeton_core::Problem;
use jeton_trace::{Context, Ended, Kind, Sampler, Tracer, Value};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, SpanFlags, Status,
        span::{Link, SpanKind},
        status::StatusCode,
    },
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    Environment, Exports, Resource, Signal,
    otlp::{Batches, any, keyed, nanos, queue, scope},
};

/// Of the traces that begin here, where nobody says how many. Hits come by the hundred thousand a second; who wants to see all of its own
/// says so by its `traceparent`.
const USUAL: &str = "0.01";
const USUAL_SAMPLER: &str = "parentbased_traceidratio";
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    USUAL_SAMPLER,
];
/// In this version names of attributes are as here.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.42.0";

/// `[telemetry.traces]`; what is empty is as OpenTelemetry's variables say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracesSettings {
    /// As in `OTEL_TRACES_SAMPLER`.
    pub sampler: String,
    /// As in `OTEL_TRACES_SAMPLER_ARG`: a part of all, from 0 to 1.
    pub sampler_arg: String,
}

/// Where spans are exported, before there is somebody to do it.
#[derive(Debug)]
pub struct Traces(Batches<Ended>);

/// Who records spans, and what exports them, where the exports say so. What cannot be understood is said by `warn` and left out.
pub fn traces(
    exports: &Exports,
    environment: &Environment,
    settings: &TracesSettings,
    warn: &mut dyn FnMut(String),
) -> (Tracer, Option<Traces>) {
    let Some(otlp) = exports.traces.clone() else { return (Tracer::default(), None) };
    let (spans, batches) = queue(otlp, exports.counts(Signal::Traces));
    let tracer = Tracer::new(sampler(environment, settings, warn), Arc::new(move |ended| spans.put(ended)));
    let tracer = if propagates(environment, warn) { tracer } else { tracer.without_callers() };
    (tracer, Some(Traces(batches)))
}

impl Traces {
    /// Exports spans until told to stop, and then what is left.
    pub(crate) async fn run(self, resource: Resource, stop: CancellationToken) {
        self.0.run(|spans| request(spans, &resource), stop).await;
    }
}

impl TracesSettings {
    pub(crate) fn validate(&self) -> Vec<Problem> {
        let mut problems = vec![];
        if !self.sampler.is_empty() && !SAMPLERS.contains(&self.sampler.as_str()) {
            problems.push(Problem::new("sampler", format!("must be one of {}", SAMPLERS.join(", "))));
        }
        if !self.sampler_arg.is_empty() && part(&self.sampler_arg).is_none() {
            problems.push(Problem::new("sampler_arg", "must be a number from 0 to 1, such as 0.01"));
        }
        problems
    }
}

fn sampler(environment: &Environment, settings: &TracesSettings, warn: &mut dyn FnMut(String)) -> Sampler {
    let given = |setting: &str, variable| {
        let set = Some(setting).filter(|text| !text.is_empty()).map(str::to_owned);
        set.or_else(|| environment.get(variable).map(str::to_owned))
    };
    let name = given(&settings.sampler, "OTEL_TRACES_SAMPLER").filter(|name| {
        let known = SAMPLERS.contains(&name.as_str());
        if !known {
            let all = SAMPLERS.join(", ");
            warn(format!("OTEL_TRACES_SAMPLER is {name:?}, which this broker does not have: {all}"));
        }
        known
    });
    let argument = given(&settings.sampler_arg, "OTEL_TRACES_SAMPLER_ARG");
    let said = argument.as_deref().and_then(|text| {
        let part = part(text);
        if part.is_none() {
            warn(format!("OTEL_TRACES_SAMPLER_ARG is {text:?}, and no number from 0 to 1"));
        }
        part
    });
    // Whoever names a sampler and no part of the traces means all, as the specification has it.
    let unsaid = if name.is_some() { 1.0 } else { part(USUAL).unwrap_or_default() };
    let part = said.unwrap_or(unsaid);
    match name.as_deref().unwrap_or(USUAL_SAMPLER) {
        "always_on" => Sampler::ratio(1.0),
        "always_off" => Sampler::ratio(0.0),
        "traceidratio" => Sampler::ratio(part),
        "parentbased_always_on" => Sampler::parent_based(1.0),
        "parentbased_always_off" => Sampler::parent_based(0.0),
        _ => Sampler::parent_based(part),
    }
}

fn part(text: &str) -> Option<f64> {
    text.parse().ok().filter(|part| (0.0..=1.0).contains(part))
}

/// Whether callers' contexts are read. Baggage never is.
fn propagates(environment: &Environment, warn: &mut dyn FnMut(String)) -> bool {
    let Some(asked) = environment.get("OTEL_PROPAGATORS") else { return true };
    let asked: Vec<_> = asked.split(',').map(str::trim).collect();
    for unknown in asked.iter().filter(|name| !matches!(**name, "tracecontext" | "baggage" | "none")) {
        warn(format!(
            "OTEL_PROPAGATORS names {unknown:?}, which this broker does not read: tracecontext, or none"
        ));
    }
    asked.contains(&"tracecontext")
}

fn request(spans: Vec<Ended>, resource: &Resource) -> ExportTraceServiceRequest {
    let spans = spans.into_iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope("jeton")), spans, schema_url: SCHEMA.into() }];
    let resource = Some(resource.message());
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans, schema_url: String::new() }],
    }
}

fn span(ended: Ended) -> Span {
    let Ended { context, parent, .. } = ended;
    let kind = match ended.kind {
        Kind::Internal => SpanKind::Internal,
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
    };
    let attributes = ended.attributes.into_iter().map(|(key, value)| match value {
        Value::Text(text) => keyed(key, any(&text.into())),
        Value::Number(number) => keyed(key, any(&number.into())),
    });
    let code = if ended.failed { StatusCode::Error } else { StatusCode::Unset };
    Span {
        trace_id: context.trace_id.to_be_bytes().into(),
        span_id: context.span_id.to_be_bytes().into(),
        trace_state: state(&context),
        parent_span_id: parent.map_or_else(Vec::new, |parent| parent.span_id.to_be_bytes().into()),
        flags: flags(&context, parent.is_some_and(|parent| parent.remote)),
        name: ended.name.into_owned(),
        kind: kind as i32,
        start_time_unix_nano: nanos(ended.started_at),
        end_time_unix_nano: nanos(ended.ended_at),
        attributes: attributes.collect(),
        links: ended.links.iter().map(link).collect(),
        dropped_links_count: ended.dropped_links,
        status: Some(Status { message: String::new(), code: code as i32 }),
        ..Span::default()
    }
}

/// To a span of this very process.
fn link(to: &Context) -> Link {
    Link {
        trace_id: to.trace_id.to_be_bytes().into(),
        span_id: to.span_id.to_be_bytes().into(),
        trace_state: state(to),
        flags: flags(to, false),
        ..Link::default()
    }
}

fn state(context: &Context) -> String {
    context.state.as_deref().unwrap_or_default().into()
}

/// Those of W3C, and whether the parent of a span, or the end of a link, is somebody else's.
fn flags(context: &Context, remote: bool) -> u32 {
    let remote = if remote { SpanFlags::ContextIsRemoteMask as u32 } else { 0 };
    u32::from(context.sampled) | SpanFlags::ContextHasIsRemoteMask as u32 | remote
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)], settings: &[&str; 2]) -> (Sampler, bool, Vec<String>) {
        let environment = Environment::of(variables.iter().copied());
        let [sampler, sampler_arg] = settings.map(str::to_owned);
        let mut warnings = vec![];
        let settings = TracesSettings { sampler, sampler_arg };
        let read = super::sampler(&environment, &settings, &mut |text| warnings.push(text));
        let propagates = propagates(&environment, &mut |text| warnings.push(text));
        (read, propagates, warnings)
    }

    #[test]
    fn the_sampler_is_the_settings_or_else_the_environments_or_else_a_hundredth_of_what_begins_here() {
        let (name, arg) = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG");
        type Case<'a> = (&'a [(&'a str, &'a str)], [&'a str; 2], Sampler);
        let cases: [Case<'_>; 10] = [
            (&[], ["", ""], Sampler::parent_based(0.01)),
            (&[(name, "always_on")], ["", ""], Sampler::ratio(1.0)),
            (&[(name, "always_off")], ["", ""], Sampler::ratio(0.0)),
            (&[(name, "traceidratio"), (arg, "0.5")], ["", ""], Sampler::ratio(0.5)),
            (&[(name, "traceidratio")], ["", ""], Sampler::ratio(1.0)),
            (&[(name, "parentbased_always_on"), (arg, "0.5")], ["", ""], Sampler::parent_based(1.0)),
            (&[(name, "parentbased_always_off")], ["", ""], Sampler::parent_based(0.0)),
            (&[(name, "parentbased_traceidratio"), (arg, "0.2")], ["", ""], Sampler::parent_based(0.2)),
            (&[(name, "always_off")], ["always_on", ""], Sampler::ratio(1.0)),
            (&[], ["", "0.25"], Sampler::parent_based(0.25)),
        ];
        for (variables, settings, expected) in cases {
            assert_eq!(read(variables, &settings), (expected, true, vec![]), "{variables:?} {settings:?}");
        }
        let (sampler, _, warnings) = read(&[(name, "jaeger_remote"), (arg, "2")], &["", ""]);
        assert_eq!((sampler, warnings.len()), (Sampler::parent_based(0.01), 2), "{warnings:?}");
    }

    #[test]
    fn callers_contexts_are_read_where_trace_context_is_asked_for_and_of_others_it_is_said_that_they_are_not()
    {
        for (asked, propagating, warnings) in [
            ("tracecontext,baggage", true, 0),
            ("tracecontext, b3", true, 1),
            ("b3multi,jaeger", false, 2),
            ("none", false, 0),
        ] {
            let (_, propagates, said) = read(&[("OTEL_PROPAGATORS", asked)], &["", ""]);
            assert_eq!((propagates, said.len()), (propagating, warnings), "{asked}");
        }
    }
}
