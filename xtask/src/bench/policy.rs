//! The policies with which all figures are measured. They are as large as real policies, and differ from each other.

use serde_json::{Value, json};

/// Size of the configuration of every policy. With an empty one, figures would be too good, because enrollments and
/// check-ins load the policy.
pub const POLICY_BYTES: usize = 32 << 10;

/// Returns a configuration of [`POLICY_BYTES`].
pub fn real_sized(name: &str) -> Value {
    config(name, POLICY_BYTES)
}

/// Returns a configuration of about this many bytes, which does not compress better than real ones.
fn config(name: &str, bytes: usize) -> Value {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut word = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let stream = |number: usize, word: &mut dyn FnMut() -> u64| {
        let id = format!("{:016x}-{:016x}", word(), word());
        json!({
            "id": format!("logfile-{name}-{id}"),
            "data_stream": {"dataset": format!("app{number}.log"), "type": "logs"},
            "paths": [format!("/var/log/app-{:08x}/*.log", word() >> 32)],
            "processors": [{"add_fields": {"target": "", "fields": {"team": format!("{:06x}", word() >> 40)}}}]
        })
    };
    let one = stream(0, &mut word).to_string().len() + 1;
    let streams: Vec<_> = (0..bytes.div_ceil(one)).map(|number| stream(number, &mut word)).collect();
    json!({
        "outputs": {"default": {"type": "elasticsearch", "hosts": ["https://127.0.0.1:9200"], "api_key": "id:key"}},
        "inputs": [{"id": format!("filestream-{name}"), "type": "filestream", "use_output": "default", "streams": streams}]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_have_the_requested_size() {
        for bytes in [400, POLICY_BYTES] {
            let length = config("x", bytes).to_string().len();
            assert!((bytes..bytes + 900).contains(&length), "{length}");
        }
        assert_ne!(real_sized("a"), real_sized("b"));
    }
}
