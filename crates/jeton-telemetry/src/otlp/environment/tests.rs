use super::*;

fn exports(variables: &[(&str, &str)]) -> Exports {
    with(&OtlpSettings::default(), variables)
}

fn with(settings: &OtlpSettings, variables: &[(&str, &str)]) -> Exports {
    Environment::of(variables.iter().copied()).exports(settings)
}

fn otlp(variables: &[(&str, &str)]) -> (Option<Otlp>, Vec<String>) {
    let exports = exports(variables);
    (exports.metrics, exports.warnings)
}

fn endpoint(variables: &[(&str, &str)]) -> Option<String> {
    otlp(variables).0.map(|otlp| otlp.endpoint.to_string())
}

/// The endpoints of metrics, traces and logs.
fn endpoints(exports: &Exports) -> [Option<&str>; 3] {
    [&exports.metrics, &exports.traces, &exports.logs]
        .map(|otlp| otlp.as_ref().map(|otlp| otlp.endpoint.as_str()))
}

#[test]
fn each_signal_goes_to_its_own_path_and_logs_where_somebody_asks_for_them() {
    let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
    let [metrics, traces, logs] =
        ["metrics", "traces", "logs"].map(|signal| format!("http://c:4318/v1/{signal}"));
    let (metrics, traces, logs) = (Some(metrics.as_str()), Some(traces.as_str()), Some(logs.as_str()));
    assert_eq!(endpoints(&exports(&[all])), [metrics, traces, None]);
    assert_eq!(endpoints(&exports(&[all, ("OTEL_LOGS_EXPORTER", "otlp")])), [metrics, traces, logs]);
    let without = [all, ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "none")];
    assert_eq!(endpoints(&exports(&without)), [None; 3]);
    let settings = OtlpSettings { metrics: false, traces: false, logs: true, ..OtlpSettings::default() };
    assert_eq!(endpoints(&with(&settings, &[all])), [None, None, logs]);
    let against = [all, ("OTEL_LOGS_EXPORTER", "none"), ("OTEL_TRACES_EXPORTER", "otlp")];
    assert_eq!(endpoints(&with(&settings, &against)), [None, traces, None], "the variables are over it");
    let own = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c:4318/v1/logs");
    assert_eq!(endpoints(&exports(&[own])), [None, None, logs]);
    assert_eq!(endpoints(&exports(&[own, ("OTEL_LOGS_EXPORTER", "none")])), [None; 3]);
    let nowhere = with(&settings, &[]);
    assert!(nowhere.logs.is_none() && nowhere.warnings[0].contains("no collector is named"), "{nowhere:?}");
}

#[test]
fn what_is_said_of_one_signal_is_said_of_no_other() {
    let exports = exports(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-a=1"),
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:4317"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://l/write"),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "x-a=2"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "700"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
    ]);
    let shown = endpoints(&exports);
    assert_eq!(shown, [Some("http://c:4318/v1/metrics"), Some("http://t:4317/"), Some("http://l/write")]);
    let all = [exports.metrics, exports.traces, exports.logs].map(Option::unwrap);
    let protocols = [Protocol::HttpProtobuf, Protocol::Grpc, Protocol::HttpProtobuf];
    assert_eq!(all.each_ref().map(|otlp| otlp.protocol), protocols);
    assert_eq!(all.each_ref().map(|otlp| otlp.headers[0].1.to_str().unwrap()), ["1", "1", "2"]);
    assert_eq!(all.each_ref().map(|otlp| otlp.timeout.as_millis()), [10_000, 10_000, 700]);
    assert_eq!(all.each_ref().map(|otlp| otlp.gzip), [false, true, false]);
}

#[test]
fn spans_and_log_records_wait_as_their_own_variables_say() {
    let exports = exports(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "200"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "300"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "400"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "1000000000000"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "0"),
    ]);
    let waits = |otlp: &Option<Otlp>| {
        let otlp = otlp.as_ref().unwrap();
        let times = [otlp.interval, otlp.export_timeout].map(|time| time.as_millis());
        (times, otlp.max_queued, otlp.max_batch)
    };
    assert_eq!(waits(&exports.traces), ([100, 200], 300, 300), "a batch fits into the queue");
    assert_eq!(waits(&exports.logs), ([1_000, 30_000], 2_048, 512));
    let said = exports.warnings.join("\n");
    assert!(said.contains("OTEL_BLRP_MAX_QUEUE_SIZE") && said.contains("OTEL_BLRP_SCHEDULE_DELAY"), "{said}");
}

#[test]
fn an_exporter_that_is_not_here_is_named_with_those_that_are() {
    let warnings = exports(&[("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_LOGS_EXPORTER", "console")]).warnings;
    let [traces, logs] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(traces.contains("OTEL_TRACES_EXPORTER names \"zipkin\"") && traces.contains("otlp, none"));
    assert!(logs.contains("OTEL_LOGS_EXPORTER names \"console\""), "{logs}");
}

