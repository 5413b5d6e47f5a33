//! Upgrades from the version that somebody types to what `muster action show` says in the end.

use serde_json::{Value, json};

use crate::agents::{Agent, fleet};
use crate::world::{json, run};

/// What an agent does after it was asked, in this order.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Acks the action, with an error unless it is `""`.
    Ack(&'static str),
    /// Checks in on a version, without details.
    Runs(&'static str),
    /// The same with metadata that say whether it is a snapshot.
    RunsSnapshot(&'static str, bool),
    /// Checks in on a version, with details in a state.
    Reports(&'static str, &'static str),
    /// The same with details of an action that is not this one.
    ReportsAnother(&'static str, &'static str),
}

use Step::{Ack, Reports, ReportsAnother, Runs, RunsSnapshot};

/// What comes of it.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The text is refused with its value.
    Refused,
    /// The action has this status, and its first error this part.
    Action(&'static str, &'static str),
}

use End::{Action, Refused};

/// What is typed, what the agent gets, what the agent does, what comes of it.
type Row = (&'static str, &'static str, &'static [Step], End);

const ROWS: [Row; 12] = [
    ("\t V9.7.1 \n", "9.7.1", &[Runs("9.7.1")], Action("COMPLETE", "")),
    ("9.7.1-SNAPSHOT", "9.7.1-SNAPSHOT", &[Ack(""), RunsSnapshot("9.7.1", true)], Action("COMPLETE", "")),
    // The release is another version.
    ("9.7.1-SNAPSHOT", "9.7.1-SNAPSHOT", &[Ack(""), RunsSnapshot("9.7.1", false)], Action("IN_PROGRESS", "")),
    ("9.7.1-SNAPSHOT", "9.7.1-SNAPSHOT", &[Ack(""), Runs("9.7.1")], Action("IN_PROGRESS", "")),
    ("9.7.01", "", &[], Refused),
    ("\u{ff19}.7.1", "", &[], Refused),
    ("9.7.1 (linux)", "", &[], Refused),
    // Details of an earlier action are no word on this one.
    ("9.7.1", "9.7.1", &[Ack(""), ReportsAnother("9.5.2", "UPG_FAILED"), Runs("9.5.2")], Action("IN_PROGRESS", "")),
    (
        "9.7.1",
        "9.7.1",
        &[Reports("9.5.2", "UPG_DOWNLOADING"), Reports("9.7.1", "UPG_WATCHING"), Runs("9.7.1"), Ack("late and wrong")],
        Action("COMPLETE", ""),
    ),
    // It stopped reporting on a version that is neither.
    (
        "9.7.1",
        "9.7.1",
        &[Reports("9.5.2", "UPG_REPLACING"), Runs("9.7.0")],
        Action("FAILED", "the agent runs 9.7.0 after UPG_REPLACING"),
    ),
    ("9.7.1", "9.7.1", &[Ack("no such artifact"), Runs("9.7.1")], Action("FAILED", "no such artifact")),
    (
        "9.7.1",
        "9.7.1",
        &[Reports("9.7.1", "UPG_WATCHING"), Reports("9.5.2", "UPG_ROLLBACK"), Runs("9.5.2"), Ack("")],
        Action("FAILED", "UPG_ROLLBACK"),
    ),
];

fn details(action: &str, state: &str) -> Value {
    let metadata = if state == "UPG_FAILED" { json!({"error_msg": "no space"}) } else { json!({}) };
    json!({"upgrade_details": {"target_version": "9.7.1", "state": state, "action_id": action, "metadata": metadata}})
}

fn go(agent: &Agent, action: &str, step: Step) {
    match step {
        Ack(error) => {
            agent.ack(action, Some(error).filter(|error| !error.is_empty()));
        }
        Runs(version) => agent.check_in_upgrading(version, &json!({})),
        RunsSnapshot(version, is_snapshot) => {
            let agent_info = json!({"id": agent.id, "version": version, "snapshot": is_snapshot});
            agent.check_in_upgrading(version, &json!({"local_metadata": {"elastic": {"agent": agent_info}}}));
        }
        Reports(version, state) => agent.check_in_upgrading(version, &details(action, state)),
        ReportsAnother(version, state) => {
            agent.check_in_upgrading(version, &details("5d1c6b0e-0000-4000-8000-000000000000", state));
        }
    }
}

/// What is wrong with what came of a row; `None`: it is as it should be.
fn fault(agent: &Agent, (typed, sent, steps, end): Row) -> Option<String> {
    let ran = run(&["agent", "upgrade", &agent.id, "--version", typed]);
    let Action(status, part) = end else {
        let right = ran.code == 2 && ran.err.contains("is not a version");
        return (!right).then(|| format!("{typed:?} is taken: {}{}", ran.out, ran.err));
    };
    if ran.code != 0 {
        return Some(format!("{typed:?} is refused: {}", ran.err));
    }
    let action = ran.out.trim();
    let got = agent.get(|waiting| waiting["id"] == action)["data"]["version"].clone();
    steps.iter().for_each(|step| go(agent, action, *step));
    let shown = json(&["action", "show", action]);
    let error = shown["results"][0]["error"].as_str().unwrap_or_default();
    let right = got == sent
        && shown["action"]["status"] == status
        && error.contains(part)
        && error.is_empty() == part.is_empty();
    (!right).then(|| format!("{typed:?} {steps:?}: sent {got}, {shown}"))
}

#[test]
fn upgrades_end_in_the_action_and_in_the_agent() {
    let names: Vec<String> = (0..ROWS.len()).map(|number| format!("ascend-{number}")).collect();
    let (_, agents) = fleet("ascend", &names.iter().map(String::as_str).collect::<Vec<_>>());
    let faults: Vec<_> = agents.iter().zip(ROWS).filter_map(|(agent, row)| fault(agent, row)).collect();
    assert!(faults.is_empty(), "{} rows: {faults:#?}", faults.len());
}
