//! Keeps a component that is a service of the operating system: checks it, installs it, and waits for its check-ins.
//!
//! The service manager runs the service, so that it goes on when the agent stops (AG77). It is uninstalled only when it is
//! removed from the policy. A protected one must have the signed policy without it first, and stays if there is none.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::installed_services::InstalledService;
use super::operation::Installer;
use super::{Health, Reporter, Runtime};
use crate::model::service::{Service, ServiceSpec};
use crate::model::{Component, Direction, Work};
use crate::paths::Layout;
use crate::protocol::connection_info::ConnectionInfo;
use crate::protocol::line::Line;
use crate::protocol::messages::AgentInfo;
use crate::protocol::server::Hub;
use crate::protocol::session::{MISSES_MAX, Verdict};

/// Time between attempts to start a service.
const RETRY: Duration = Duration::from_secs(30);
/// Maximum time for a protected service to take the signed policy that removes it.
const TAKE_SIGNED: Duration = Duration::from_secs(30);

/// What should become of the service.
#[derive(Clone, Debug)]
enum Order {
    Keep,
    /// The agent stops: the service goes on.
    Leave,
    /// Uninstall it. Contains the signed policy that omits it.
    Remove(Option<Arc<Value>>),
}

impl Order {
    fn is_end(&self) -> bool {
        !matches!(self, Self::Keep)
    }
}

/// A service that is kept.
pub(super) struct ServiceRuntime {
    service: Service,
    line: Arc<Line>,
    order: watch::Sender<Order>,
    task: Option<JoinHandle<()>>,
}

/// What the task of a service needs.
pub(super) struct ServiceTask {
    pub service: Service,
    pub layout: Layout,
    pub line: Arc<Line>,
    pub hub: Hub,
    pub agent: AgentInfo,
    pub installer: Installer,
    pub record: InstalledService,
}

impl ServiceRuntime {
    /// Starts to keep the service, and reports its states.
    pub(super) fn start(task: ServiceTask, reporter: Reporter) -> Self {
        let (service, line, (order, orders)) = (task.service.clone(), task.line.clone(), watch::channel(Order::Keep));
        Self { service, line, order, task: Some(tokio::spawn(task.keep(orders, reporter))) }
    }

