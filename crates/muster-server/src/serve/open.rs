//! Opens the store, the master key and the signing key, and creates the fleet.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use camino::Utf8Path;
use muster_core::Entropy;
use muster_core::error_chain::chain;
use muster_core::id::NodeId;
use muster_core::seal::{SealError, Sealer};
use muster_core::signing::Signer;
use muster_core::time::Clock;
use muster_elasticsearch::SecurityApi;
use muster_notify::Senders;
use muster_probe::Probes;
use muster_store::copy::Place;
use muster_store::postgres::{Address, Node};
use muster_store::{Options, SqlStore, Store, sqlite};
use secrecy::ExposeSecret;

use super::ServeError;
use super::fleet_clock::FleetClock;
use crate::config::Config;
use crate::data_dir::{DATABASE, DataDir, DataDirError, DataDisk, ListenAddresses, MISSING, master_key_file};
use crate::host_logs::files::{Durable, LogFiles};
use crate::tls::authority::Authority;
use crate::tls::host;
use muster_fleet::backups::BackupSource;
use muster_fleet::disk::Disk;
use muster_fleet::fleet_keys::{FleetKeyError, ensure_signing_key, has_signing_key};
use muster_fleet::system::SystemEntropy;
use muster_fleet::{Fleet, FleetParts};
use muster_oidc::OpenIdClients;

/// What opening the store produced.
pub(super) struct Opened {
    pub(super) store: Arc<SqlStore>,
    pub(super) fleet: Arc<Fleet>,
    /// The fleet's own CA, unless the configuration names a certificate.
    pub(super) authority: Option<Authority>,
    /// The logs of hosts; empty if they are discarded.
    pub(super) logs: Vec<Durable>,
}

/// Creates the fleet with the configured store.
pub(super) async fn fleet(
    config: &Config,
    data: &DataDir,
    clock: &Arc<FleetClock>,
    addresses: &ListenAddresses,
) -> Result<Opened, ServeError> {
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::default());
    let begin = Begin { data, new_fleet: config.new_fleet };
    let disk = data.disk();
    let master = MasterKey { config, data };
    let (store, on_reserve, sealer) = match &config.database {
        Some(address) => {
            let store = connect(address, &master, &*entropy).await?;
            // Before the first write, because stored times are compared by all servers.
            // Read with its own clock, a stored time could lie in the future.
            clock.compare_with(&store).await;
            (store, false, master.sealer(&*entropy)?)
        }
        None => {
            check_file(data, &begin)?;
            // The key is created before the file: a file without a key means that the key was lost.
            let sealer = master.sealer(&*entropy)?;
            let (store, released) = open_file(data, &disk)?;
            // After a kill, the log has room for a few commits although the disk is full, so a write shows nothing.
            (store, released || disk.is_full(), sealer)
        }
    };
    let store = Arc::new(store);
    // The first value that is opened with the master key, so that a wrong key is reported with its path.
    let signer = signer(&*store, &sealer, &*entropy, &begin).await.map_err(|error| master.explain(error))?;
    let authority = match &config.tls.custom {
        Some(_) => None,
        None => {
            let authority = Authority::of_fleet(&*store, &sealer, &*entropy, clock.now()).await;
            Some(authority.map_err(|error| master.explain(error.into()))?)
        }
    };
    let own_ca = authority.as_ref().map(|authority| authority.pem().to_owned());
    let settings = config.fleet_settings(own_url(config, addresses));
    let fleet = Fleet::new(FleetParts {
        store: Arc::clone(&store) as Arc<dyn Store>,
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        entropy,
        sealer: Arc::new(sealer),
        signer,
        issuer: Arc::new(SecurityApi::new(config.local_targets)),
        openid: Arc::new(OpenIdClients::default()),
        alert_sender: Arc::new(Senders::new(config.local_targets)),
        prober: Arc::new(Probes::new(config.local_targets).with_own_ca(own_ca)),
        settings,
    });
    use_disk(config, &fleet, disk, on_reserve);
    let mut logs = Vec::new();
    if let Some(path) = &config.host_logs {
        let files = LogFiles::open(path, config.host_log_rotation, config.host_log_forward.is_some())
            .map_err(|source| ServeError::HostLogs { path: path.clone(), source })?;
        logs = files.logs().to_vec();
        fleet.host_logs().use_destination(Arc::new(files));
    }
    if !on_reserve {
        // A store that can't be written is served read-only. Probed now, so that the status is correct from the start.
        fleet.server_status().probe_store().await;
    }
    if let Some(trouble) = fleet.server_status().trouble() {
        tracing::warn!(trouble, "the store is read-only: nothing can be changed, and agents cannot enroll");
    } else {
        fleet.server_status().set_reserve_aside();
    }
    Ok(Opened { store, fleet, authority, logs })
}

/// Gives the services the disk of the data directory, for the reserve and for backups.
fn use_disk(config: &Config, fleet: &Fleet, disk: DataDisk, on_reserve: bool) {
    let disk: Arc<dyn Disk> = Arc::new(disk);
    fleet.server_status().use_disk(Arc::clone(&disk), on_reserve);
    let place = match &config.database {
        Some(address) => Place::from(address.clone()),
        None => Place::File(config.data_dir.join(DATABASE).into()),
    };
    fleet.backups().use_source(BackupSource { place, directory: config.data_dir.clone().into(), disk });
}

