//! Installed components that are services of the operating system (AG §4.6).

use std::time::Duration;

use camino::Utf8PathBuf;

use super::catalog::Installed;
use super::command::{check_binary, check_preventions, expand_all, variables};
use super::specification::{OperationSpecification, ServiceSpecification};
use crate::variables::Scope;

/// Maximum length of the name of a socket.
const SOCKET_NAME_MAX: usize = 64;

/// How to keep a service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSpec {
    /// The service.
    pub service: Service,
    /// Whether the policy protects it: it is only uninstalled when a signed policy omits it.
    pub is_protected: bool,
}

/// A service that installs itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The program that checks, installs and uninstalls it.
    pub binary: Utf8PathBuf,
    /// Name of the socket at which the service gets its start-up message.
    pub socket: String,
    /// Succeeds if the service is installed and running.
    pub check: Operation,
    /// Installs and starts it.
    pub install: Operation,
    /// Stops and removes it.
    pub uninstall: Operation,
    /// Maximum time between two check-ins of the service.
    pub checkin: Duration,
    /// Types of actions that the component receives although they are for the agent.
    pub proxied_actions: Vec<String>,
}

/// A command of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Arguments.
    pub args: Vec<String>,
    /// Additional environment variables.
    pub env: Vec<(String, String)>,
    /// Maximum time.
    pub timeout: Duration,
    /// Exit codes that count as success, apart from 0.
    pub non_fatal_exit_codes: Vec<i32>,
}

/// Returns the service of a component on this host, or the reason why it cannot run.
pub fn resolve(
    installed: &Installed,
    service: &ServiceSpecification,
    is_protected: bool,
    scope: Scope<'_>,
) -> Result<ServiceSpec, String> {
    let input = &installed.input;
    check_preventions(input, scope)?;
    check_binary(&installed.binary)?;
    let socket = service.csocket.clone();
    // Created in the agent's directory, and nowhere else.
    if socket.is_empty() || socket.contains('/') || socket == ".." || socket.len() > SOCKET_NAME_MAX {
        return Err(format!("the component {} has an invalid socket name", input.name));
    }
    let operations = &service.operations;
    let service = Service {
        binary: installed.binary.clone(),
        socket,
        check: operation(installed, "check", &operations.check, scope)?,
        install: operation(installed, "install", &operations.install, scope)?,
        uninstall: operation(installed, "uninstall", &operations.uninstall, scope)?,
        checkin: service.timeouts.checkin,
        proxied_actions: input.proxied_actions.clone(),
    };
    Ok(ServiceSpec { service, is_protected })
}

/// Returns the operation that uninstalls the service of a component, whatever the policy. Conditions that only prevent it
/// from running do not count.
pub fn uninstallation(installed: &Installed, scope: Scope<'_>) -> Result<Operation, String> {
    let name = &installed.input.name;
    let service = installed.input.service.as_ref().ok_or_else(|| format!("the component {name} is not a service"))?;
    operation(installed, "uninstall", &service.operations.uninstall, scope)
}

fn operation(
    installed: &Installed,
    name: &str,
    operation: &Option<OperationSpecification>,
    scope: Scope<'_>,
) -> Result<Operation, String> {
    let component = &installed.input.name;
    let operation = operation.as_ref().ok_or_else(|| format!("the component {component} has no operation {name}"))?;
    Ok(Operation {
        args: expand_all(&operation.args, scope)?,
        env: variables(&operation.env, scope)?,
        timeout: operation.timeout,
        non_fatal_exit_codes: operation.non_fatal_exit_codes.clone(),
    })
}
