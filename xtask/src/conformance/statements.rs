//! The statements of the protocol page.

use super::names::Number;
use crate::reference::PROTOCOL;

/// Statement.
pub struct Statement {
    /// Its number.
    pub number: Number,
    /// Text in Markdown.
    pub text: String,
}

/// Returns all of them: EA1–EA147, then D1–D24.
pub fn all() -> Vec<Statement> {
    let rows = PROTOCOL.rows().filter_map(|row| Some((Number::parse(row.number)?, row.text)));
    // A section needs no tag only on its own page.
    rows.map(|(number, text)| Statement { number, text: text.replace('§', "EA §") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_statement_is_missing() {
        let numbers: Vec<_> = all().iter().map(|statement| statement.number).collect();
        let wanted: Vec<_> = (1..=147).map(Number::statement).chain((1..=24).map(Number::deviation)).collect();
        assert_eq!(numbers, wanted);
    }
}
