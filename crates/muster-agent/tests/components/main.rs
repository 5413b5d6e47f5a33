//! An installed component that others wrote: Elastic's client of the component protocol, in Python.

#![allow(clippy::unwrap_used, reason = "tests")]

mod client;
mod host;
mod service;

use std::time::Duration;

use muster_agent::components::diagnostics::File;
use muster_agent::components::{Components, Health, InputAction};
use serde_json::json;

use host::{TestHost, alive};

const MINUTE: Duration = Duration::from_secs(60);

fn action(command: &str, timeout: Duration) -> InputAction {
    let params = json!({"id": "a", "type": "INPUT_ACTION", "input_type": "fake", "data": {"command": command}});
    InputAction { input_type: "fake".into(), params, timeout }
}

#[tokio::test]
async fn ag67_ag164_a_component_takes_changes_and_actions_without_a_restart() {
    let host = TestHost::start().await;
    host.want(1, &["one", "two"]);
    let state = host.until("two").await;
    assert_eq!((state.state, state.units.len()), (Health::Healthy, 3));
    let pid = host.pids()[0].clone();
    host.want(2, &["one changed", "two"]);
    host.until("one changed").await;
    host.want(3, &["one changed"]);
    host.until_units(2).await;
    let result = host.supervisor.perform(action("echo", MINUTE)).await.unwrap();
    assert_eq!((&result["name"], &result["unit"]), (&json!("fake"), &json!("fake-default-0")));
    assert_eq!(result["params"]["data"], json!({"command": "echo"}));
    assert_eq!(host.supervisor.perform(action("fail", MINUTE)).await.unwrap_err(), "told to fail");
    let late = host.supervisor.perform(action("hang", Duration::from_millis(200))).await.unwrap_err();
    assert!(late.contains("did not respond"), "{late}");
    let other = InputAction { input_type: "osquery".into(), ..action("echo", MINUTE) };
    assert!(host.supervisor.perform(other).await.unwrap_err().contains("osquery"));
    assert_eq!(host.pids(), std::slice::from_ref(&pid), "the same process all the time");
    host.supervisor.want(Vec::new());
    host.supervisor.settled().await;
    assert!(!alive(&pid));
}

#[tokio::test]
async fn a_component_and_its_units_return_diagnostics() {
    let host = TestHost::start().await;
    host.want(1, &["one"]);
    host.until("one").await;
    let diagnostics = host.supervisor.diagnostics().await;
    let found = diagnostics.iter().map(|one| {
        let file = |files: &Vec<File>| {
            let file = &files[0].file;
            (file.filename.clone(), String::from_utf8(file.content.clone()).unwrap())
        };
        (one.unit.as_deref(), one.files.as_ref().map(file).map_err(String::as_str))
    });
    let file = |name: &str| Ok((format!("{name}.txt"), name.to_owned()));
    assert_eq!(
        found.collect::<Vec<_>>(),
        [
            (None, file("component")),
            (Some("fake-default"), Err("no diagnostics of outputs")),
            (Some("fake-default-0"), file("fake-default-0")),
        ]
    );
    // A component that hangs is killed after a few seconds. It costs the files that it was asked for.
    let pid = host.pids()[0].parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGSTOP).unwrap();
    let silent = host.supervisor.diagnostics().await;
    assert_eq!(silent[1].files.as_ref().map(|_| ()).unwrap_err(), "the component is not connected");
    host.supervisor.halt().await;
}

#[tokio::test]
async fn ag61_ag62_ag163_ag166_a_component_that_exits_or_hangs_comes_back() {
    let host = TestHost::start().await;
    host.want(1, &["one"]);
    host.until("one").await;
    let lost = host.supervisor.perform(action("exit", MINUTE)).await.unwrap_err();
    assert!(lost.contains("not connected"), "{lost}");
    host.until_state(|state| state.message.contains("exited with code '3'")).await;
    host.until_state(|state| state.state == Health::Healthy && host.pids().len() == 2).await;
    // A stopped process misses its check-ins, is degraded, and then killed.
    let degraded = host.until_state(|state| state.state == Health::Degraded && state.message.contains("missed"));
    let (outcome, _) = tokio::join!(host.supervisor.perform(action("stop", MINUTE)), degraded);
    assert!(outcome.unwrap_err().contains("not connected"), "it was killed while it had an action");
    host.until_state(|state| state.state == Health::Healthy && host.pids().len() == 3).await;
    let pids = host.pids();
    assert!(!alive(&pids[0]) && !alive(&pids[1]) && alive(&pids[2]));
    assert_eq!(host.until("one").await.units.len(), 2);
    host.supervisor.halt().await;
    assert!(!alive(&pids[2]));
}

#[tokio::test]
async fn ag65_a_program_that_others_can_write_is_not_executed() {
    let host = TestHost::start().await;
    host.make_writable();
    host.want(1, &["one"]);
    let state = host.until_state(|state| state.state == Health::Failed).await;
    assert!(state.message.contains("writable by others"), "{state:?}");
    assert_eq!(host.pids(), [""; 0]);
}
