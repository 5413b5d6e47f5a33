//! A component that is a service: it is installed by its program, and gets its start-up message at a socket.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use muster_agent::components::{Components, Health};
use muster_agent::model::service::{Operation, Service, ServiceSpec};
use muster_agent::model::{Component, Direction, Level, Unit, Work};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::host::{COMPONENT, TestHost, python};

const SOCKET: &str = ".eaci.sock";

/// A program that records its operations, and fails `install` while there is a file `broken`.
const PROGRAM: &str = r#"#!/bin/sh
echo "$1 $AGENT_COMPONENT_ID" >> DIRECTORY/operations
case $1 in
check) test -e DIRECTORY/installed ;;
install) test ! -e DIRECTORY/broken && touch DIRECTORY/installed ;;
uninstall) rm DIRECTORY/installed ;;
esac
"#;

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
            proxied_actions: Vec::new(),
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
