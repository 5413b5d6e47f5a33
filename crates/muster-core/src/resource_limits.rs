//! Limits of the resources of a component: `limits` of an input of type `process`, and of the command in a component's
//! specification. The server checks what the agent applies.

use std::fmt;

use serde_json::Value;

/// A quantity without a unit that has a bound on both sides.
struct Range {
    min: u64,
    max: u64,
}

/// Bytes: enough to start a program, at most 16 TiB.
const MEMORY: Range = Range { min: 16 << 20, max: 16 << 40 };
const PROCESSES: Range = Range { min: 1, max: 1_000_000 };
/// Programs need some files to start.
const OPEN_FILES: Range = Range { min: 32, max: 1 << 20 };
/// Thousandths of a core.
const CPU: Range = Range { min: 10, max: 1_024_000 };
/// Keys of the limits.
const KEYS: [&str; 4] = ["memory", "processes", "open_files", "cpu"];
/// Units of sizes.
const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Limits of one component. `None` means the agent's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Memory, bytes.
    pub memory: Option<u64>,
    /// Number of processes and threads.
    pub processes: Option<u64>,
    /// Number of open files of each process.
    pub open_files: Option<u64>,
    /// Processor time, in thousandths of a core.
    pub cpu_milli: Option<u64>,
}

/// Why a limit is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The key; empty for the limits as a whole.
    pub key: String,
    /// The reason.
    pub reason: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.key.is_empty() { "" } else { "." };
        write!(f, "limits{dot}{}: {}", self.key, self.reason)
    }
}

impl ResourceLimits {
    /// Reads `limits`. `null` means no limits. Returns every fault.
    pub fn parse(value: &Value) -> Result<Self, Vec<Invalid>> {
        let fields = match value {
            Value::Null => return Ok(Self::default()),
            Value::Object(fields) => fields,
            _ => {
                return Err(vec![Invalid {
                    key: String::new(),
                    reason: format!("must be an object with {}", known()),
                }]);
            }
        };
        let mut faults = Vec::new();
        let mut read = |key: &str, parse: fn(&Value) -> Result<u64, String>| {
            let read = fields.get(key).filter(|value| !value.is_null()).map(parse).transpose();
            read.unwrap_or_else(|reason| {
                faults.push(Invalid { key: key.to_owned(), reason });
                None
            })
        };
        let limits = Self {
            memory: read("memory", memory),
            processes: read("processes", |value| count(value, &PROCESSES)),
            open_files: read("open_files", |value| count(value, &OPEN_FILES)),
            cpu_milli: read("cpu", cpu),
        };
        let unknown = fields.keys().filter(|key| !KEYS.contains(&key.as_str()));
        faults.extend(
            unknown.map(|key| Invalid { key: key.clone(), reason: format!("unknown limit; known: {}", known()) }),
        );
        if faults.is_empty() { Ok(limits) } else { Err(faults) }
    }

    /// Returns these limits with at most this memory: a policy cannot allow more than the administrator of the host.
    #[must_use]
    pub fn with_memory_at_most(self, max: Option<u64>) -> Self {
        Self { memory: self.memory.into_iter().chain(max).min(), ..self }
    }
}

fn known() -> String {
    KEYS.join(", ")
}

fn memory(value: &Value) -> Result<u64, String> {
    let bytes = match value {
        Value::String(text) => size(text),
        other => other.as_u64(),
    };
    let bytes = bytes.ok_or("must be a number of bytes, or a size such as `512MiB`")?;
    within(bytes, &MEMORY).ok_or_else(|| "must be at least 16MiB and at most 16384GiB".to_owned())
}

/// Reads a size with a unit.
fn size(text: &str) -> Option<u64> {
    let (number, factor) =
        UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor))).unwrap_or((text, 1));
    let number = number.trim_end();
    // `parse` would accept a sign.
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn count(value: &Value, range: &Range) -> Result<u64, String> {
    let bounds = || format!("must be an integer from {} to {}", range.min, range.max);
    value.as_u64().and_then(|count| within(count, range)).ok_or_else(bounds)
}

fn cpu(value: &Value) -> Result<u64, String> {
    let milli = value.as_f64().map(|cores| (cores * 1000.0).round()).filter(|milli| (0.0..=1e9).contains(milli));
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the range that was just checked"
    )]
    let milli = milli.map(|milli| milli as u64);
    milli
        .and_then(|milli| within(milli, &CPU))
        .ok_or_else(|| "must be a number of cores from 0.01 to 1024, such as 0.5".to_owned())
}

fn within(value: u64, range: &Range) -> Option<u64> {
    (range.min..=range.max).contains(&value).then_some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_are_read_with_their_units() {
        let all = json!({"memory": "512MiB", "processes": 100, "open_files": 1024, "cpu": 0.5});
        let expected = ResourceLimits {
            memory: Some(512 << 20),
            processes: Some(100),
            open_files: Some(1024),
            cpu_milli: Some(500),
        };
        assert_eq!(ResourceLimits::parse(&all), Ok(expected));
        assert_eq!(ResourceLimits::parse(&json!({"memory": 33_554_432})).unwrap().memory, Some(32 << 20));
        assert_eq!(ResourceLimits::parse(&json!({"memory": "2 GiB"})).unwrap().memory, Some(2 << 30));
        for none in [json!(null), json!({}), json!({"memory": null})] {
            assert_eq!(ResourceLimits::parse(&none), Ok(ResourceLimits::default()));
        }
    }

    #[test]
    fn each_limit_has_bounds() {
        for (key, values) in [
            (
                "memory",
                vec![
                    json!(1),
                    json!("1MiB"),
                    json!("-1GiB"),
                    json!("+64MiB"),
                    json!("99999999999999999GiB"),
                    json!("64mb"),
                    json!(true),
                ],
            ),
            ("processes", vec![json!(0), json!(-1), json!(1.5), json!("10"), json!(1_000_001)]),
            ("open_files", vec![json!(3), json!(1 << 21)]),
            ("cpu", vec![json!(0), json!(-1), json!(1e300), json!("50%"), json!(0.001)]),
            ("disk", vec![json!(1)]),
        ] {
            for value in values {
                let faults = ResourceLimits::parse(&json!({key: value})).unwrap_err();
                assert_eq!((faults.len(), faults[0].key.as_str()), (1, key), "{value}");
            }
        }
        let faults = ResourceLimits::parse(&json!("1GiB")).unwrap_err();
        assert_eq!(faults[0].to_string(), "limits: must be an object with memory, processes, open_files, cpu");
        assert_eq!(ResourceLimits::parse(&json!({"memory": 1, "x": 1})).unwrap_err().len(), 2);
    }
}
