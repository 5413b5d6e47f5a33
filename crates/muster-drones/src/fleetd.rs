//! A simulated host with orbit and osqueryd: its requests, with the formats and sizes of the real programs.
//!
//! Both programs have a connection of their own, as on a real host, unless hosts share connections, as behind a proxy.

mod inventory;
mod work;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::event::{Event, now_us};
use crate::fault::{Fault, accepted};
use crate::fleetd_push::{Hinted, Push};
use crate::session::{Answer, Ask, Session, Shared};

/// Version of osquery that hosts report.
pub const OSQUERY_VERSION: &str = "5.21.0";
/// Number of packages on a host.
const PACKAGES: u32 = 500;
/// A live query that mentions this table fails, as it would on a real host.
const NO_SUCH_TABLE: &str = "no_such_table";

/// A program of a host, which has a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// orbit.
    Orbit,
    /// osqueryd.
    Osquery,
}

impl Program {
    /// Returns its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Orbit => "orbit",
            Self::Osquery => "osquery",
        }
    }
}

/// A connection, which hosts may share.
type Line = Arc<Mutex<Session>>;

/// The connections of hosts.
pub struct Lines {
    shared: Arc<Shared>,
    /// Those that hosts share; empty if each host has its own.
    pool: Vec<Line>,
}

impl Lines {
    /// Creates `count` connections that all hosts share; with 0, each host has two of its own.
    #[must_use]
    pub fn new(shared: &Arc<Shared>, count: u32) -> Self {
        let line = |number| Arc::new(Mutex::new(Session::new(shared.clone(), number)));
        Self { shared: shared.clone(), pool: (0..count).map(line).collect() }
    }

    fn of(&self, number: u32) -> [Line; 2] {
        match number.checked_rem(u32::try_from(self.pool.len()).unwrap_or(u32::MAX)) {
            Some(place) => [0; 2].map(|_| self.pool[place as usize].clone()),
            None => [0; 2].map(|_| Arc::new(Mutex::new(Session::new(self.shared.clone(), number)))),
        }
    }
}

/// A simulated host. Everything is derived from its number.
pub struct FleetdHost {
    shared: Arc<Shared>,
    number: u32,
    orbit: Line,
    osquery: Line,
    orbit_key: String,
    node_key: String,
    push: Option<Push>,
    counter: u64,
}

#[derive(Deserialize)]
struct Read {
    #[serde(default)]
    queries: BTreeMap<String, String>,
}

impl FleetdHost {
    /// Creates a host that is not enrolled.
    #[must_use]
    pub fn new(lines: &Lines, number: u32) -> Self {
        let [orbit, osquery] = lines.of(number);
        Self {
            orbit,
            osquery,
            shared: lines.shared.clone(),
            number,
            orbit_key: String::new(),
            node_key: String::new(),
            push: None,
            counter: 0,
        }
    }

    /// Returns the same host with push: orbit reads queries when it is told to.
    #[must_use]
    pub fn with_push(self, push: bool) -> Self {
        Self { push: push.then(Push::default), ..self }
    }

    /// Returns whether queries are read only on hints.
    #[must_use]
    pub fn has_push(&self) -> bool {
        self.push.is_some()
    }

    /// Opens the WebSocket, if there is one and it is not open.
    ///
    /// # Errors
    /// If the server cannot be reached, or refuses.
    pub async fn connect_push(&mut self) -> Result<(), Fault> {
        match &mut self.push {
            Some(push) => Ok(push.connect(&self.shared.dialer, self.number, &self.orbit_key).await?),
            None => Ok(()),
        }
    }

    /// Waits for a hint. Without push, never ends.
    pub async fn hinted(&mut self) -> Hinted {
        match &mut self.push {
            Some(push) => push.hinted().await,
            None => std::future::pending().await,
        }
    }

    /// Returns another host that uses the connections of this one.
    #[must_use]
    pub fn followed_by(self, number: u32) -> Self {
        Self { number, orbit_key: String::new(), node_key: String::new(), counter: 0, ..self }
    }

    /// Returns its hardware UUID.
    #[must_use]
    pub fn uuid(&self) -> String {
        format!("4C4C4544-0042-3510-8052-{:012X}", self.number)
    }

    /// Enrolls orbit, then osqueryd, as on a new host.
    ///
    /// # Errors
    /// If the server does not accept one of them.
    pub async fn enroll(&mut self, secret: &str) -> Result<(), Fault> {
        let began = Instant::now();
        self.enroll_program(Program::Orbit, secret).await?;
        self.enroll_program(Program::Osquery, secret).await?;
        self.shared.tally.enrolled(began.elapsed());
        Ok(())
    }

