//! Tests of the command definitions: every command has help and examples, and `docs/cli.md` is generated from them.

use std::fmt::Write as _;

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, Command, CommandFactory as _};
use muster_core::authorization::{BuiltIn, PrivilegeName};
use muster_server::config::keys::KEYS;

use crate::Cli;

/// Collects the commands without sub-commands, with their paths.
fn leaves(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
    let path = format!("{path} {}", command.get_name());
    // clap adds a `help` command to every level.
    let mut below = command.get_subcommands().filter(|sub| sub.get_name() != "help").peekable();
    if below.peek().is_none() {
        found.push((path.trim_start().to_owned(), command.clone()));
    }
    below.for_each(|sub| leaves(sub, &path, found));
}

fn all_leaves() -> Vec<(String, Command)> {
    let mut found = Vec::new();
    leaves(&Cli::command(), "", &mut found);
    found
}

fn examples(command: &Command) -> String {
    command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string).unwrap_or_default()
}

/// Splits a line as a shell does, with single quotes only.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (place, part) in line.split('\'').enumerate() {
        match place % 2 {
            1 => words.push(part.to_owned()),
            _ => words.extend(part.split_whitespace().map(str::to_owned)),
        }
    }
    words
}

#[test]
fn flags_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_help_and_examples() {
    let leaves = all_leaves();
    assert!(leaves.len() > 25, "{}", leaves.len());
    for (path, command) in leaves {
        assert!(command.get_about().is_some_and(|about| !about.to_string().is_empty()), "{path}: no help");
        let examples = examples(&command);
        assert!(examples.contains("Examples:\n"), "{path}: no examples");
        assert!(examples.contains(&format!("  {path}")), "{path}: its examples are for another command");
    }
}

#[test]
fn every_argument_has_help() {
    for (path, command) in all_leaves() {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let has_help = argument.get_help().is_some_and(|help| !help.to_string().is_empty());
            assert!(has_help, "{path}: {} has no help", argument.get_id());
        }
    }
}

/// `docs/configuration.md` lists the flags of the configuration keys.
#[test]
fn flags_of_configuration_keys_exist() {
    let serve = all_leaves().into_iter().find(|(path, _)| path == "muster serve").unwrap().1;
    let flags: Vec<String> =
        serve.get_arguments().filter_map(|argument| Some(format!("--{}", argument.get_long()?))).collect();
    for flag in KEYS.iter().filter_map(|definition| definition.flag) {
        assert!(flags.iter().any(|existing| existing == flag), "muster serve has no flag {flag}");
    }
}

/// Users copy examples, so that each must parse.
#[test]
fn examples_parse() {
    for (path, command) in all_leaves() {
        let examples = examples(&command);
        for line in examples.lines().filter(|line| line.trim_start().starts_with("muster ")) {
            let line = line.split(['>', '&', '|']).next().unwrap_or_default();
            let parsed = Cli::command().try_get_matches_from(words(line));
            assert!(parsed.is_ok(), "{path}: {line}: {}", parsed.unwrap_err());
        }
    }
}

const HEAD: &str = "\
# The command `muster`

Generated from the command definitions by `UPDATE_DOCS=1 cargo test -p muster --bins reference`; do not edit.

Most commands have the form `muster NOUN VERB`. They use the REST API of [the server](configuration.md) through the Unix socket `admin.sock` in
its data directory. Run them on the server's host, as root or as the server's user. On other hosts, use `--url` with `--token`, the variables
`MUSTER_URL` and `MUSTER_TOKEN`, or a context (`muster context add`). Flags take precedence over variables, and variables over the current context.
`muster token create` creates a token.

* **Names.** Agents are specified by id or host name, and most other objects by id or name. An ambiguous name is an error.
* **Output.** Commands that list or show something accept `--output table|wide|json|yaml|name`. `json` and `yaml` contain the fields of the API, and
  `name` prints one id per line.
* **Filters.** `--filter` accepts a KQL expression, such as `status:(offline or error) and tags:\"web\"`.
* **Confirmation.** Commands ask for confirmation before they change more than one agent, before most deletions, revocations and rollbacks, and before
  they drain a server. `--yes` confirms in advance. Without it, these commands fail if there is no terminal.
* **Dry runs.** With `--dry-run`, the server validates the request but changes nothing. The command prints what would happen, and its exit code is the
  same as without `--dry-run`. A change that would affect no agent fails with exit code 3.
* **Actions.** Commands that create an action print its id. Pass it to `muster action show` or `muster action wait`.
* **Errors** are printed to stderr. The error states what failed and why. If there is a remedy, it follows on a line that begins with `hint:`.

| exit code | meaning |
| --- | --- |
| 0 | success |
| 1 | failure |
| 2 | usage error: invalid flags, filter or policy file |
| 3 | not found |
| 4 | access denied: authentication or privilege |
| 5 | the server is unreachable or unavailable |
| 6 | conflict: the name is taken, or the item is in use |
";

