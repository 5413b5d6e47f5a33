//! The statements themselves, one a line in `statements.tsv`.

use super::names::Number;

/// One statement.
pub struct Statement {
    /// Its number.
    pub number: Number,
    /// What it asks.
    pub text: &'static str,
}

/// All of them, EA1–EA147, then D1–D24.
pub fn all() -> Vec<Statement> {
    let lines = include_str!("statements.tsv").lines().filter_map(|line| line.split_once('\t'));
    lines.filter_map(|(number, text)| Some(Statement { number: Number::parse(number)?, text })).collect()
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
