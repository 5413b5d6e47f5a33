//! A component that is a service: it is installed by its program, and gets its start-up message at a socket.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use muster_agent::components::installed_services::{self, Around, Stuck, Uninstalled};
use muster_agent::components::{Components, Health, ProxiedAction};
use muster_agent::host::variables::platform;
use muster_agent::launch::Guard;
use muster_agent::model::capabilities::Capabilities;
use muster_agent::model::catalog::Installed;
use muster_agent::model::service::{Operation, Service, ServiceSpec};
use muster_agent::model::specification::Specification;
use muster_agent::model::{Catalog, Component, Direction, Level, Unit, Work};
use muster_agent::paths::Layout;
use muster_agent::settings::ProcessSettings;
use muster_agent::variables::VariableSets;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::host::{COMPONENT, TestHost, python};

const SOCKET: &str = ".eaci.sock";

/// A program that records its operations, and fails while there is a file `broken`.
const PROGRAM: &str = r#"#!/bin/sh
echo "$1 $AGENT_COMPONENT_ID" >> DIRECTORY/operations
case $1 in
check) test -e DIRECTORY/installed ;;
install) test ! -e DIRECTORY/broken && touch DIRECTORY/installed ;;
uninstall)
    test ! -e DIRECTORY/broken && rm DIRECTORY/installed || exit 5
    test -z "$2" || echo "$2 $(cat "$3")" >> DIRECTORY/tokens ;;
esac
"#;
const SPECIFICATION: &str = "version: 2\ninputs:\n- {name: fake, description: x, platforms: [PLATFORM], outputs: [elasticsearch], \
    service: {operations: {uninstall: {args: [uninstall], timeout: 3s}}}}\n";

struct ServiceHost {
    host: TestHost,
    checkin: Duration,
}

impl ServiceHost {
    async fn start() -> Self {
        let host = TestHost::start().await;
        host.replace_program(&PROGRAM.replace("DIRECTORY", host.base().as_str()));
        Self { host, checkin: Duration::from_secs(5) }
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        self.host.base().join(name)
    }

    fn operations(&self) -> Vec<String> {
        let text = fs_err::read_to_string(self.path("operations")).unwrap_or_default();
        text.lines().map(|line| line.strip_suffix(" fake").unwrap().to_owned()).collect()
    }

    fn want(&self, message: &str, is_protected: bool) {
        let operation = |name: &str| Operation {
            args: vec![name.into()],
            env: Vec::new(),
            timeout: Duration::from_secs(3),
            non_fatal_exit_codes: Vec::new(),
        };
        let service = Service {
            binary: self.host.binary(),
            socket: SOCKET.into(),
            check: operation("check"),
            install: operation("install"),
            uninstall: operation("uninstall"),
            checkin: self.checkin,
            proxied_actions: vec!["UNENROLL".into()],
        };
        let unit = |id: &str, direction, config| Unit {
            id: id.into(),
            direction,
            config: Arc::new(config),
            level: Level::Info,
            fault: None,
        };
        let input = json!({"id": "0", "type": "fake", "message": message});
        let component = Component {
            id: "fake".into(),
            kind: "fake".into(),
            units: vec![
                unit("fake", Direction::Output, json!({"type": "elasticsearch", "message": "output"})),
                unit("fake-0", Direction::Input, input),
            ],
            work: Ok(Work::Service(ServiceSpec { service, is_protected })),
            features: json!({}),
            limits: json!({}),
        };
        self.host.supervisor.want(vec![Arc::new(component)]);
    }

