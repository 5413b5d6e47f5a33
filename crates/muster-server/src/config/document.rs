//! Documents that are generated from the configuration keys: the default file and `docs/configuration.md`.

use std::fmt::Write;

use super::keys::{Definition, KEYS};

/// Returns the default configuration file: every key, commented out, with its default and its meaning.
pub fn default_file() -> String {
    let mut text = String::from(
        "# Configuration of muster serve. Lines that are commented out show the defaults.\n\
         # Flags (--set KEY=VALUE) and environment variables (MUSTER_KEY) take precedence over this file.\n",
    );
    let mut section = String::new();
    // Grouped by section, because a table of TOML can be opened only once.
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

/// Returns the text of `docs/configuration.md`.
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

<!-- Generated from the configuration keys by `UPDATE_DOCS=1 cargo test -p muster-server --lib config`; do not edit. -->

Configuration keys can be set in `/etc/muster/muster.toml` (or in the file given with `--config`), with `MUSTER_…` environment variables, with flags
(for some keys), or with `--set KEY=VALUE`. Flags take precedence over environment variables, environment variables over the file, and the file over
the defaults.

* `muster serve --print-default-config` prints a configuration file with all keys and their defaults.
* `muster serve --print-config` prints the effective configuration with the source of each value.

Unknown keys and invalid values are errors. The server prints all of them and exits with code 2.

Unknown `MUSTER_…` environment variables are not errors, because scripts and orchestrators may also set variables with this prefix. At each start, the
server logs a warning that suggests the most similar name; `--print-config` prints it too. A misspelled variable has no effect: for example, if
`MUSTER_TLS_CLIENT_CA` is misspelled, client certificates are disabled. Put such settings in the file, where an unknown key is an error. The server
does not warn about variables of Muster's other programs, or about those that orchestrators set for a service named `muster` (`MUSTER_SERVICE_HOST`,
`MUSTER_PORT_8220_TCP` …).

Examples of durations: `250ms`, `30s`, `5m`, `1h30m`.
";

const TABLE_HEAD: &str = "| key | type | default | flag, variable | meaning |\n| --- | --- | --- | --- | --- |\n";

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

/// Returns the keys grouped by section.
fn ordered() -> Vec<&'static Definition> {
    let mut sections: Vec<&str> = Vec::new();
    let table = |definition: &'static Definition| definition.key.rsplit_once('.').map_or("", |(table, _)| table);
    for definition in KEYS.iter() {
        if !sections.contains(&table(definition)) {
            sections.push(table(definition));
        }
    }
    // In the order in which the sections appear first, so that the order of the definitions decides.
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
