//! Conversion between JSON and the values of messages.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as WireValue};
use serde_json::{Map, Number, Value};

use super::messages::{DataStream, Meta, Package, Stream, UnitConfig};

/// Maximum nesting of a payload. The conversion is recursive, and payloads come from components.
const NESTING_MAX: usize = 64;

/// Converts the fields of an object; anything else has none.
pub fn to_struct(value: &Value) -> Struct {
    let fields = value.as_object().into_iter().flatten();
    Struct { fields: fields.map(|(name, field)| (name.clone(), to_wire(field))).collect() }
}

fn to_wire(value: &Value) -> WireValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        // Messages know only floating-point numbers.
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(to_wire).collect() }),
        Value::Object(_) => Kind::StructValue(to_struct(value)),
    };
    WireValue { kind: Some(kind) }
}

/// Converts a payload. What is nested too deeply becomes null.
pub fn to_json(fields: &Struct) -> Value {
    object(fields, 0)
}

fn object(fields: &Struct, depth: usize) -> Value {
    let field = |(name, value): (&String, &WireValue)| (name.clone(), json(value, depth + 1));
    Value::Object(fields.fields.iter().map(field).collect::<Map<_, _>>())
}

fn json(value: &WireValue, depth: usize) -> Value {
    match &value.kind {
        _ if depth > NESTING_MAX => Value::Null,
        Some(Kind::BoolValue(value)) => (*value).into(),
        Some(Kind::NumberValue(number)) => whole(*number),
        Some(Kind::StringValue(text)) => text.clone().into(),
        Some(Kind::ListValue(list)) => list.values.iter().map(|item| json(item, depth + 1)).collect(),
        Some(Kind::StructValue(fields)) => object(fields, depth),
        Some(Kind::NullValue(_)) | None => Value::Null,
    }
}

/// Returns a number without a fraction as an integer, as it was before its conversion.
fn whole(number: f64) -> Value {
    let text = format!("{number:.0}");
    match text.parse::<i64>() {
        Ok(integer) if number.fract() == 0.0 && number.abs() < 9e15 => integer.into(),
        _ => Number::from_f64(number).map_or(Value::Null, Value::Number),
    }
}

/// Converts the configuration of a unit.
pub fn unit_config(config: &Value) -> UnitConfig {
    let text = |name: &str| config[name].as_str().unwrap_or_default().to_owned();
    UnitConfig {
        source: Some(to_struct(config)),
        id: text("id"),
        kind: text("type"),
        name: text("name"),
        revision: config["revision"].as_u64().unwrap_or_default(),
        meta: config.get("meta").map(meta),
        // Present even without fields, as Elastic's components expect.
        data_stream: Some(data_stream(&config["data_stream"])),
        streams: config["streams"].as_array().into_iter().flatten().map(stream).collect(),
    }
}

fn meta(meta: &Value) -> Meta {
    let text = |name: &str| meta["package"][name].as_str().unwrap_or_default().to_owned();
    let package =
        |package: &Value| Package { source: Some(to_struct(package)), name: text("name"), version: text("version") };
    Meta { source: Some(to_struct(meta)), package: meta.get("package").map(package) }
}

fn stream(stream: &Value) -> Stream {
    Stream {
        source: Some(to_struct(stream)),
        id: stream["id"].as_str().unwrap_or_default().to_owned(),
        data_stream: Some(data_stream(&stream["data_stream"])),
    }
}

fn data_stream(value: &Value) -> DataStream {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let source = value.is_object().then(|| to_struct(value));
    DataStream { source, dataset: text("dataset"), kind: text("type"), namespace: text("namespace") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_survives_the_conversion() {
        let config = json!({"id": "fake-1", "type": "fake", "revision": 7, "ratio": 0.5, "on": true, "none": null,
            "meta": {"package": {"name": "p", "version": "1.2"}}, "data_stream": {"namespace": "default"},
            "streams": [{"id": "s", "data_stream": {"dataset": "x", "type": "logs"}}]});
        let wire = unit_config(&config);
        assert_eq!(to_json(wire.source.as_ref().unwrap()), config);
        assert_eq!((wire.id.as_str(), wire.kind.as_str(), wire.revision), ("fake-1", "fake", 7));
        assert_eq!(wire.meta.unwrap().package.unwrap().version, "1.2");
        assert_eq!(wire.streams[0].data_stream.as_ref().unwrap().kind, "logs");
    }

    #[test]
    fn a_payload_that_is_nested_too_deeply_is_cut() {
        let mut deep = json!(1);
        for _ in 0..80 {
            deep = json!({ "a": deep });
        }
        assert!(to_json(&to_struct(&deep)).to_string().contains("null"));
    }
}
