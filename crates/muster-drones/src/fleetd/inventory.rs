//! What a simulated host reports of its disks, users and certificates.

use serde_json::{Value, json};

use crate::event::now_us;

/// Number of users, and of certificates.
const USERS: u32 = 30;
const CERTIFICATES: u32 = 20;
/// Time of the last boot of all hosts: 2026-11-01T00:00:00Z, in seconds.
const BOOTED: u64 = 1_793_491_200;

/// Returns the time since the last boot, which differs with each report.
pub(super) fn uptime() -> Value {
    json!([{"total_seconds": (now_us() / 1_000_000).saturating_sub(BOOTED).max(1).to_string()}])
}

/// Returns two disks, of which hosts have different amounts free.
pub(super) fn disks(number: u32) -> Value {
    let disk = |path: &str, is_system: &str, size: u64| {
        let free = size / 100 * u64::from(1 + number % 90);
        json!({"path": path, "file_system": "ext4", "size": size.to_string(), "free": free.to_string(),
            "is_system": is_system, "depth": path.len().to_string()})
    };
    json!([disk("/", "1", 500_107_862_016), disk("/data", "0", 4_000_787_030_016)])
}

/// Returns the users, which are the same on all hosts.
pub(super) fn users() -> Value {
    let user = |number: u32| {
        json!({"uid": (1000 + number).to_string(), "username": format!("user-{number}"), "type": "",
            "shell": "/bin/bash", "groupname": "staff"})
    };
    (0..USERS).map(user).collect()
}

/// Returns the certificates: authorities that all hosts have, and one of the host.
pub(super) fn certificates(number: u32) -> Value {
    let certificate = |name: String, ca: &str, hash: u64| {
        json!({"common_name": name, "subject": format!("/C=US/O=Example Trust Services/CN={name}"),
            "issuer": "/C=US/O=Example Trust Services/CN=Example Root CA", "serial": format!("{hash:032X}"),
            "not_valid_before": "1767225600", "not_valid_after": "1924991999", "sha1": format!("{hash:040x}"), "ca": ca,
            "key_algorithm": "rsaEncryption", "key_strength": "2048", "key_usage": "Key Cert Sign, CRL Sign",
            "signing_algorithm": "sha256WithRSAEncryption", "username": ""})
    };
    // Hashes do not compress, which these must not do either.
    let hash = |seed: u64| seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let authorities = (1..CERTIFICATES).map(|at| certificate(format!("Example CA {at}"), "1", hash(at.into())));
    let own = certificate(format!("drone-{number}"), "0", hash(u64::from(number) << 32));
    authorities.chain([own]).collect()
}
