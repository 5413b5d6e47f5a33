//! `docs/conformance.md`: every numbered statement about the Elastic Agent protocol (EA1–EA147), and every fault of the
//! original that we avoid (D1–D24), with the tests that carry its number in their names, or the reason it waits for.
//!
//! A test proves a statement by its name: `ea40_…` proves EA40, `ea35_ea36_…` both, `d6_…` D6.

mod names;
mod statements;
mod waiting;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use clap::Args;

use crate::shell;
use names::{Number, TestName};

const FILE: &str = "docs/conformance.md";

/// Arguments of `conformance`.
#[derive(Args)]
pub struct ConformanceArgs {
    /// Fail when the file is not current, instead of writing it.
    #[arg(long)]
    check: bool,
}

impl ConformanceArgs {
    /// Writes the file.
    pub fn write() -> Self {
        Self { check: false }
    }
}

/// Makes or checks the file.
pub fn run(args: &ConformanceArgs) -> anyhow::Result<()> {
    let table = Table::of_the_tree()?;
    let page = table.render();
    let path = shell::root().join(FILE);
    if args.check {
        let committed = std::fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
        anyhow::ensure!(committed == page, "{FILE} is not current: cargo xtask conformance");
    } else {
        std::fs::create_dir_all(shell::root().join("docs"))?;
        std::fs::write(&path, page)?;
    }
    let missing = table.missing();
    anyhow::ensure!(missing.is_empty(), "neither a test nor a reason: {}", missing.join(", "));
    Ok(())
}

/// What is known of each statement.
struct Table {
    tests: BTreeMap<Number, Vec<TestName>>,
}

impl Table {
    fn of_the_tree() -> anyhow::Result<Self> {
        let mut tests: BTreeMap<Number, Vec<TestName>> = BTreeMap::new();
        for path in shell::sources()? {
            if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(shell::root().join(&path))?;
                for test in names::numbered_tests(&path, &text) {
                    for number in &test.numbers {
                        tests.entry(*number).or_default().push(test.clone());
                    }
                }
            }
        }
        Ok(Self { tests })
    }

    /// Statements with neither a test nor a reason.
    fn missing(&self) -> Vec<String> {
        let all = statements::all().into_iter().map(|statement| statement.number);
        let open = all.filter(|number| self.tests_of(*number).next().is_none() && waiting::reason(*number).is_none());
        open.map(|number| number.to_string()).collect()
    }

    /// Its own tests, and those of statements that it is the sum of.
    fn tests_of(&self, number: Number) -> impl Iterator<Item = &TestName> {
        let numbers = std::iter::once(number).chain(waiting::proved_by(number));
        numbers.filter_map(|number| self.tests.get(&number)).flatten()
    }

    fn render(&self) -> String {
        let mut page = String::from(HEAD);
        let (ours, theirs): (Vec<_>, Vec<_>) = statements::all().into_iter().partition(|one| one.number.is_deviation());
        for (title, statements) in [(STATEMENTS, theirs), (DEVIATIONS, ours)] {
            page.push_str(title);
            for statement in statements {
                let proof = self.proof(statement.number);
                let _ = writeln!(page, "| {} | {} | {proof} |", statement.number, statement.text.replace('|', "\\|"));
            }
        }
        page
    }

    fn proof(&self, number: Number) -> String {
        let tests: Vec<_> = self.tests_of(number).map(|test| format!("`{}` ({})", test.name, test.place)).collect();
        match waiting::reason(number) {
            Some(reason) if tests.is_empty() => format!("waits: {reason}"),
            Some(reason) => format!("{}; the rest waits: {reason}", tests.join("<br>")),
            None if tests.is_empty() => "**nothing yet**".to_owned(),
            None => tests.join("<br>"),
        }
    }
}

const HEAD: &str = "\
# Conformance

Made by `cargo xtask conformance` from the names of the tests; don't edit it. A test carries the number of what it proves:
`ea40_active_id_without_token_is_refused` proves EA40.
";

const STATEMENTS: &str = "
## What the protocol of Elastic Agents asks of a server

| | the server must | proved by |
| --- | --- | --- |
";

const DEVIATIONS: &str = "
## Where the original falls short and we do better

| | what we do, or the fault that we avoid | proved by |
| --- | --- | --- |
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_has_a_test_or_a_reason() {
        assert_eq!(Table::of_the_tree().unwrap().missing(), [""; 0]);
    }

    #[test]
    fn the_committed_file_is_current() {
        run(&ConformanceArgs { check: true }).unwrap();
    }

    #[test]
    fn a_reason_that_waits_for_nothing_is_dropped() {
        let table = Table::of_the_tree().unwrap();
        let proof = table.proof(Number::statement(101));
        assert!(proof.starts_with("waits: ") || proof.contains("; the rest waits: "), "{proof}");
    }
}
