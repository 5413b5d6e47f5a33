//! `muster server-host|proxy|download-source test`

use clap::Args;
use muster_client::Client;
use muster_protocol::management::network_object::{AddressTest, ConnectionTest};
use serde::Serialize;

use super::failure::Failed;
use super::listing::{Column, Format, OutputArg, column, print_json, print_list, print_yaml};
use super::network_object::{NetworkNoun, find};

/// Flags of `test`.
#[derive(Args, Debug)]
pub struct TestArgs {
    /// Name or id
    name: String,
    #[command(flatten)]
    output: OutputArg,
}

/// A step of a test, with its address.
#[derive(Serialize)]
struct StepRow {
    address: String,
    step: String,
    passed: bool,
    message: String,
}

const STEPS: &[Column<StepRow>] = &[
    column("ADDRESS", |row| row.address.clone()),
    column("STEP", |row| row.step.clone()),
    column("RESULT", |row| if row.passed { "passed" } else { "failed" }.to_owned()),
    column("MESSAGE", |row| row.message.clone()),
];

fn rows(test: AddressTest) -> impl Iterator<Item = StepRow> {
    let AddressTest { address, steps, .. } = test;
    steps.into_iter().map(move |step| StepRow {
        address: address.clone(),
        step: step.step,
        passed: step.passed,
        message: step.message,
    })
}

impl TestArgs {
    /// Tests the object, and fails if a step fails.
    pub async fn run<N: NetworkNoun>(self, client: &Client) -> Result<(), Failed> {
        let found = find::<N>(client, &self.name).await?;
        let test = client.test_network_object(N::ROUTE, &found.id).await?;
        let failure = failure_of(&test);
        match self.output.output {
            Format::Json => print_json(&test)?,
            Format::Yaml => print_yaml(&test)?,
            format => {
                let rows: Vec<StepRow> = test.addresses.into_iter().flat_map(rows).collect();
                print_list(&rows, format, STEPS, |row| row.address.clone())?;
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Returns the first failure, so that scripts see it from the exit code.
fn failure_of(test: &ConnectionTest) -> Option<Failed> {
    let failed = test.addresses.iter().flat_map(|one| one.steps.iter().map(move |step| (one, step)));
    let (address, step) = failed.into_iter().find(|(_, step)| !step.passed)?;
    let failed = Failed::new(format!("{}: {}", address.address, step.message));
    Some(match &step.remedy {
        Some(remedy) => failed.remedy(remedy),
        None => failed,
    })
}