#[test]
fn nothing_is_pushed_unless_somebody_says_where() {
    for variables in [
        vec![],
        vec![("OTEL_SERVICE_NAME", "jeton"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
        vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
        vec![("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c:4318")],
        vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_SDK_DISABLED", "TRUE")],
        vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_METRICS_EXPORTER", "none")],
        vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_METRICS_EXPORTER", "prometheus")],
    ] {
        assert!(otlp(&variables).0.is_none(), "{variables:?}");
    }
}

#[test]
fn whoever_names_the_exporter_gets_the_default_collector() {
    let exporter = ("OTEL_METRICS_EXPORTER", "otlp");
    assert_eq!(endpoint(&[exporter]).unwrap(), "http://localhost:4318/v1/metrics");
    let grpc = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc");
    assert_eq!(endpoint(&[exporter, grpc]).unwrap(), "http://localhost:4317/");
}

#[test]
fn an_endpoint_for_all_signals_gets_the_path_and_one_for_metrics_is_taken_as_it_is() {
    let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c.example:4318/otlp/");
    assert_eq!(endpoint(&[all]).unwrap(), "https://c.example:4318/otlp/v1/metrics");
    let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m.example/write");
    assert_eq!(endpoint(&[all, own]).unwrap(), "http://m.example/write");
    let settings = OtlpSettings { endpoint: "http://s:4318".into(), ..OtlpSettings::default() };
    let set = with(&settings, &[all, own]).metrics.unwrap();
    assert_eq!(set.endpoint.as_str(), "http://s:4318/v1/metrics", "a setting is over the variables");
}

#[test]
fn a_target_of_grpc_without_a_scheme_is_secure_unless_that_is_said() {
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let target = ("OTEL_EXPORTER_OTLP_ENDPOINT", "c.example:4317");
    assert_eq!(endpoint(&[grpc, target]).unwrap(), "https://c.example:4317/");
    let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
    assert_eq!(endpoint(&[grpc, target, insecure]).unwrap(), "http://c.example:4317/");
    let (none, warnings) = otlp(&[target]);
    assert!(none.is_none() && warnings[0].contains("c.example:4317"), "{warnings:?}");
}

#[test]
fn what_is_said_of_metrics_is_over_what_is_said_of_all() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20abc,x-a=1"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "X-A=2"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "7000"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "5000"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "c.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "k.pem"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "2000"),
    ];
    let (otlp, warnings) = otlp(&variables);
    let otlp = otlp.unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!((otlp.protocol, otlp.gzip), (Protocol::HttpJson, true));
    let headers: Vec<_> = otlp.headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
    assert_eq!(headers.len(), 2);
    assert!(headers.contains(&("authorization", "Basic abc")) && headers.contains(&("x-a", "2")));
    assert_eq!(
        [otlp.timeout, otlp.interval, otlp.export_timeout].map(|d| d.as_millis()),
        [5_000, 1_000, 2_000]
    );
    assert_eq!(otlp.ca_file.as_deref(), Some("ca.pem"));
    assert_eq!(otlp.client_certificate.clone().unwrap(), ("c.pem".into(), "k.pem".into()));
    assert_eq!(otlp.temporality, Temporality::Delta);
    assert!(!format!("{otlp:?}").contains("abc"), "no header is shown");
}

#[test]
fn what_cannot_be_understood_is_said_and_left_out_and_no_secret_is_shown() {
    let (otlp, warnings) = otlp(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
        ("OTEL_METRICS_EXPORTER", "otlp,console"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "udp"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "bad name=canary"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "none"),
        ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"),
    ]);
    let otlp = otlp.unwrap();
    assert_eq!((otlp.protocol, otlp.timeout, otlp.gzip), (Protocol::HttpProtobuf, DEFAULT_TIMEOUT, false));
    let said = warnings.join("\n");
    for part in ["console", "udp", "soon", "zstd", "OTEL_EXPORTER_OTLP_HEADERS", "none", "base2"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains("canary"));
}

#[test]
fn a_header_that_is_none_is_told_of_by_its_position_alone_and_the_others_are_sent() {
    let (otlp, warnings) = otlp(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-a=canary,canary,,=canary,authorization canary=,x-b=%0Acanary,"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "canary, x-c=2"),
    ]);
    let mut headers: Vec<_> = otlp.unwrap().headers.iter().map(|(name, _)| name.to_string()).collect();
    headers.sort();
    assert_eq!(headers, ["x-a", "x-c"]);
    let all = "OTEL_EXPORTER_OTLP_HEADERS";
    let expected = [(all, 2), (all, 4), (all, 5), (all, 6), ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", 1)];
    assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
    for (warning, (variable, position)) in warnings.iter().zip(expected) {
        let said = warning.starts_with(variable) && warning.contains(&format!("number {position} "));
        assert!(said && !warning.contains("canary"), "{warning}");
    }
}

#[test]
fn prometheus_is_served_where_the_variables_ask_for_it() {
    let address =
        |variables: &[(&str, &str)]| Environment::of(variables.iter().copied()).prometheus_address();
    let exporter = ("OTEL_METRICS_EXPORTER", "otlp, prometheus");
    assert_eq!(address(&[]), None);
    assert_eq!(address(&[exporter]).unwrap(), "127.0.0.1:9464");
    let [host, port] = [("OTEL_EXPORTER_PROMETHEUS_HOST", "::1"), ("OTEL_EXPORTER_PROMETHEUS_PORT", "9000")];
    assert_eq!(address(&[exporter, host, port]).unwrap(), "[::1]:9000");
}

#[test]
fn what_is_no_url_is_named_without_what_may_be_a_secret() {
    let warnings = otlp(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://me:canary@c/x?key=canary")]).1;
    assert!(warnings[0].contains("\"c/x\" is no URL") && !warnings[0].contains("canary"), "{warnings:?}");
}
