//! Opens what operations stand on: store, master key, signing key.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use camino::Utf8Path;
use muster_core::Entropy;
use muster_core::seal::{Place, Sealer};
use muster_core::signing::Signer;
use muster_core::time::Clock;
use muster_store::sqlite::{self, OpenError, Options};
use muster_store::{SettingWrite, SqliteStore, Store, StoreError, Write};
use secrecy::ExposeSecret;

use super::ServeError;
use crate::config::Config;
use crate::data_dir::{DATABASE, DataDir, DataDirError, DataDisk, ListenAddresses};
use crate::tls::host;
use muster_fleet::disk::Disk;
use muster_fleet::system::SystemEntropy;
use muster_fleet::{Fleet, FleetParts};

const SIGNING_KEY: &str = "signing_key";

/// The fleet over the folder's store.
pub(super) async fn fleet(
    config: &Config,
    data: &DataDir,
    clock: Arc<dyn Clock>,
    addresses: &ListenAddresses,
) -> Result<(Arc<SqliteStore>, Arc<Fleet>), ServeError> {
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::default());
    let database = data.join(DATABASE);
    let unopened = |source| ServeError::Store { path: database.clone(), source };
    // Another program's file needs no key of ours.
    sqlite::refuse_foreign(database.as_std_path()).map_err(unopened)?;
    let begin = Begin { data, new_fleet: config.new_fleet };
    begin.check_file(&database)?;
    let master_key = data.master_key(&*entropy)?;
    let sealer =
        Sealer::new(master_key.expose_secret()).map_err(|error| ServeError::Key(format!("the master key: {error}")))?;
    let disk = data.disk();
    let (store, on_reserve) = open_store(&database, &disk).map_err(unopened)?;
    let store = Arc::new(store);
    let signer = signer(&*store, &sealer, &*entropy, &begin).await?;
    let settings = config.fleet_settings(&own_url(config, addresses));
    let fleet = Fleet::new(FleetParts {
        store: Arc::clone(&store) as Arc<dyn Store>,
        clock,
        entropy,
        sealer: Arc::new(sealer),
        signer: Arc::new(signer),
        settings,
    });
    fleet.server_status().lies_on(Arc::new(disk), on_reserve);
    if !on_reserve {
        // A store that can be read is served whether it takes writes or not; which of the two is told from the start.
        fleet.server_status().probe_store().await;
    }
    if let Some(trouble) = fleet.server_status().trouble() {
        tracing::warn!(trouble, "read-only until this is fixed: nothing can be changed, and agents cannot enroll");
    } else {
        fleet.server_status().set_reserve_aside();
    }
    Ok((store, fleet))
}

/// Opens the store. Even to read, the engine makes files beside it: on a full disk the reserve makes room for them.
/// Returns whether it had to.
fn open_store(database: &Utf8Path, disk: &DataDisk) -> Result<(SqliteStore, bool), OpenError> {
    let open = || SqliteStore::open(database.as_std_path(), &Options::default());
    match open() {
        Err(error) if error.may_lack_space() && disk.release_reserve() => {
            tracing::warn!(%error, "the disk is full: released the reserve");
            Ok((open()?, true))
        }
        opened => Ok((opened?, false)),
    }
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

/// The installation's signing key: made once, kept sealed. It is the first thing that a new database gets, so that one
/// without it contains no fleet.
async fn signer(
    store: &dyn Store,
    sealer: &Sealer,
    entropy: &dyn Entropy,
    begin: &Begin<'_>,
) -> Result<Signer, ServeError> {
    let place = Place::setting(SIGNING_KEY);
    let failed = |reason: String| ServeError::Key(format!("the signing key: {reason}"));
    let unreadable = |error: StoreError| failed(error.to_string());
    if let Some(text) = store.setting(SIGNING_KEY).await.map_err(unreadable)? {
        let sealed = STANDARD.decode(text).map_err(|error| failed(error.to_string()))?;
        if begin.new_fleet {
            tracing::warn!("--new-fleet has no effect: the database contains a fleet");
        }
        let pkcs8 = sealer.open(place, &sealed).map_err(|error| failed(error.to_string()))?;
        return Signer::from_pkcs8(&pkcs8).map_err(|error| failed(error.to_string()));
    }
    begin.check("contains no fleet")?;
    let (signer, pkcs8) = Signer::generate().map_err(|error| failed(error.to_string()))?;
    let sealed = sealer.seal(place, &pkcs8, entropy).map_err(|error| failed(error.to_string()))?;
    let put = Write::Setting(SettingWrite::Put { name: SIGNING_KEY.into(), value: STANDARD.encode(sealed) });
    store.commit(vec![put]).await.map_err(unreadable)?;
    Ok(signer)
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
