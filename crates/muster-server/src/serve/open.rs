//! Opens what operations stand on: store, master key, signing key.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use camino::Utf8Path;
use muster_core::Entropy;
use muster_core::error_chain::chain;
use muster_core::id::NodeId;
use muster_core::seal::Sealer;
use muster_core::signing::Signer;
use muster_core::time::Clock;
use muster_elasticsearch::SecurityApi;
use muster_store::postgres::{Address, Node};
use muster_store::{Options, SqlStore, Store, sqlite};
use secrecy::ExposeSecret;

use super::ServeError;
use crate::config::Config;
use crate::data_dir::{DATABASE, DataDir, DataDirError, DataDisk, ListenAddresses};
use crate::tls::host;
use muster_fleet::disk::Disk;
use muster_fleet::secrets::{ensure_signing_key, has_signing_key};
use muster_fleet::system::SystemEntropy;
use muster_fleet::{Fleet, FleetParts};

/// The fleet over the folder's store.
pub(super) async fn fleet(
    config: &Config,
    data: &DataDir,
    clock: Arc<dyn Clock>,
    addresses: &ListenAddresses,
) -> Result<(Arc<SqlStore>, Arc<Fleet>), ServeError> {
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::default());
    let begin = Begin { data, new_fleet: config.new_fleet };
    let disk = data.disk();
    let ((store, on_reserve), sealer) = match &config.database {
        Some(address) => {
            let store = connect(address, data, &*entropy).await?;
            ((store, false), sealer(data, &*entropy)?)
        }
        None => {
            check_file(data, &begin)?;
            // The key comes before the file: a file without it is one whose key was lost.
            let sealer = sealer(data, &*entropy)?;
            (open_file(data, &disk)?, sealer)
        }
    };
    let store = Arc::new(store);
    let signer = signer(&*store, &sealer, &*entropy, &begin).await?;
    let settings = config.fleet_settings(&own_url(config, addresses));
    let fleet = Fleet::new(FleetParts {
        store: Arc::clone(&store) as Arc<dyn Store>,
        clock,
        entropy,
        sealer: Arc::new(sealer),
        signer,
        issuer: Arc::new(SecurityApi::default()),
        settings,
    });
    fleet.server_status().use_disk(Arc::new(disk), on_reserve);
    if !on_reserve {
        // A store that can be read is served whether it takes writes or not; which of the two is told from the start.
        fleet.server_status().probe_store().await;
    }
    if let Some(trouble) = fleet.server_status().trouble() {
        tracing::warn!(trouble, "the store is read-only: nothing can be changed, and agents cannot enroll");
    } else {
        fleet.server_status().set_reserve_aside();
    }
    Ok((store, fleet))
}

/// Connects to a shared database. One that holds a fleet needs the fleet's own master key.
async fn connect(address: &Address, data: &DataDir, entropy: &dyn Entropy) -> Result<SqlStore, ServeError> {
    let node = Node { id: NodeId::trusted(data.node_id(entropy)?), name: host_name(), place: place(data) };
    let store = SqlStore::connect(address.clone(), &node, &Options::default())?;
    if has_signing_key(&store).await.map_err(signing_key)? {
        data.require_shared_key()?;
    }
    Ok(store)
}

/// Where the data directory is. A copy of it, here or on another host, is in another place.
fn place(data: &DataDir) -> String {
    let path = data.join("node-id");
    let number = fs_err::metadata(&path).map_or(0, |file| file.ino());
    format!("{}:{path}:{number}", host_name())
}

/// Whether the embedded store's file may be opened, or made.
fn check_file(data: &DataDir, begin: &Begin<'_>) -> Result<(), ServeError> {
    let database = data.join(DATABASE);
    // Another program's file needs no key of ours.
    sqlite::refuse_foreign(database.as_std_path())
        .map_err(|source| ServeError::File { path: database.clone(), source })?;
    Ok(begin.check_file(&database)?)
}

/// Opens the embedded store. Returns whether the reserve had to make room for it.
fn open_file(data: &DataDir, disk: &DataDisk) -> Result<(SqlStore, bool), ServeError> {
    let database = data.join(DATABASE);
    let unopened = |source| ServeError::File { path: database.clone(), source };
    let open = || SqlStore::open(database.as_std_path(), &Options::default());
    match open() {
        // Even to read, the engine makes files beside its own: on a full disk the reserve makes room for them.
        Err(error) if error.may_lack_space() && disk.release_reserve() => {
            tracing::warn!(error = %chain(&error), "the disk is full: released the reserve");
            Ok((open().map_err(unopened)?, true))
        }
        opened => Ok((opened.map_err(unopened)?, false)),
    }
}

fn sealer(data: &DataDir, entropy: &dyn Entropy) -> Result<Sealer, ServeError> {
    let key = data.master_key(entropy)?;
    Sealer::new(key.expose_secret()).map_err(|error| ServeError::Key { key: "the master", source: error.into() })
}

/// Whether a fleet may begin in this directory.
struct Begin<'a> {
    data: &'a DataDir,
    new_fleet: bool,
}

impl Begin<'_> {
    fn check(&self, found: &'static str) -> Result<(), DataDirError> {
        if self.new_fleet { Ok(()) } else { self.data.refuse_lost_database(found) }
    }

    /// Before the file is made or opened.
    fn check_file(&self, database: &Utf8Path) -> Result<(), DataDirError> {
        match fs_err::metadata(database) {
            Ok(file) if file.len() > 0 => Ok(()),
            Ok(_) => self.check("is empty"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.check("is missing"),
            Err(error) => Err(error.into()),
        }
    }
}

/// The installation's signing key: made once, where a fleet may begin.
async fn signer(
    store: &dyn Store,
    sealer: &Sealer,
    entropy: &dyn Entropy,
    begin: &Begin<'_>,
) -> Result<Arc<Signer>, ServeError> {
    if !has_signing_key(store).await.map_err(signing_key)? {
        begin.check("contains no fleet")?;
    } else if begin.new_fleet {
        tracing::warn!("--new-fleet has no effect: the database contains a fleet");
    }
    ensure_signing_key(store, sealer, entropy).await.map_err(signing_key)
}

fn signing_key(error: muster_core::Error) -> ServeError {
    ServeError::Key { key: "the signing", source: error.into() }
}

/// What agents are told when nobody configured an address: this host's name, or the loopback address when nothing
/// else is listened on.
fn own_url(config: &Config, addresses: &ListenAddresses) -> String {
    let scheme = if config.insecure_http { "http" } else { "https" };
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