    /// Enrolls one of the programs, which replaces its key.
    ///
    /// # Errors
    /// If the server does not accept it.
    pub async fn enroll_program(&mut self, program: Program, secret: &str) -> Result<(), Fault> {
        match program {
            Program::Orbit => {
                let body = self.orbit_enroll(secret);
                let enrolled = post(&self.orbit, "/api/fleet/orbit/enroll", &body).await?;
                self.orbit_key = text(&enrolled, "orbit_node_key");
            }
            Program::Osquery => {
                let body = self.osquery_enroll(secret);
                let enrolled = post(&self.osquery, "/api/v1/osquery/enroll", &body).await?;
                self.node_key = text(&enrolled, "node_key");
            }
        }
        Ok(())
    }

    fn orbit_enroll(&self, secret: &str) -> Value {
        let name = format!("drone-{}", self.number);
        json!({
            "enroll_secret": secret, "hardware_uuid": self.uuid(), "hardware_serial": format!("SN{}", self.number),
            "hostname": name, "computer_name": name, "hardware_model": "PowerEdge", "platform": "ubuntu",
            "platform_like": "debian", "osquery_identifier": "",
        })
    }

    fn osquery_enroll(&self, secret: &str) -> Value {
        json!({
            "enroll_secret": secret, "host_identifier": self.uuid(), "platform_type": "9",
            "host_details": {
                "system_info": self.system_info(), "os_version": os_version(), "osquery_info": self.osquery_info(),
            },
        })
    }

    /// Requests the configuration of osqueryd.
    ///
    /// # Errors
    /// If the server does not respond with 200.
    pub async fn config(&mut self, due: Instant) -> Result<(), Fault> {
        post(&self.osquery, "/api/v1/osquery/config", &json!({"node_key": self.node_key, "etag": ""})).await?;
        self.shared.tally.requested("config", due.elapsed());
        Ok(())
    }

    /// Requests queries, and sends their results.
    ///
    /// # Errors
    /// If the server does not respond with 200.
    pub async fn read(&mut self, due: Instant) -> Result<(), Fault> {
        let (line, key) = self.querying();
        let read = post(line, "/api/v1/osquery/distributed/read", &json!({"node_key": key})).await?;
        self.shared.tally.requested("read", due.elapsed());
        let read: Read = serde_json::from_value(read).map_err(anyhow::Error::from)?;
        if read.queries.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let body = self.results(&read.queries);
        post(self.querying().0, "/api/v1/osquery/distributed/write", &body).await?;
        self.shared.tally.requested("write", began.elapsed());
        for (name, sql) in &read.queries {
            if sql.to_ascii_lowercase().contains("carve") {
                self.carve(name).await?;
            }
        }
        Ok(())
    }

    /// Returns the connection and the key of the program that reads queries.
    fn querying(&self) -> (&Line, &str) {
        if self.push.is_some() { (&self.orbit, &self.orbit_key) } else { (&self.osquery, &self.node_key) }
    }

    /// Sends lines of the log of results.
    ///
    /// # Errors
    /// If the server does not respond with 200.
    pub async fn log(&mut self, due: Instant) -> Result<(), Fault> {
        self.counter += 1;
        let lines: Vec<Value> = (0..3).map(|line| self.log_line(line)).collect();
        let body = json!({"node_key": self.node_key, "log_type": "result", "data": lines});
        post(&self.osquery, "/api/v1/osquery/log", &body).await?;
        self.shared.tally.requested("log", due.elapsed());
        Ok(())
    }

    /// Requests the configuration of orbit.
    ///
    /// # Errors
    /// If the server does not respond with 200.
    pub async fn orbit_config(&mut self, due: Instant) -> Result<(), Fault> {
        let request = json!({"orbit_node_key": self.orbit_key});
        let config = post(&self.orbit, "/api/fleet/orbit/config", &request).await?;
        self.shared.tally.requested("orbit_config", due.elapsed());
        self.run_scripts(&config).await?;
        self.install_software(&config).await
    }

    /// Announces a new token of Fleet Desktop.
    ///
    /// # Errors
    /// If the server does not respond with 200.
    pub async fn device_token(&mut self, due: Instant) -> Result<(), Fault> {
        let token = uuid::Uuid::new_v4().to_string();
        let body = json!({"orbit_node_key": self.orbit_key, "device_auth_token": token});
        post(&self.orbit, "/api/fleet/orbit/device_token", &body).await?;
        self.shared.tally.requested("device_token", due.elapsed());
        self.shared.tally.tell(Event::DeviceToken { host: format!("drone-{}", self.number), token });
        Ok(())
    }

