//! Statements without tests, with the reasons.

use super::names::Number;

const OUTPUT_KEYS: &str =
    "per-agent API keys for Elasticsearch outputs; agents get the credentials that are configured for the output";

/// Returns the reason that a statement is not, or not completely, tested.
pub fn reason(number: Number) -> Option<&'static str> {
    const EA: &[(u16, &str)] = &[
        (101, OUTPUT_KEYS),
        (102, OUTPUT_KEYS),
        (103, OUTPUT_KEYS),
        (104, OUTPUT_KEYS),
        (106, OUTPUT_KEYS),
        (107, OUTPUT_KEYS),
        (108, OUTPUT_KEYS),
        (109, OUTPUT_KEYS),
        (110, OUTPUT_KEYS),
    ];
    const D: &[(u16, &str)] = &[(12, OUTPUT_KEYS), (18, OUTPUT_KEYS)];
    let find = |rows: &[(u16, &'static str)], make: fn(u16) -> Number| {
        rows.iter().find(|(waiting, _)| make(*waiting) == number).map(|(_, reason)| *reason)
    };
    find(EA, Number::statement).or_else(|| find(D, Number::deviation))
}

/// Returns the statements that a statement summarizes, whose tests verify it.
pub fn proved_by(number: Number) -> Vec<Number> {
    let (ea, d) = (Number::statement, Number::deviation);
    // EA108: only the access key. D9: keys are revoked immediately, so that caches need not expire early.
    let rows = [(ea(108), vec![ea(122)]), (d(9), vec![d(20), d(21)]), (d(24), vec![ea(59), ea(131), ea(141)])];
    rows.into_iter().find(|(sum, _)| *sum == number).map(|(_, parts)| parts).unwrap_or_default()
}
