//! The statements themselves, from the page of the protocol.

use super::names::Number;
use crate::reference::PROTOCOL;

/// One statement.
pub struct Statement {
    /// Its number.
    pub number: Number,
    /// What it asks.
    pub text: String,
}

/// Returns all of them: EA1–EA147, then D1–D24.
pub fn all() -> Vec<Statement> {
    let rows = PROTOCOL.rows().filter_map(|row| Some((Number::parse(row.number)?, row.text)));
    // On its own page a section needs no tag; elsewhere it does.
    rows.map(|(number, text)| Statement { number, text: text.replace('§', "EA §") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_left_out() {
        let numbers: Vec<_> = all().iter().map(|statement| statement.number).collect();
        let wanted: Vec<_> = (1..=147).map(Number::statement).chain((1..=24).map(Number::deviation)).collect();
        assert_eq!(numbers, wanted);
    }
}
