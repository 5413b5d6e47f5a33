//! Variables that describe the host: `${host.name}`, `${runtime.os}` (AG §4.2).

use serde_json::{Value, json};

use super::{hostname, network, os};

/// Returns the values of the provider `host`.
pub fn host() -> Value {
    let (ip, mac) = network::addresses();
    json!({
        "id": os::machine_id(),
        "name": hostname(),
        "platform": std::env::consts::OS,
        "architecture": architecture(),
        "ip": ip,
        "mac": mac,
    })
}

/// Returns the values that component specifications use to exclude platforms.
pub fn runtime() -> Value {
    json!({
        "platform": platform(),
        "os": std::env::consts::OS,
        "arch": architecture(),
        "family": "unix",
        "native_arch": architecture(),
    })
}

/// Returns the platform as in component specifications: `linux/amd64`.
pub fn platform() -> String {
    format!("{}/{}", std::env::consts::OS, architecture())
}

/// Returns the architecture by the names of the Go language.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
