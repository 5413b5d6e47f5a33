//! What a page offers to copy: the same act as a command or as a request to the API.

use muster_core::id::SpaceId;
use muster_core::reported::is_deceptive;
use muster_core::shell;

use crate::visitor::Visitor;

/// Returns a `muster` command in the space of a page. The words of `command` are quoted by the caller.
pub fn cli(visitor: &Visitor, command: &str) -> String {
    match visitor.context.space() {
        space if *space == SpaceId::default() => format!("muster {command}"),
        space => format!("muster {} {command}", shell::option("--space", space.as_str())),
    }
}

/// Returns several commands, one per line.
pub fn commands(visitor: &Visitor, all: &[String]) -> String {
    all.iter().map(|command| cli(visitor, command)).collect::<Vec<_>>().join("\n")
}

/// Returns what was typed; in its place, the name of a value that is to be filled in, such as `NAME`.
pub fn or_placeholder<'t>(typed: &'t str, placeholder: &'t str) -> &'t str {
    match typed.trim() {
        "" => placeholder,
        typed => typed,
    }
}

/// Returns a JSON text in which characters that no page shows are escaped, so that a request can be copied from one.
fn plain(json: &str) -> String {
    let escaped = |c: char| match is_deceptive(c) && c != '\n' {
        true => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        false => c.to_string(),
    };
    json.chars().map(escaped).collect()
}

/// Returns a request to the API in the space of a page; `$MUSTER_URL` contains the path under which the server is published. `path` begins with `/api`; an empty `body` sends none.
pub fn curl(visitor: &Visitor, method: &str, path: &str, body: &str) -> String {
    let method = if method == "GET" { String::new() } else { format!(" -X {method}") };
    let path = format!("{}{path}", visitor.base.space());
    let body = match body {
        "" => String::new(),
        body => format!(" \\\n  -H 'Content-Type: application/json' -d {}", shell::word(&plain(body))),
    };
    format!("curl{method} \"$MUSTER_URL\"{} \\\n  -H \"Authorization: ApiKey $MUSTER_TOKEN\"{body}", shell::word(&path))
}