/// Connects to a shared database. If it contains a fleet, the master key of that fleet is required.
async fn connect(address: &Address, master: &MasterKey<'_>, entropy: &dyn Entropy) -> Result<SqlStore, ServeError> {
    let data = master.data;
    let node = Node { id: NodeId::trusted(data.node_id(entropy)?), name: host_name(), place: place(data) };
    let store = SqlStore::connect(address.clone(), &node, &Options::default())?;
    // A named file is read below, and its absence is an error of its own.
    if has_signing_key(&store).await? && master.config.master_key_file.is_none() {
        data.require_shared_key()?;
    }
    Ok(store)
}

/// The master key of the fleet: the configured file, or `master.key` in the data directory.
struct MasterKey<'a> {
    config: &'a Config,
    data: &'a DataDir,
}

impl MasterKey<'_> {
    fn sealer(&self, entropy: &dyn Entropy) -> Result<Sealer, ServeError> {
        let key = match &self.config.master_key_file {
            Some(path) => master_key_file(path)?,
            None => self.data.master_key(entropy)?,
        };
        Sealer::new(key.expose_secret()).map_err(ServeError::MasterKey)
    }

    /// Adds the path of the key file to the error for a key that does not belong to the database.
    fn explain(&self, error: ServeError) -> ServeError {
        match error {
            ServeError::FleetKey { source: FleetKeyError::Unreadable { source: SealError::OtherKey, .. } } => {
                let own = || self.data.join("master.key");
                ServeError::OtherMasterKey(self.config.master_key_file.clone().unwrap_or_else(own))
            }
            other => other,
        }
    }
}

/// Returns the location of the data directory. A copy of the directory, on this or another host, has another location.
fn place(data: &DataDir) -> String {
    let path = data.join("node-id");
    let number = fs_err::metadata(&path).map_or(0, |file| file.ino());
    // The inode number tells a copy on the same host from the original.
    format!("{}:{path}:{number}", host_name())
}

/// Checks whether the file of the embedded store can be opened or created.
fn check_file(data: &DataDir, begin: &Begin<'_>) -> Result<(), ServeError> {
    let database = data.join(DATABASE);
    // First, so that no master key is created beside the file of another program.
    sqlite::refuse_foreign(database.as_std_path())
        .map_err(|source| ServeError::File { path: database.clone(), source })?;
    Ok(begin.check_file(&database)?)
}

/// Opens the embedded store. Also returns whether the reserved disk space had to be released.
fn open_file(data: &DataDir, disk: &DataDisk) -> Result<(SqlStore, bool), ServeError> {
    let database = data.join(DATABASE);
    let unopened = |source| ServeError::File { path: database.clone(), source };
    let open = || SqlStore::open(database.as_std_path(), &Options::default());
    match open() {
        // The engine creates additional files even for reading. On a full disk, this requires the reserved space.
        Err(error) if error.may_lack_space() && disk.release_reserve() => {
            tracing::warn!(error = %chain(&error), "the disk is full: released the reserve");
            Ok((open().map_err(unopened)?, true))
        }
        opened => Ok((opened.map_err(unopened)?, false)),
    }
}

/// Checks whether a new fleet can be started in this directory.
struct Begin<'a> {
    data: &'a DataDir,
    new_fleet: bool,
}

impl Begin<'_> {
    fn check(&self, found: &'static str) -> Result<(), DataDirError> {
        if self.new_fleet { Ok(()) } else { self.data.refuse_lost_database(found) }
    }

    /// Must be called before the file is created or opened.
    fn check_file(&self, database: &Utf8Path) -> Result<(), DataDirError> {
        match fs_err::metadata(database) {
            Ok(file) if file.len() > 0 => Ok(()),
            _ if self.new_fleet => Ok(()),
            Ok(_) => self.data.refuse_lost_file("is empty"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.data.refuse_lost_file(MISSING),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the signing key of the installation, which is generated once, for a new fleet.
async fn signer(
    store: &dyn Store,
    sealer: &Sealer,
    entropy: &dyn Entropy,
    begin: &Begin<'_>,
) -> Result<Arc<Signer>, ServeError> {
    if !has_signing_key(store).await? {
        begin.check("contains no fleet")?;
    } else if begin.new_fleet {
        tracing::warn!("--new-fleet has no effect: the database contains a fleet");
    }
    Ok(ensure_signing_key(store, sealer, entropy).await?)
}

/// Returns the default URL for agents: the address of the listener, with the name of this host for a wildcard address,
/// or localhost if there is no listener for agents.
fn own_url(config: &Config, addresses: &ListenAddresses) -> String {
    let scheme = if config.insecure_http { "http" } else { "https" };
    // A server without a listener for agents still needs a URL for its policies, until it is configured.
    let Some(address) = addresses.agent.or(addresses.local) else { return format!("{scheme}://localhost:8220") };
    format!("{scheme}://{}", authority(address))
}

fn authority(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => format!("{}:{}", host_name(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => format!("{}:{}", host_name(), address.port()),
        _ => address.to_string(),
    }
}

fn host_name() -> String {
    host::name().unwrap_or_else(|| "localhost".into())
}
