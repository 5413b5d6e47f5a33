//! Records of CSV files (RFC 4180), for spreadsheets and scripts.

use crate::reported::is_deceptive;

/// Returns a record without its line feed.
pub fn record(cells: &[impl AsRef<str>]) -> String {
    cells.iter().map(|text| cell(text.as_ref())).collect::<Vec<_>>().join(",") + "\r"
}

/// Quotes a cell. One that begins like a formula is data of an agent, which a spreadsheet would execute.
fn cell(text: &str) -> String {
    let text: String = text.chars().map(|c| if is_deceptive(c) { char::REPLACEMENT_CHARACTER } else { c }).collect();
    // Where lists are separated by semicolons, a spreadsheet splits a cell at them. It also skips what is invisible.
    let is_invisible =
        |c: char| c.is_whitespace() || matches!(c, '\u{200c}' | '\u{200d}' | char::REPLACEMENT_CHARACTER);
    let begins =
        |part: &str| part.trim_start_matches(is_invisible).starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    // A single dash stands for nothing.
    let is_formula = text.split(';').any(begins) && text != "-";
    let text = if is_formula { format!("'{text}") } else { text };
    if text.contains([',', '"', '\'', ' ']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_never_formulas() {
        assert_eq!(record(&["a \"b\", c", "-", "x\n"]), "\"a \"\"b\"\", c\",-,x\u{fffd}\r");
        for formula in ["+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", "a;=1", " =1", "\u{feff}=1", "＝1"] {
            assert!(cell(formula).trim_start_matches('"').starts_with('\''), "{formula}");
        }
    }
}
