//! Records of CSV files (RFC 4180), for spreadsheets and scripts.

use crate::reported::is_deceptive;

/// Returns a record without its line feed.
pub fn record(cells: &[impl AsRef<str>]) -> String {
    cells.iter().map(|text| cell(text.as_ref())).collect::<Vec<_>>().join(",") + "\r"
}

/// Quotes a cell. One that begins like a formula is data of an agent, which a spreadsheet would execute.
fn cell(text: &str) -> String {
    let text = without_deceptive(text);
    // Where lists are separated by semicolons, a spreadsheet splits a cell at them, and at line ends. It also skips what is invisible.
    let is_invisible =
        |c: char| c.is_whitespace() || matches!(c, '\u{200c}' | '\u{200d}' | char::REPLACEMENT_CHARACTER);
    let begins =
        |part: &str| part.trim_start_matches(is_invisible).starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    // A single dash stands for nothing.
    let is_formula = text.split([';', '\n']).any(begins) && text != "-" && !is_number(&text);
    let text = if is_formula { format!("'{text}") } else { text };
    if text.contains([',', '"', '\'', ' ', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// Replaces control characters, except for line ends.
fn without_deceptive(text: &str) -> String {
    let mut characters = text.chars().peekable();
    let mut out = String::with_capacity(text.len());
    while let Some(c) = characters.next() {
        let is_line_end = c == '\n' || (c == '\r' && characters.peek() == Some(&'\n'));
        out.push(if is_deceptive(c) && !is_line_end { char::REPLACEMENT_CHARACTER } else { c });
    }
    out
}

/// Returns whether a cell is a decimal number, which a spreadsheet does not calculate.
fn is_number(text: &str) -> bool {
    // The parser also knows words such as `inf`.
    text.parse::<f64>().is_ok() && !text.contains(|c: char| c.is_ascii_alphabetic() && !c.eq_ignore_ascii_case(&'e'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_never_formulas() {
        assert_eq!(record(&["a \"b\", c", "-", "x\t"]), "\"a \"\"b\"\", c\",-,x\u{fffd}\r");
        for formula in [
            "+1+2",
            "-1-2",
            "-A1",
            "-inf",
            "x\n=1",
            "x\r\n@a",
            "@SUM(A1)",
            "=cmd|' /C calc'!A0",
            "a;=1",
            " =1",
            "\u{feff}=1",
            "＝1",
        ] {
            assert!(cell(formula).trim_start_matches('"').starts_with('\''), "{formula}");
        }
    }

    #[test]
    fn numbers_and_line_ends_are_data() {
        for number in ["-5", "-0.25", "+1", "-1e-7", "12"] {
            assert_eq!(cell(number), number);
        }
        assert_eq!(record(&["a\nb", "c\r\nd", "e\rf"]), "\"a\nb\",\"c\r\nd\",e\u{fffd}f\r");
    }
}
