//! Tests of the connections of Fleet Server hosts, proxies and download sources, before or after they are saved.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use muster_core::connection_test::{Cause, Expected, Settings, Step, StepName, Target, Tested, origin_of};
use muster_core::network_object::{NetworkObject, NetworkObjectKind, Shared};
use muster_core::secret_refs::Secrets;
use muster_core::{Error, ErrorKind};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

use super::urls::ServerUrls;

/// Maximum tests at the same time.
const RUNNING: usize = 4;
/// When a caller may try again after the limit was reached.
const WAIT: Duration = Duration::from_secs(5);

/// Connects to what agents connect to. Implementations limit the time of a test and the size of the responses, and connect only
/// to addresses that [`crate::outgoing`] permits.
#[async_trait]
pub trait Prober: Send + Sync + 'static {
    /// Tests a URL. The steps end with the first that failed.
    async fn probe(&self, target: &Target) -> Tested;
}

/// A prober without a network.
#[derive(Debug, Default)]
pub struct NoProber;

#[async_trait]
impl Prober for NoProber {
    async fn probe(&self, target: &Target) -> Tested {
        let outcome = Err(Cause::NotPermitted.because("this server tests no connections"));
        Tested { url: origin_of(&target.url), steps: vec![Step { name: StepName::Settings, outcome }] }
    }
}

/// Runs tests, a limited number at a time.
pub(crate) struct ConnectionTests {
    prober: Arc<dyn Prober>,
    running: Semaphore,
    urls: Arc<ServerUrls>,
}

impl ConnectionTests {
    pub(crate) fn new(prober: Arc<dyn Prober>, urls: Arc<ServerUrls>) -> Self {
        Self { prober, running: Semaphore::new(RUNNING), urls }
    }

    /// Admits a test, until the permit is dropped.
    pub(crate) fn admit(&self) -> Result<SemaphorePermit<'_>, Error> {
        self.running.try_acquire().map_err(|_| {
            let message = format!("{RUNNING} connection tests are running, which is the maximum");
            Error::new(ErrorKind::TooMany, "too_many_connection_tests", message).retry_after(WAIT)
        })
    }

    /// Tests all URLs of an object at the same time; returns the results in the order of the URLs. `secrets` are those that
    /// the settings refer to.
    pub(crate) async fn run(
        &self,
        object: &NetworkObject,
        shared: &Shared,
        settings: Settings,
        secrets: &Secrets,
    ) -> Result<Vec<Tested>, Error> {
        let behind = match object.kind {
            NetworkObjectKind::Proxy => self.behind_proxy(shared).await?,
            NetworkObjectKind::ServerHost | NetworkObjectKind::DownloadSource => String::new(),
        };
        let own = self.urls.read().await?;
        let is_own = |target: &Target| {
            let is_direct = target.via.is_none() && target.expected == Expected::FleetServer;
            is_direct && own.iter().any(|url| origin_of(url) == origin_of(&target.url))
        };
        let mut tests = JoinSet::new();
        // At most as many as an object has URLs. Dropping the set, as when the caller disconnects, ends them.
        for (place, mut target) in settings.targets(secrets, &behind).into_iter().enumerate() {
            target.is_own = is_own(&target);
            let prober = Arc::clone(&self.prober);
            tests.spawn(async move { (place, prober.probe(&target).await) });
        }
        let mut done = Vec::new();
        while let Some(tested) = tests.join_next().await {
            done.push(tested.map_err(Error::internal)?);
        }
        done.sort_by_key(|(place, _)| *place);
        Ok(done.into_iter().map(|(_, tested)| tested).collect())
    }

    /// Returns the URL to which a proxy has to connect: the one that agents of the space use.
    async fn behind_proxy(&self, shared: &Shared) -> Result<String, Error> {
        let host = shared.default_of(NetworkObjectKind::ServerHost);
        let of_host = host.and_then(|host| host.field("host_urls")?.get(0)?.as_str().map(str::to_owned));
        let url = match of_host {
            Some(url) => Some(url),
            None => self.urls.read().await?.into_iter().next(),
        };
        url.ok_or_else(|| {
            Error::conflict("no_fleet_server_host", "there is no Fleet Server host to which the proxy could connect")
                .remedy("create a default Fleet Server host, or set `external_url` on the server")
        })
    }
}
