//! What the messages of all signals are made of.

use std::time::SystemTime;

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use serde_json::Value;

use crate::Resource;

/// A part of this program, by its name.
pub(crate) fn scope(name: &str) -> InstrumentationScope {
    InstrumentationScope {
        name: name.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    }
}

pub(crate) fn attribute(key: &str, value: &str) -> KeyValue {
    keyed(key, AnyValue { value: Some(any_value::Value::StringValue(value.into())) })
}

pub(crate) fn keyed(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}

/// The same value.
pub(crate) fn any(value: &Value) -> AnyValue {
    use any_value::Value as Any;
    let value = match value {
        Value::Null => None,
        Value::Bool(yes) => Some(Any::BoolValue(*yes)),
        Value::Number(number) => Some(
            number
                .as_i64()
                .map_or_else(|| Any::DoubleValue(number.as_f64().unwrap_or(f64::NAN)), Any::IntValue),
        ),
        Value::String(text) => Some(Any::StringValue(text.clone())),
        Value::Array(all) => Some(Any::ArrayValue(ArrayValue { values: all.iter().map(any).collect() })),
        Value::Object(members) => {
            let values = members.iter().map(|(key, value)| keyed(key, any(value))).collect();
            Some(Any::KvlistValue(KeyValueList { values }))
        }
    };
    AnyValue { value }
}

pub(crate) fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Resource {
    pub(crate) fn message(&self) -> opentelemetry_proto::tonic::resource::v1::Resource {
        let attributes = self.attributes().map(|(key, value)| attribute(key, value)).collect();
        opentelemetry_proto::tonic::resource::v1::Resource { attributes, ..Default::default() }
    }
}