/// Writes a table row for an argument.
fn row(out: &mut String, argument: &Arg) {
    let mut name = match (argument.get_long(), argument.get_short()) {
        (Some(long), Some(short)) => format!("-{short}, --{long}"),
        (Some(long), None) => format!("--{long}"),
        _ => String::new(),
    };
    // Flags without a value have a default in clap too, which would be printed as `false`.
    let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let values = argument.get_value_names().unwrap_or_default();
    if let Some(value) = values.first().filter(|_| takes_value) {
        write!(name, " {value}").unwrap();
    }
    let mut help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> = argument.get_default_values().iter().filter_map(|value| value.to_str()).collect();
    if takes_value && !defaults.iter().all(|value| value.is_empty()) {
        write!(help, " [{}]", defaults.join(", ")).unwrap();
    }
    if takes_value {
        write_values(&mut help, argument);
    }
    if let Some(variable) = argument.get_env().and_then(|name| name.to_str()) {
        write!(help, " [env: {variable}]").unwrap();
    }
    writeln!(out, "| `{}` | {} |", name.trim(), help.replace('|', "\\|")).unwrap();
}

/// Appends the possible values; those of `--output` are in the introduction.
fn write_values(help: &mut String, argument: &Arg) {
    let values = argument.get_possible_values();
    if values.is_empty() || argument.get_id() == "output" {
        return;
    }
    let separator = if values.iter().any(|value| value.get_help().is_some()) { "; " } else { ", " };
    let values: Vec<_> = values.iter().map(describe).collect();
    write!(help, ". Values: {}", values.join(separator)).unwrap();
}

fn describe(value: &PossibleValue) -> String {
    let help = value.get_help().map(|help| format!(": {help}")).unwrap_or_default();
    format!("`{}`{help}", value.get_name())
}

fn table<'a>(out: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    let mut arguments = arguments.filter(|argument| !argument.is_hide_set()).peekable();
    if arguments.peek().is_some() {
        out.push_str("\n| argument | |\n| --- | --- |\n");
        arguments.for_each(|argument| row(out, argument));
    }
}

fn is_connection(argument: &Arg) -> bool {
    argument.get_help_heading() == Some("Connection")
}

fn section(out: &mut String, path: &str, command: &Command) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    write!(out, "\n## {path}\n\n{about}.\n").unwrap();
    let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    if let Some(consequence) = long.strip_prefix(&about).map(str::trim).filter(|rest| !rest.is_empty()) {
        write!(out, "\n{consequence}\n").unwrap();
    }
    // `--help` and `--version` exist for every command. An argument with one of these names that takes a value is our
    // own.
    let own = command.get_arguments().filter(|argument| {
        !matches!(argument.get_id().as_str(), "help" | "version") || argument.get_action().takes_values()
    });
    table(out, own.filter(|argument| !is_connection(argument)));
    let examples = examples(command);
    let lines = examples.strip_prefix("Examples:\n").unwrap_or(&examples).lines();
    let lines: Vec<_> = lines.map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
    write!(out, "\n```sh\n{}\n```\n", lines.join("\n")).unwrap();
}

fn page() -> String {
    let mut out = HEAD.to_owned();
    out.push_str(
        "\n## Connection flags\n\nAll commands accept these flags, except for `serve`, `store copy`, `doctor`, `drones`, `completions` and `man`.\n",
    );
    let command = Cli::command();
    let noun = command.find_subcommand("status").unwrap();
    table(&mut out, noun.get_arguments().filter(|argument| is_connection(argument)));
    for (path, command) in all_leaves() {
        section(&mut out, &path, &command);
    }
    out
}

#[test]
fn docs_cli_md_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let current = std::fs::read_to_string(path).unwrap_or_default();
    assert!(current == page, "docs/cli.md is stale: run this test with UPDATE_DOCS=1");
}

const ROLES_HEAD: &str = "# Roles and privileges

<!-- Generated by the tests of crates/muster; UPDATE_DOCS=1 rewrites it. -->

A role is a set of privileges. A binding assigns a role to a user or to a group of an OpenID provider. Its scope is the installation, a space, policies of
a space, or agents of a space with a tag. `muster role create` creates roles in addition to the built-in ones.

A privilege takes effect only if the scope of the binding is wide enough. The column *minimum scope* shows the scope that it needs. For example, the role
`auditor` in a space reads the space's agents, policies, outputs and audit events, but not the users, which belong to all spaces. `muster role bind` lists the
privileges of a role that have no effect in the new binding.

## Built-in roles

They cannot be changed or deleted.

| role | what it is for | privileges |
| --- | --- | --- |
";

const PRIVILEGES_HEAD: &str = "
## Privileges

| privilege | what it permits | minimum scope |
| --- | --- | --- |
";

fn roles_page() -> String {
    let mut out = ROLES_HEAD.to_owned();
    for role in BuiltIn::ALL {
        let privileges: Vec<String> = role.privileges().iter().map(|name| format!("`{name}`")).collect();
        let privileges = if role == BuiltIn::Administrator { "all".to_owned() } else { privileges.join(", ") };
        writeln!(out, "| `{}` | {} | {privileges} |", role.id(), role.texts().1).unwrap();
    }
    out.push_str(PRIVILEGES_HEAD);
    for name in PrivilegeName::ALL {
        writeln!(out, "| `{name}` | {} | {} |", name.about(), name.reach().narrowest()).unwrap();
    }
    out
}

#[test]
fn docs_roles_md_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/roles.md");
    let page = roles_page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let current = std::fs::read_to_string(path).unwrap_or_default();
    assert!(current == page, "docs/roles.md is stale: run this test with UPDATE_DOCS=1");
}