    fn system_info(&self) -> Value {
        json!({
            "hostname": format!("drone-{}", self.number), "computer_name": format!("drone-{}", self.number),
            "uuid": self.uuid(), "hardware_serial": format!("SN{}", self.number), "hardware_vendor": "Dell Inc.",
            "hardware_model": "PowerEdge", "cpu_type": "x86_64", "cpu_brand": "Intel(R) Xeon(R)",
            "physical_memory": "17179869184",
        })
    }

    fn osquery_info(&self) -> Value {
        let instance = format!("{:08x}-0000-4000-8000-000000000000", self.number);
        json!({"version": OSQUERY_VERSION, "instance_id": instance, "build_platform": "linux"})
    }

    /// Returns the rows of a query; `None` if it fails.
    fn rows(&self, name: &str, sql: &str) -> Option<Value> {
        // For an address that differs between hosts.
        let [_, b, c, d] = self.number.to_be_bytes();
        Some(match name.strip_prefix("fleet_detail_query_") {
            Some("system_info") => json!([self.system_info()]),
            Some("os_version") => json!([os_version()]),
            Some("osquery_info") => json!([self.osquery_info()]),
            Some("orbit_info") => json!([{"version": "1.61.0", "desktop_version": "1.61.0"}]),
            Some("software_deb_packages") => self.packages(),
            Some("uptime") => inventory::uptime(),
            Some("disk_space_unix") => inventory::disks(self.number),
            Some("disk_encryption_linux") => json!([{"path": "/"}]),
            Some("users") => inventory::users(),
            Some("certificates_linux") => inventory::certificates(self.number),
            Some("interface_addresses") => json!([{"address": format!("10.{b}.{c}.{d}")}]),
            Some(_) => json!([]),
            None if sql.contains(NO_SUCH_TABLE) => return None,
            // A row that differs between hosts, whatever the query is.
            None => json!([{"hostname": format!("drone-{}", self.number), "number": self.number.to_string()}]),
        })
    }

    /// Returns the packages of the host. Most hosts have the same ones, and a few have older versions of some.
    fn packages(&self) -> Value {
        let package = |package: u32| {
            let version = match self.number.wrapping_mul(package) % 97 {
                0 => "1.0.1-1",
                1 => "1.0.2-1",
                _ => "1.0.10-1",
            };
            json!({"name": format!("package-{package}"), "version": version})
        };
        (1..=PACKAGES).map(package).collect()
    }

    fn results(&self, queries: &BTreeMap<String, String>) -> Value {
        let (mut rows, mut statuses, mut messages) = (Map::new(), Map::new(), Map::new());
        for (name, sql) in queries {
            let found = self.rows(name, sql);
            let message = if found.is_some() { String::new() } else { format!("no such table: {NO_SUCH_TABLE}") };
            statuses.insert(name.clone(), u8::from(found.is_none()).into());
            rows.insert(name.clone(), found.unwrap_or_else(|| json!([])));
            messages.insert(name.clone(), message.into());
        }
        let key = if self.push.is_some() { &self.orbit_key } else { &self.node_key };
        json!({"node_key": key, "queries": rows, "statuses": statuses, "messages": messages, "stats": {}})
    }

    fn log_line(&self, line: u32) -> Value {
        let mut path = String::new();
        let _ = write!(path, "/usr/bin/program-{line}");
        json!({
            "name": "pack/Global/processes", "hostIdentifier": self.uuid(), "calendarTime": "Mon Nov 30 10:00:00 2026 UTC",
            "unixTime": now_us() / 1_000_000, "epoch": 0, "counter": self.counter, "numerics": false,
            "decorations": {"host_uuid": self.uuid(), "hostname": format!("drone-{}", self.number)},
            "columns": {"pid": (1000 + line).to_string(), "name": format!("program-{line}"), "path": path},
            "action": "added",
        })
    }
}

fn os_version() -> Value {
    json!({
        "name": "Ubuntu", "version": "24.04.1 LTS (Noble Numbat)", "major": "24", "minor": "4", "platform": "ubuntu",
        "platform_like": "debian", "arch": "x86_64", "build": "",
    })
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_default().to_owned()
}

async fn post(line: &Line, path: &str, body: &Value) -> Result<Value, Fault> {
    post_text(line, path, body.to_string()).await
}

async fn post_text(line: &Line, path: &str, body: String) -> Result<Value, Fault> {
    accepted(&ask(line, path, body).await?)
}

async fn ask(line: &Line, path: &str, body: String) -> Result<Answer, Fault> {
    let body = body.into();
    let ask = Ask { method: Method::POST, path, authorization: None, body, packed: false, chunk_sha2: None };
    Ok(line.lock().await.ask(&ask).await?)
}