    /// Runs the service, as its service manager does. It asks for its start-up message at the socket.
    async fn run(&self) -> (Child, UnixStream) {
        let mut socket = loop {
            match UnixStream::connect(self.path(SOCKET)).await {
                Ok(socket) => break socket,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let mut start_up = Vec::new();
        socket.read_to_end(&mut start_up).await.unwrap();
        let output = std::fs::OpenOptions::new().create(true).append(true).open(self.path("service.log")).unwrap();
        let mut command = Command::new(python());
        command.arg(COMPONENT).stdin(Stdio::piped()).stdout(output).kill_on_drop(true);
        let mut service = command.spawn().unwrap();
        service.stdin.take().unwrap().write_all(&start_up).await.unwrap();
        (service, socket)
    }

    /// Uninstalls all services, as `muster-agent uninstall` does.
    async fn uninstall_all(&self, tokens: Option<&Utf8Path>, specification: &str) -> Result<Uninstalled, Stuck> {
        let specification = Specification::parse(&specification.replace("PLATFORM", &platform())).unwrap();
        let installed = |input| Installed { input, binary: self.host.binary() };
        let catalog = Catalog::of(specification.inputs.into_iter().map(installed).collect(), Capabilities::default());
        let (variables, settings, layout) =
            (VariableSets::default(), ProcessSettings::default(), Layout::new(self.host.base()));
        let around = Around {
            layout: &layout,
            catalog: &catalog,
            scope: variables.context(),
            settings: &settings,
            guard: Guard::None,
            tokens,
        };
        installed_services::uninstall_all(&around).await
    }

    fn log(&self) -> String {
        fs_err::read_to_string(self.path("service.log")).unwrap_or_default()
    }
}

#[tokio::test]
async fn ag77_a_service_is_installed_once_and_outlives_the_agent() {
    let host = ServiceHost::start().await;
    host.want("one", false);
    let (mut service, _) = host.run().await;
    let state = host.host.until("one").await;
    assert_eq!((state.state, state.id.as_str()), (Health::Healthy, "fake"));
    assert_eq!(host.operations(), ["check", "install"]);
    host.want("two", false);
    host.host.until("two").await;
    host.host.supervisor.halt().await;
    assert!(service.try_wait().unwrap().is_none(), "the service goes on");
    assert!(!host.path(SOCKET).try_exists().unwrap());
    service.kill().await.unwrap();
    // The next agent finds it installed, and has other certificates.
    host.want("three", false);
    let (_service, _) = host.run().await;
    host.host.until("three").await;
    assert_eq!(host.operations(), ["check", "install", "check"]);
    host.host.supervisor.want(Vec::new());
    host.host.supervisor.settled().await;
    assert_eq!(host.operations(), ["check", "install", "check", "uninstall"]);
    assert!(!host.log().contains("signed"), "{}", host.log());
    assert_eq!(host.uninstall_all(None, SPECIFICATION).await.unwrap(), Uninstalled::default(), "nothing is left to do");
}

#[tokio::test]
async fn ag77_ag141_services_are_uninstalled_whatever_became_of_their_policy() {
    let mut host = ServiceHost::start().await;
    host.checkin = Duration::from_millis(500);
    host.want("one", true);
    let (mut service, _) = host.run().await;
    host.host.until("one").await;
    host.host.supervisor.halt().await;
    service.kill().await.unwrap();
    // One that refuses keeps its record.
    fs_err::write(host.path("broken"), "").unwrap();
    let stuck = host.uninstall_all(None, SPECIFICATION).await.unwrap_err().to_string();
    assert!(stuck.contains("component fake was not uninstalled: Failed: exited with code '5'"), "{stuck}");
    // Nothing can uninstall one without a specification.
    let without = host.uninstall_all(None, "version: 2\ninputs: []\n").await.unwrap();
    assert!(without.orphaned[0].1.contains("no specification") && without.done.is_empty(), "{without:?}");
    fs_err::remove_file(host.path("broken")).unwrap();
    fs_err::write(host.path("given"), "token").unwrap();
    let done = host.uninstall_all(Some(&host.path("given")), SPECIFICATION).await.unwrap();
    assert_eq!((done.done, done.orphaned), (vec!["fake".to_owned()], Vec::new()));
    assert_eq!(fs_err::read_to_string(host.path("tokens")).unwrap(), "--uninstall-token token\n");
    assert!(!host.path("installed").try_exists().unwrap());
    assert_eq!(host.uninstall_all(None, SPECIFICATION).await.unwrap(), Uninstalled::default());

    // One that was never installed does not keep the agent on the host.
    fs_err::write(host.path("broken"), "").unwrap();
    host.want("two", false);
    host.host.until_state(|state| state.state == Health::Failed).await;
    host.host.supervisor.halt().await;
    let never = host.uninstall_all(None, SPECIFICATION).await.unwrap();
    assert_eq!(never.orphaned, [("fake".to_owned(), "Failed: exited with code '5'".to_owned())]);
}

#[tokio::test]
async fn actions_for_the_agent_reach_the_components_that_name_their_type() {
    let host = ServiceHost::start().await;
    host.want("one", true);
    let (_service, _) = host.run().await;
    host.host.until("one").await;
    let supervisor = &host.host.supervisor;
    assert!(supervisor.proxies("UNENROLL") && !supervisor.proxies("UPGRADE"));
    let params =
        json!({"id": "u", "type": "UNENROLL", "data": {"command": "echo"}, "signed": {"data": "d", "signature": "s"}});
    supervisor.proxy(ProxiedAction { kind: "UNENROLL".into(), params }).await.unwrap();
}

#[tokio::test]
async fn a_protected_service_is_uninstalled_only_with_a_signed_policy_that_omits_it() {
    let host = ServiceHost::start().await;
    host.want("one", true);
    let (mut service, _) = host.run().await;
    host.host.until("one").await;
    // For example, the access key was revoked.
    host.host.supervisor.want(Vec::new());
    host.host.supervisor.settled().await;
    assert_eq!(host.operations(), ["check", "install"]);
    service.kill().await.unwrap();
    host.want("two", true);
    let (_service, _) = host.run().await;
    host.host.until("two").await;
    host.host.supervisor.set_signed_policy(Some(Arc::new(json!({"data": "proof", "signature": "s"}))));
    host.host.supervisor.want(Vec::new());
    host.host.supervisor.settled().await;
    assert_eq!(host.operations(), ["check", "install", "check", "uninstall"]);
    assert!(host.log().contains("signed proof"), "{}", host.log());
}

#[tokio::test]
async fn a_service_that_cannot_be_installed_or_is_silent_has_failed() {
    let mut host = ServiceHost::start().await;
    host.checkin = Duration::from_millis(500);
    fs_err::write(host.path("broken"), "").unwrap();
    host.want("one", false);
    let state = host.host.until_state(|state| state.state == Health::Failed).await;
    assert!(state.message.contains("cannot install the service: Failed: exited with code '1'"), "{state:?}");
    host.host.supervisor.halt().await;
    fs_err::remove_file(host.path("broken")).unwrap();
    host.want("one", false);
    host.host.until_state(|state| state.state == Health::Degraded).await;
    let state = host.host.until_state(|state| state.state == Health::Failed).await;
    assert!(state.message.contains("missed its check-ins"), "{state:?}");
}
