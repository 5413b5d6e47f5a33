//! What is generated from the table of keys: the commented default file and the page of the documentation.

use std::fmt::Write;

use super::keys::{Definition, KEYS};

/// The default configuration file: every key, commented out, with its default and what it is for.
pub fn default_file() -> String {
    let mut text = String::from(
        "# Configuration of muster serve. Every line that is commented out shows the default.\n\
         # A flag beats an environment variable, which beats this file: --set KEY=VALUE, MUSTER_KEY.\n",
    );
    let mut section = String::new();
    for definition in ordered() {
        let (table, name) = definition.key.rsplit_once('.').unwrap_or(("", &definition.key));
        if table != section {
            section = table.to_owned();
            push(&mut text, format_args!("\n[{section}]\n"));
        } else {
            text.push('\n');
        }
        for line in definition.help.lines() {
            push(&mut text, format_args!("# {line}\n"));
        }
        push(&mut text, format_args!("#{name} = {}\n", literal(definition)));
    }
    text
}

/// `docs/configuration.md`.
pub fn page() -> String {
    let mut text = String::from(PAGE_HEAD);
    let mut section = None;
    for definition in ordered() {
        let table = definition.key.rsplit_once('.').map_or("", |(table, _)| table);
        if section != Some(table) {
            section = Some(table);
            let title = if table.is_empty() { "General".to_owned() } else { format!("`{table}`") };
            push(&mut text, format_args!("\n## {title}\n\n{TABLE_HEAD}"));
        }
        push(&mut text, format_args!("{}\n", row(definition)));
    }
    text
}

const PAGE_HEAD: &str = "\
# Configuration of `muster serve`

<!-- Generated from the table of keys; `cargo test -p muster-server` compares, and with UPDATE_DOCS=1 rewrites it. -->

A key is set in `/etc/muster/muster.toml` (or the file that `--config` names), by an environment variable `MUSTER_…`, by a
flag of its own, or by `--set KEY=VALUE`. A flag beats the environment, which beats the file, which beats the default.
`muster serve --print-default-config` prints the file with every key and its default; `muster serve --print-config` prints
every value in force and where it came from. Unknown keys, unknown variables `MUSTER_…` and values that can't be are refused
before anything starts: every problem in one message, with exit code 2. Variables that Muster's other programs read, and those
by which orchestrators tell of a service called `muster` (`MUSTER_SERVICE_HOST`, `MUSTER_PORT_8220_TCP` …), are passed over.

Durations are written `250ms`, `30s`, `5m` or `1h30m`.
";

const TABLE_HEAD: &str = "| key | takes | default | flag, variable | meaning |\n| --- | --- | --- | --- | --- |\n";

fn row(definition: &Definition) -> String {
    let flag = definition.flag.map(|flag| format!("`{flag}`, ")).unwrap_or_default();
    format!(
        "| `{}` | {} | `{}` | {flag}`{}` | {} |",
        definition.key,
        definition.kind.describe(),
        literal(definition),
        definition.variable(),
        definition.help.replace('\n', " ")
    )
}

/// Keys with those of one section side by side.
fn ordered() -> Vec<&'static Definition> {
    let mut sections: Vec<&str> = Vec::new();
    let table = |definition: &'static Definition| definition.key.rsplit_once('.').map_or("", |(table, _)| table);
    for definition in KEYS.iter() {
        if !sections.contains(&table(definition)) {
            sections.push(table(definition));
        }
    }
    let place = |definition: &&Definition| {
        let own = definition.key.rsplit_once('.').map_or("", |(table, _)| table);
        sections.iter().position(|section| *section == own)
    };
    let mut keys: Vec<&Definition> = KEYS.iter().collect();
    keys.sort_by_key(place);
    keys
}

fn literal(definition: &Definition) -> String {
    definition.default_value().to_string()
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string can't fail");
}
