//! A snapshot as OTLP's message.

use std::time::SystemTime;

use jeton_core::metrics::Buckets;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
};

use super::{
    environment::Temporality,
    values::{any, attribute, keyed, nanos, scope},
};
use crate::{Family, Kind, Point, Resource, Snapshot, Value, prometheus::seconds};

/// A snapshot and when it was taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) at: SystemTime,
    pub(super) snapshot: std::sync::Arc<Snapshot>,
}

/// The message. `before`: what was taken at the start, or, where sums begin anew with each push, by the last one that arrived.
pub(super) fn request(
    taken: &Taken,
    started: SystemTime,
    before: Option<&Taken>,
    temporality: Temporality,
    resource: &Resource,
) -> ExportMetricsServiceRequest {
    let encoding = Encoding { now: nanos(taken.at), started, before, temporality };
    let metrics = taken.snapshot.families().map(|family| encoding.metric(family)).collect();
    let scopes = vec![ScopeMetrics { scope: Some(scope("jeton")), metrics, schema_url: String::new() }];
    let resource = ResourceMetrics {
        resource: Some(resource.message()),
        scope_metrics: scopes,
        schema_url: String::new(),
    };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }
}

struct Encoding<'a> {
    now: u64,
    started: SystemTime,
    before: Option<&'a Taken>,
    temporality: Temporality,
}

impl Encoding<'_> {
    fn metric(&self, family: &Family) -> Metric {
        let instrument = family.instrument;
        let delta = match self.temporality {
            Temporality::Cumulative => false,
            Temporality::Delta => matches!(instrument.kind, Kind::Counter | Kind::Histogram),
            Temporality::LowMemory => instrument.kind == Kind::Histogram,
        };
        let (start, before) = match self.before.filter(|_| delta) {
            Some(before) => {
                let same = before.snapshot.families().find(|f| f.instrument.name == instrument.name);
                (before.at, same)
            }
            None => (self.started, None),
        };
        let start = nanos(start);
        let earlier = |point: &Point| {
            let same = before?.points.iter().find(|p| p.attributes == point.attributes)?;
            Some(same.value.clone())
        };
        let temporality =
            if delta { AggregationTemporality::Delta } else { AggregationTemporality::Cumulative } as i32;
        let numbers = |start| {
            family.points.iter().filter_map(|p| self.number(family, p, start, earlier(p))).collect::<Vec<_>>()
        };
        let data = match instrument.kind {
            Kind::Gauge => Data::Gauge(Gauge { data_points: numbers(0) }),
            Kind::Counter | Kind::UpDownCounter => Data::Sum(Sum {
                data_points: numbers(start),
                aggregation_temporality: temporality,
                is_monotonic: instrument.kind == Kind::Counter,
            }),
            Kind::Histogram => Data::Histogram(Histogram {
                data_points: (family.points.iter())
                    .filter_map(|p| self.histogram(family, p, start, earlier(p)))
                    .collect(),
                aggregation_temporality: temporality,
            }),
        };
        Metric {
            name: instrument.name.into(),
            description: instrument.says.into(),
            unit: instrument.unit.into(),
            metadata: vec![],
            data: Some(data),
        }
    }

    fn number(
        &self,
        family: &Family,
        point: &Point,
        start: u64,
        earlier: Option<Value>,
    ) -> Option<NumberDataPoint> {
        let value = match (&point.value, earlier) {
            (Value::Whole(now), Some(Value::Whole(before))) => whole(now.saturating_sub(before)),
            (Value::Whole(now), _) => whole(*now),
            (Value::Real(now), Some(Value::Real(before))) => number_data_point::Value::AsDouble(now - before),
            (Value::Real(now), _) => number_data_point::Value::AsDouble(*now),
            (Value::Buckets(_), _) => return None,
        };
        Some(NumberDataPoint {
            attributes: attributes(family, point),
            start_time_unix_nano: start,
            time_unix_nano: self.now,
            value: Some(value),
            ..NumberDataPoint::default()
        })
    }

    fn histogram(
        &self,
        family: &Family,
        point: &Point,
        start: u64,
        earlier: Option<Value>,
    ) -> Option<HistogramDataPoint> {
        let Value::Buckets(buckets) = &point.value else { return None };
        let Buckets { bounds, mut counts, mut nanos } = buckets.clone();
        if let Some(Value::Buckets(before)) = earlier {
            counts.iter_mut().zip(before.counts).for_each(|(now, before)| *now = now.saturating_sub(before));
            nanos = nanos.saturating_sub(before.nanos);
        }
        Some(HistogramDataPoint {
            attributes: attributes(family, point),
            start_time_unix_nano: start,
            time_unix_nano: self.now,
            count: counts.iter().sum(),
            sum: Some(nanos as f64 / 1e9),
            bucket_counts: counts,
            explicit_bounds: bounds.iter().map(|micros| seconds(*micros)).collect(),
            ..HistogramDataPoint::default()
        })
    }
}

fn whole(count: u64) -> number_data_point::Value {
    number_data_point::Value::AsInt(i64::try_from(count).unwrap_or(i64::MAX))
}

/// Statuses of HTTP are numbers by the conventions.
fn attributes(family: &Family, point: &Point) -> Vec<KeyValue> {
    let one = |(key, value): (&str, &str)| match value.parse::<u16>() {
        Ok(status) if key == "http.response.status_code" => keyed(key, any(&status.into())),
        _ => attribute(key, value),
    };
    family.attributes(point).map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use jeton_core::metrics::{CALL_MICROS, Histogram as Counts};

    use super::*;
    use crate::instrument;

    fn taken(seconds: u64, denied: u64, signed: u64) -> Taken {
        let (mut snapshot, histogram) = (Snapshot::default(), Counts::new(CALL_MICROS));
        histogram.record_many(Duration::from_millis(1), signed);
        snapshot.count(&instrument::LOOKUPS, ["denied"], denied);
        snapshot.buckets(&instrument::SIGNING, [], histogram.read());
        snapshot.count(&instrument::WAITING, [], denied);
        Taken { at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), snapshot: Arc::new(snapshot) }
    }

    fn sent(temporality: Temporality) -> (i64, u64, i64, u64) {
        let (before, now) = (taken(20, 5, 2), taken(30, 7, 9));
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
        let resource = Resource::new("jeton", "1", "i", &[]);
        let message = request(&now, started, Some(&before), temporality, &resource);
        let metrics = &message.resource_metrics[0].scope_metrics[0].metrics;
        let named = |name| metrics.iter().find(|m| m.name == name).unwrap().data.clone().unwrap();
        let sum = |name| match named(name) {
            Data::Sum(sum) => sum.data_points[0].clone(),
            other => panic!("{other:?}"),
        };
        let int = |point: &NumberDataPoint| match point.value {
            Some(number_data_point::Value::AsInt(value)) => value,
            other => panic!("{other:?}"),
        };
        let Data::Histogram(histogram) = named("jeton.assertion.signing.duration") else { panic!() };
        let counted = sum("jeton.token.lookups");
        let start = counted.start_time_unix_nano / 1_000_000_000;
        (int(&counted), histogram.data_points[0].count, int(&sum("jeton.token.waiting_callers")), start)
    }

    #[test]
    fn what_begins_anew_is_what_the_temporality_says() {
        assert_eq!(sent(Temporality::Cumulative), (7, 9, 7, 10));
        assert_eq!(sent(Temporality::Delta), (2, 7, 7, 20));
        assert_eq!(sent(Temporality::LowMemory), (7, 7, 7, 10));
    }
}