    async fn end(&mut self, order: Order) {
        self.order.send_replace(order);
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

#[async_trait]
impl Runtime for ServiceRuntime {
    fn update(&mut self, component: &Arc<Component>) -> bool {
        let fits = matches!(&component.work, Ok(Work::Service(spec)) if spec.service == self.service);
        if fits {
            self.line.update(component.clone());
        }
        fits
    }

    async fn stop(&mut self) {
        self.end(Order::Leave).await;
    }

    async fn remove(&mut self, signed_policy: Option<Arc<Value>>) {
        self.end(Order::Remove(signed_policy)).await;
    }

    fn line(&self) -> Option<Arc<Line>> {
        Some(self.line.clone())
    }
}

impl ServiceTask {
    async fn keep(self, mut orders: watch::Receiver<Order>, reporter: Reporter) {
        self.hub.add(&self.line);
        while !orders.borrow().is_end() {
            let failed = match self.attend(&mut orders, &reporter).await {
                Ok(()) => break,
                Err(reason) => format!("Failed: {reason}"),
            };
            self.line.session(|session| session.ended(Health::Failed, failed));
            reporter.put(self.line.report());
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = ordered(&mut orders) => {}
            }
        }
        let order = orders.borrow().clone();
        // Also if the service never answered: it may be installed.
        if let Order::Remove(signed_policy) = order {
            self.remove(signed_policy, &reporter).await;
        }
        self.hub.remove(&self.line);
        self.line.session(|session| session.ended(Health::Stopped, "Stopped".into()));
        reporter.put(self.line.report());
    }

    /// Starts the service if necessary, and waits for its check-ins until it should end. The error is for people.
    async fn attend(&self, orders: &mut watch::Receiver<Order>, reporter: &Reporter) -> Result<(), String> {
        let path = self.layout.connection_socket(&self.service.socket);
        let start_up = self.line.credentials.start_up(self.hub.address(), self.agent.clone()).encode_to_vec();
        let info = ConnectionInfo::serve(path.clone(), start_up).map_err(|error| format!("{path}: {error}"))?;
        // Before it is checked: one that is running connects at once.
        self.line.session(|session| session.awaited(Instant::now()));
        reporter.put(self.line.report());
        self.start(orders).await?;
        self.watch(orders, reporter).await?;
        let order = orders.borrow().clone();
        if let Order::Remove(signed_policy) = order {
            self.announce(signed_policy).await;
        }
        drop(info);
        Ok(())
    }

    async fn start(&self, orders: &mut watch::Receiver<Order>) -> Result<(), String> {
        let checked = self.installer.run(&self.service.check, ordered(orders)).await;
        let Err(reason) = checked else { return self.record.confirm(&self.layout) };
        // Before it is installed: after a crash in between, `uninstall` still finds it.
        self.record.begin(&self.layout)?;
        tracing::info!(component = self.line.report().id, reason, "installing a service");
        let installed = self.installer.run(&self.service.install, ordered(orders)).await;
        installed.map_err(|reason| format!("cannot install the service: {reason}"))?;
        self.record.confirm(&self.layout)
    }

    async fn watch(&self, orders: &mut watch::Receiver<Order>, reporter: &Reporter) -> Result<(), String> {
        let period = self.service.checkin;
        let mut tick = tokio::time::interval_at(Instant::now() + period, period);
        loop {
            tokio::select! {
                () = ordered(orders) => return Ok(()),
                () = self.line.changed() => reporter.put(self.line.report()),
                now = tick.tick() => {
                    let verdict = self.line.session(|session| session.tick(now, period, self.misses_max()));
                    reporter.put(self.line.report());
                    if verdict == Verdict::Kill {
                        // The service manager runs it: the next attempt checks it, and installs it again.
                        return Err("the service missed its check-ins".into());
                    }
                }
            }
        }
    }

    /// A service that is being installed, or that updates itself, may be silent for as long as that takes.
    fn misses_max(&self) -> u32 {
        let longest = self.service.check.timeout.max(self.service.install.timeout);
        let periods = longest.as_nanos() / self.service.checkin.as_nanos().max(1);
        u32::try_from(periods).unwrap_or(u32::MAX).max(MISSES_MAX)
    }

    fn is_protected(&self) -> bool {
        let component = self.line.session(|session| session.component().clone());
        matches!(&component.work, Ok(Work::Service(ServiceSpec { is_protected: true, .. })))
    }

    /// Gives a protected service the signed policy that omits it, and tells its units to stop.
    async fn announce(&self, signed_policy: Option<Arc<Value>>) {
        let component = self.line.session(|session| session.component().clone());
        if self.is_protected() {
            // It stays installed, so that its units go on.
            let Some(signed_policy) = signed_policy else { return };
            let mut with_proof = (*component).clone();
            for unit in with_proof.units.iter_mut().filter(|unit| unit.direction == Direction::Input) {
                let mut config = (*unit.config).clone();
                config["signed"] = (*signed_policy).clone();
                unit.config = Arc::new(config);
            }
            self.line.update(Arc::new(with_proof));
            let taken = async {
                while !self.line.session(|session| session.is_settled()) {
                    self.line.changed().await;
                }
            };
            if tokio::time::timeout(TAKE_SIGNED, taken).await.is_err() {
                tracing::warn!(component = component.id, "a protected service has not taken the signed policy");
            }
        }
        let without_units = Component { units: Vec::new(), ..(*component).clone() };
        self.line.update(Arc::new(without_units));
    }

    async fn remove(&self, signed_policy: Option<Arc<Value>>, reporter: &Reporter) {
        let component = self.line.report().id;
        if self.is_protected() && signed_policy.is_none() {
            tracing::warn!(component, "a protected service stays installed: no signed policy has removed it");
            return;
        }
        self.line.session(|session| session.ended(Health::Stopping, "Stopping: uninstalling the service".into()));
        reporter.put(self.line.report());
        match self.installer.run(&self.service.uninstall, std::future::pending()).await {
            Ok(()) => drop(self.record.forget(&self.layout)),
            // Its record stays, so that `muster-agent uninstall` tries again.
            Err(reason) => tracing::error!(component, reason, "failed to uninstall a service"),
        }
    }
}

/// Returns when the service should no longer be kept.
async fn ordered(orders: &mut watch::Receiver<Order>) {
    // A dropped sender means that the supervisor has ended: the service goes on.
    let _ = orders.wait_for(Order::is_end).await;
}
