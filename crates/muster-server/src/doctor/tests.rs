//! Examinations of hosts with one thing wrong each.

use std::os::unix::fs::PermissionsExt as _;

use camino::Utf8PathBuf;
use muster_store::{Options, SqlStore};

use super::*;
use crate::config::{Layers, load};

struct Host {
    _keep: tempfile::TempDir,
    config: Config,
}

impl Host {
    /// A data directory with a database and a master key, and no server.
    fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let data = Utf8PathBuf::from_path_buf(keep.path().join("data")).unwrap();
        fs_err::create_dir(&data).unwrap();
        fs_err::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
        drop(SqlStore::open(data.join(DATABASE).as_std_path(), &Options::default()).unwrap());
        let listeners = ["agent.listen=127.0.0.1:0", "local.listen=none", "admin.listen=none"];
        let assignments = listeners.into_iter().map(str::to_owned).chain([format!("data_dir={data}")]).collect();
        let config = load(&Layers { assignments, root: true, ..Layers::default() }).unwrap().config;
        let host = Self { _keep: keep, config };
        host.write("master.key", &[1; 32], 0o600);
        host
    }

    fn write(&self, name: &str, bytes: &[u8], mode: u32) {
        let path = self.config.data_dir.join(name);
        fs_err::write(&path, bytes).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The findings that are not good.
    fn faults(&self) -> Vec<Finding> {
        let all = examine_host(&self.config);
        assert!(all.iter().all(|finding| finding.remedy.is_some() == (finding.grade > Grade::Ok)), "{all:?}");
        all.into_iter().filter(|finding| finding.grade > Grade::Ok && finding.check != "open files").collect()
    }

    #[track_caller]
    fn fault(&self, check: &str, text: &str) {
        let faults = self.faults();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].check == check && faults[0].message.contains(text), "{faults:?}");
    }
}

#[test]
fn a_good_host_has_no_faults() {
    assert_eq!(Host::new().faults(), []);
    let mut host = Host::new();
    host.config.data_dir = host.config.data_dir.join("not/there/yet");
    assert_eq!(host.faults(), []);
}

#[test]
fn exposed_and_missing_secrets_are_found() {
    let host = Host::new();
    host.write("server.key", b"x", 0o644);
    host.fault("secret files", "server.key is readable by other users (mode 644)");
    let host = Host::new();
    host.write("master.key", b"short", 0o600);
    host.fault("master key", "5 bytes instead of 32");
    fs_err::remove_file(host.config.data_dir.join("master.key")).unwrap();
    host.fault("master key", "cannot read");
}

#[test]
fn an_unsuitable_directory_is_found() {
    let host = Host::new();
    fs_err::set_permissions(&host.config.data_dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    host.fault("data directory", "is writable by other users");
}

#[test]
fn a_foreign_or_damaged_database_is_found() {
    let host = Host::new();
    host.write(DATABASE, b"GIF89a", 0o600);
    host.fault("database", "is not a SQLite database");
    let mut host = Host::new();
    host.config.database = Some("postgres://nobody@127.0.0.1:1/none".parse().unwrap());
    host.fault("database", "connect");
}

#[test]
fn a_directory_of_a_fleet_without_its_database_is_found() {
    let host = Host::new();
    fs_err::remove_file(host.config.data_dir.join(DATABASE)).unwrap();
    host.fault("database", "muster.db is missing, but master.key shows that this directory holds a fleet");
    host.write("node-id", b"n", 0o644);
    host.fault("database", "belongs to a server whose fleet is in a PostgreSQL database");
    assert!(host.faults()[0].remedy.as_ref().unwrap().contains("--database"));
}

#[test]
fn a_missing_directory_for_logs_of_hosts_is_found() {
    let mut host = Host::new();
    let logs = |host: &Host| examine_host(&host.config).into_iter().find(|one| one.check == "logs of hosts").unwrap();
    assert!(logs(&host).message.contains("discarded"));
    host.config.host_logs = Some(host.config.data_dir.clone());
    assert_eq!(logs(&host).message, host.config.data_dir.as_str());
    host.config.host_logs = Some(host.config.data_dir.join("nowhere"));
    host.fault("logs of hosts", "nowhere");
    host.config.host_logs = Some(host.config.data_dir.join(DATABASE));
    host.fault("logs of hosts", "is not a directory");
}

#[test]
fn a_used_port_is_found() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut host = Host::new();
    host.config.listen.admin = Some(taken.local_addr().unwrap());
    host.fault("ports", "cannot be used");
}

#[test]
fn the_addresses_of_a_running_server_are_those_that_it_uses() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut host = Host::new();
    // What the configuration says is free; the server was started with another address.
    host.config.listen.admin = Some("127.0.0.1:1".parse().unwrap());
    let lock = fs_err::File::create(host.config.data_dir.join("lock")).unwrap();
    lock.file().lock().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(host.config.data_dir.join("admin.sock")).unwrap();
    host.fault("ports", "admin.listen 127.0.0.1:1 does not respond");
    let addresses = format!("{{\"agent\":null,\"local\":null,\"admin\":\"{}\"}}", listener.local_addr().unwrap());
    host.write("listen.json", addresses.as_bytes(), 0o600);
    assert_eq!(host.faults(), []);
    let logs = examine_host(&host.config).into_iter().find(|one| one.check == "logs of hosts").unwrap();
    assert!(logs.message.contains("started with flags"), "{logs:?}");
}

#[test]
fn a_certificate_that_has_expired_and_a_clock_that_is_behind_are_found() {
    let host = Host::new();
    host.write("server.crt", b"not a certificate", 0o644);
    assert!(host.faults().iter().all(|fault| fault.check == "certificates"), "{:?}", host.faults());
    let host = Host::new();
    let findings = examine_at(&host.config, Timestamp::from_micros(1_000_000));
    let clock = findings.iter().find(|finding| finding.check == "clock").unwrap();
    assert!(clock.grade == Grade::Error && clock.message.contains("in the future"), "{clock:?}");
}
