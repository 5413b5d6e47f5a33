//! Readings of this host: processors, memory, disks, network.

use serde_json::{Map, Value, json};
use sysinfo::{Disks, Error, Networks, System};

/// Reads the host. The use of the processors is that since the previous reading.
pub struct Readings {
    system: System,
}

impl Readings {
    /// Starts reading.
    pub fn new() -> Result<Self, Error> {
        let mut system = System::new()?;
        system.refresh_cpu_usage();
        Ok(Self { system })
    }

    /// Returns the current values. Sizes are in bytes, shares between 0 and 1.
    pub fn read(&mut self) -> Result<Value, Error> {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        let system = &self.system;
        let load = System::load_average()?;
        Ok(json!({
            "cpu": {
                "count": system.cpus().len(),
                "usage": share(f64::from(system.global_cpu_usage()) / 100.0),
                "load": [load.one, load.five, load.fifteen],
            },
            "memory": {
                "total": system.total_memory(),
                "used": system.used_memory(),
                "available": system.available_memory(),
                "swap": {"total": system.total_swap(), "used": system.used_swap()},
            },
            "disk": disks()?,
            "network": networks()?,
            "uptime": System::uptime()?,
        }))
    }
}

fn disks() -> Result<Map<String, Value>, Error> {
    let disks = Disks::new_with_refreshed_list()?;
    let one = |disk: &sysinfo::Disk| {
        let (total, available) = (disk.total_space(), disk.available_space());
        (disk.mount_point().display().to_string(), json!({"total": total, "available": available}))
    };
    Ok(disks.iter().map(one).collect())
}

fn networks() -> Result<Map<String, Value>, Error> {
    let networks = Networks::new_with_refreshed_list()?;
    let one = |(name, data): (&std::ffi::OsString, &sysinfo::NetworkData)| {
        (
            name.to_string_lossy().into_owned(),
            json!({"received": data.total_received(), "sent": data.total_transmitted()}),
        )
    };
    Ok(networks.iter().map(one).collect())
}

/// Rounds a share, so that readings stay short.
fn share(value: f64) -> f64 {
    (value.clamp(0.0, 1.0) * 1000.0).round() / 1000.0
}
