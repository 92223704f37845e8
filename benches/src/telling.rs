//! Everything that a broker tells beside its answers: metrics, a hundredth of its traces, the log.

use std::{sync::Arc, time::Instant};

use jeton_server::{door::Calls, grpc::method_names};
use jeton_telemetry::{Environment, Gathered, OtlpSettings, Resource, Telemetry, TracesSettings, traces};
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// While it is there, it is told.
pub struct Telling {
    /// Where a door counts its calls.
    pub calls: Arc<Calls>,
    _telemetry: Telemetry,
}

impl std::fmt::Debug for Telling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telling").finish_non_exhaustive()
    }
}

impl Telling {
    /// As the broker does it. Batches are small, so that some are made and sent; nobody listens there.
    pub fn start() -> Self {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
            ("OTEL_LOGS_EXPORTER", "otlp"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
        ];
        let environment = Environment::of(variables);
        let exports = environment.exports(&OtlpSettings::default());
        let ids = || jeton_trace::current().context().map(|context| (context.trace_id, context.span_id));
        let (lines, logs) = jeton_telemetry::logs(&exports, ids);
        let (filter, _) = reload::Layer::new(EnvFilter::new("info"));
        Registry::default().with(filter).with(lines).try_init().expect("the first log of the process");
        let (tracer, traces) =
            traces(&exports, &environment, &TracesSettings::default(), &mut |text| panic!("{text}"));
        let gathered = Gathered::new(Arc::new(|_| {}), &exports, Instant::now());
        let resource = Resource::new("jeton", "bench", "one", &[]);
        let telemetry = Telemetry::start(&exports, (traces, logs), resource, gathered);
        Self { calls: Arc::new(Calls::new(method_names()).traced(tracer)), _telemetry: telemetry }
    }
}
