//! Inputs of type `host/metrics`: readings of this host.

use std::time::Duration;

use serde_json::Value;

use super::otlp::{self, OTLP, OtlpSpec};
use crate::duration;

/// Type of these inputs.
pub const METRICS: &str = "host/metrics";
/// Type of outputs that are files of this host.
pub const FILE_OUTPUT: &str = "file";

/// Minimum time between two readings.
const PERIOD_MIN: Duration = Duration::from_secs(1);
/// Time between two readings, if the policy has none.
const PERIOD_DEFAULT: Duration = Duration::from_secs(10);

/// What to read, and where to write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsSpec {
    /// Time between two readings.
    pub period: Duration,
    /// Where readings are also written. They are sent with each check-in in any case.
    pub sink: Sink,
}

/// Where readings are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Nowhere else: the output is of a type that takes none, or there is none.
    None,
    /// A file on the host.
    File,
    /// A receiver of OTLP/HTTP.
    Otlp(Box<OtlpSpec>),
}

/// Reads an input, and the type and the configuration of its output.
pub(super) fn read(input: &Value, output: Option<(&str, &Value)>) -> Result<MetricsSpec, String> {
    let period = match &input["period"] {
        Value::Null => PERIOD_DEFAULT,
        Value::String(text) => duration::parse(text).map_err(|error| format!("Failed: period: {error}"))?,
        _ => return Err("Failed: period: must be a duration, such as 10s".into()),
    };
    if period < PERIOD_MIN {
        return Err("Failed: period: the minimum is 1s".into());
    }
    let sink = match output {
        Some((FILE_OUTPUT, _)) => Sink::File,
        Some((OTLP, config)) => Sink::Otlp(Box::new(otlp::read(config)?)),
        _ => Sink::None,
    };
    Ok(MetricsSpec { period, sink })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_input_has_a_period_with_a_minimum() {
        let seconds = Duration::from_secs;
        assert_eq!(read(&json!({}), None), Ok(MetricsSpec { period: seconds(10), sink: Sink::None }));
        let spec = MetricsSpec { period: seconds(60), sink: Sink::File };
        assert_eq!(read(&json!({"period": "1m"}), Some(("file", &json!({"type": "file"})))), Ok(spec));
        let otlp = json!({"type": "otlp", "hosts": ["http://127.0.0.1"]});
        assert!(matches!(read(&json!({}), Some(("otlp", &otlp))).unwrap().sink, Sink::Otlp(_)));
        assert!(read(&json!({}), Some(("otlp", &json!({})))).unwrap_err().contains("hosts"));
        for bad in ["soon", "10ms"] {
            assert!(read(&json!({"period": bad}), None).unwrap_err().contains("period"), "{bad}");
        }
        assert!(read(&json!({"period": 5}), None).is_err());
    }
}
