//! Fingerprint of the machine, with which the agent recognizes that its files were copied to another one.

use serde::{Deserialize, Serialize};

use super::os;
use muster_core::hex;

/// File with the id that the firmware or the hypervisor gives to the machine. Only root can read it.
const PRODUCT: &str = "/sys/class/dmi/id/product_uuid";

/// Hashes of what distinguishes machines. A part that the machine does not have, or that the agent cannot read, is
/// empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// SHA-256 of the machine id of the operating system, in hex. Clones of an image often share it.
    #[serde(default)]
    pub system: String,
    /// SHA-256 of the id of the hardware, in hex.
    #[serde(default)]
    pub hardware: String,
}

impl Fingerprint {
    /// Returns the fingerprint of this machine.
    pub fn here() -> Self {
        let product = fs_err::read_to_string(PRODUCT).unwrap_or_default();
        Self::of(&os::machine_id(), &product)
    }

    /// Returns whether `other` is the fingerprint of another machine. Only parts that both have are compared, because
    /// an unprivileged agent cannot read all of them.
    pub fn differs(&self, other: &Self) -> bool {
        let differ = |one: &str, two: &str| !one.is_empty() && !two.is_empty() && one != two;
        differ(&self.system, &other.system) || differ(&self.hardware, &other.hardware)
    }

    fn of(machine_id: &str, product: &str) -> Self {
        // Hashed, because systemd wants the machine id to stay on the machine (machine-id(5)).
        let hash = |kind: &str, text: &str| match text.trim() {
            "" => String::new(),
            text => hex::encode(&hex::sha256(format!("muster-agent {kind} {}", text.to_lowercase()).as_bytes())),
        };
        Self { system: hash("system", machine_id), hardware: hash("hardware", product) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_on_another_machine_is_recognized() {
        let here = Fingerprint::of("aa", "11");
        assert!(!here.differs(&Fingerprint::of("aa\n", "11")));
        assert!(here.differs(&Fingerprint::of("bb", "11")), "another system");
        assert!(here.differs(&Fingerprint::of("aa", "22")), "a clone of the disk");
        assert!(!here.differs(&Fingerprint::of("aa", "")), "an unprivileged agent");
        assert!(!here.differs(&Fingerprint::default()));
    }
}
