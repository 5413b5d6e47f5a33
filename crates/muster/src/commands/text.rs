//! Output to a terminal or a pipe. Text from agents must not control the terminal, and a pipe may be closed early.

use std::io::{self, BufWriter, Write as _};

use muster_core::reported::is_deceptive;

use super::failure::Failed;

/// Returns the text on one line, with control characters replaced by U+FFFD.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if is_deceptive(c) { '\u{fffd}' } else { c }).collect()
}

/// Returns the text on one line, with its line ends as `↵` and other control characters as [`printable`] shows them.
pub fn one_line(text: &str) -> String {
    printable_lines(text.trim_end()).replace('\n', "↵").replace('\t', " ")
}

/// Returns a text of several lines, with `\n` at their ends, and control characters other than tabs replaced by U+FFFD.
pub fn printable_lines(text: &str) -> String {
    let shown = |c| if is_deceptive(c) && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c };
    text.replace("\r\n", "\n").chars().map(shown).collect()
}

/// Escapes control characters in JSON. Outside of strings JSON has none but line breaks, so that it stays equivalent.
pub fn escaped_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        // All of these characters are below U+10000, so that one escape sequence is sufficient.
        if is_deceptive(c) && c != '\n' { out.push_str(&format!("\\u{:04x}", u32::from(c))) } else { out.push(c) }
    }
    out
}

/// Prints one line.
pub fn print_line(line: impl Into<String>) -> Result<(), Failed> {
    print_lines([line.into()])
}

/// Prints lines. A closed pipe is not an error.
pub fn print_lines(lines: impl IntoIterator<Item = String>) -> Result<(), Failed> {
    // Standard output alone would write each line on its own.
    let mut out = BufWriter::new(io::stdout().lock());
    let write = || {
        for line in lines {
            writeln!(out, "{line}")?;
        }
        out.flush()
    };
    match write() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Parses one tag of a list, without surrounding spaces. The server validates tags.
pub fn tag(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("web\u{1b}[31m-1\r\n"), "web\u{fffd}[31m-1\u{fffd}\u{fffd}");
        assert_eq!(printable("a\u{9b}2J\u{202e}b"), "a\u{fffd}2J\u{fffd}b");
        assert_eq!(printable_lines("a\r\n\tb\u{7}\r"), "a\n\tb\u{fffd}\u{fffd}");
        assert_eq!(one_line("#!/bin/sh\r\n\techo\u{7}\n"), "#!/bin/sh↵ echo\u{fffd}");
    }

    #[test]
    fn escaped_json_is_the_same_json() {
        let value = serde_json::json!({"host": "a\u{9b}2J\u{7f}\u{202e}\u{1b}[1m"});
        let text = escaped_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.chars().all(|c| c == '\n' || !is_deceptive(c)), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
