//! Statements without tests, with the reasons.

use super::names::Number;

/// Returns the reason that a statement is not, or not completely, tested.
pub fn reason(number: Number) -> Option<&'static str> {
    // A row is a number with its reason. None is left.
    const EA: &[(u16, &str)] = &[];
    const D: &[(u16, &str)] = &[];
    let find = |rows: &[(u16, &'static str)], make: fn(u16) -> Number| {
        rows.iter().find(|(waiting, _)| make(*waiting) == number).map(|(_, reason)| *reason)
    };
    find(EA, Number::statement).or_else(|| find(D, Number::deviation))
}

/// Returns the statements that a statement summarizes, whose tests verify it.
pub fn proved_by(number: Number) -> Vec<Number> {
    let (ea, d) = (Number::statement, Number::deviation);
    // EA108: the access key, apart from the keys at outputs. D9: keys are revoked immediately, so that caches need not expire early.
    let rows = [(ea(108), vec![ea(122)]), (d(9), vec![d(20), d(21)]), (d(24), vec![ea(59), ea(131), ea(141)])];
    rows.into_iter().find(|(sum, _)| *sum == number).map(|(_, parts)| parts).unwrap_or_default()
}
