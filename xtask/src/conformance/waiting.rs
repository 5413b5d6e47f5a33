//! What waits, and for what; and what is the sum of others.

use super::names::Number;

const OUTPUT_KEYS: &str = "keys of an agent's own for Elasticsearch outputs are a later issue; until then an output's configured credentials are passed as they are";

/// Why a statement has no test, or not all that it asks.
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

/// Statements that say of others what to do, or repeat a part of them: proved by the tests of those.
pub fn proved_by(number: Number) -> Vec<Number> {
    let (ea, d) = (Number::statement, Number::deviation);
    // EA108: the access key; the rest of it waits. D9: keys die at once, so no cache has to be short.
    let rows = [(ea(108), vec![ea(122)]), (d(9), vec![d(20), d(21)]), (d(24), vec![ea(59), ea(131), ea(141)])];
    rows.into_iter().find(|(sum, _)| *sum == number).map(|(_, parts)| parts).unwrap_or_default()
}
