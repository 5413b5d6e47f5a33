//! Order of versions of software, and conditions on them.
//!
//! All sources are compared by one rule, that of Debian: an epoch (`1:`) counts first; then pieces of other characters and pieces of
//! digits alternate. Digits are compared as numbers. Of other characters, `~` sorts before the end of the version, letters before
//! all others.

use std::cmp::Ordering;

use crate::error::Error;

/// Maximum number of conditions.
const MAX_CONDITIONS: usize = 8;

/// Compares two versions.
pub fn compare(one: &str, other: &str) -> Ordering {
    let (one, other) = (split_epoch(one), split_epoch(other));
    compare_numbers(one.0, other.0).then_with(|| compare_pieces(one.1.as_bytes(), other.1.as_bytes()))
}

fn split_epoch(version: &str) -> (&[u8], &str) {
    match version.split_once(':') {
        Some((epoch, rest)) if !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit()) => {
            (epoch.as_bytes(), rest)
        }
        _ => (b"", version),
    }
}

fn compare_pieces<'a>(mut one: &'a [u8], mut other: &'a [u8]) -> Ordering {
    while !one.is_empty() || !other.is_empty() {
        let (texts, numbers) = (take(&mut one, &mut other, false), take(&mut one, &mut other, true));
        let order = compare_texts(texts.0, texts.1).then_with(|| compare_numbers(numbers.0, numbers.1));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes the pieces of digits, or of other characters, at the start of both.
fn take<'a>(one: &mut &'a [u8], other: &mut &'a [u8], digits: bool) -> (&'a [u8], &'a [u8]) {
    let piece = |rest: &mut &'a [u8]| {
        let end = rest.iter().position(|byte| byte.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        *rest = after;
        piece
    };
    (piece(one), piece(other))
}

/// Compares digits as numbers of any length.
fn compare_numbers(one: &[u8], other: &[u8]) -> Ordering {
    let significant = |digits: &[u8]| digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
    let (one, other) = (&one[significant(one)..], &other[significant(other)..]);
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

fn compare_texts(one: &[u8], other: &[u8]) -> Ordering {
    let rank = |text: &[u8], at: usize| match text.get(at) {
        Some(b'~') => -1,
        None => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(*letter),
        Some(character) => i32::from(*character) + 256,
    };
    let most = one.len().max(other.len());
    (0..most).map(|at| rank(one, at).cmp(&rank(other, at))).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// Conditions that a version must meet, all of them: `<1.2`, `>=1,<2`, `1.2.3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions(Vec<(Operator, String)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
}

impl Operator {
    /// Longer ones first: `<` is the start of `<=`.
    const ALL: [(&str, Self); 5] =
        [("<=", Self::AtMost), (">=", Self::AtLeast), ("<", Self::Less), (">", Self::More), ("=", Self::Equal)];

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::More => order.is_gt(),
            Self::AtLeast => order.is_ge(),
            Self::Equal => order.is_eq(),
        }
    }
}

impl Conditions {
    /// Parses conditions, which commas separate. Without an operator, a version must be equal.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let condition = |part: &str| {
            let part = part.trim();
            let found =
                Operator::ALL.into_iter().find_map(|(sign, operator)| Some((operator, part.strip_prefix(sign)?)));
            let (operator, version) = found.unwrap_or((Operator::Equal, part));
            (operator, version.trim().to_owned())
        };
        let conditions: Vec<_> = text.split(',').map(condition).collect();
        if conditions.iter().any(|(_, version)| version.is_empty()) {
            return Err(Error::invalid("version", "has a condition without a version"));
        }
        // No software has such a version: taken literally, a mistyped operator would find nothing, as if no host had the software.
        let is_mistyped =
            |version: &str| version.starts_with(['~', '^']) || version.contains(['<', '>', '=', '|', '!']);
        if let Some((_, version)) = conditions.iter().find(|(_, version)| is_mistyped(version)) {
            let error = Error::invalid("version", format!("{version:?} is not a version"));
            return Err(error.remedy("use the operators <, <=, >, >= and =, and separate conditions by commas"));
        }
        if let Some((_, version)) =
            conditions.iter().find(|(_, version)| !version.contains(|c: char| c.is_ascii_digit()))
        {
            return Err(Error::invalid("version", format!("{version:?} is not a version: it has no digit")));
        }
        if conditions.len() > MAX_CONDITIONS {
            return Err(Error::invalid("version", format!("must have at most {MAX_CONDITIONS} conditions")));
        }
        Ok(Self(conditions))
    }

    /// Returns whether a version meets them. One that is unknown meets none.
    pub fn hold_for(&self, version: &str) -> bool {
        !version.is_empty() && self.0.iter().all(|(operator, other)| operator.holds(compare(version, other)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_ordered_as_debian_does() {
        let ascending = [
            "",
            "0",
            "1.0~rc1",
            "1.0",
            "1.0a",
            "1.0+b1",
            "1.0-1",
            "1.0.1",
            "1.2",
            "1.9",
            "1.10",
            "2.0-1ubuntu2",
            "2.0-1ubuntu10",
            "10",
            "1:0.5",
            "1:1",
            "2:0",
        ];
        for (at, one) in ascending.iter().enumerate() {
            for (other_at, other) in ascending.iter().enumerate().skip(1) {
                if at > 0 {
                    assert_eq!(compare(one, other), at.cmp(&other_at), "{one} {other}");
                }
            }
        }
        assert_eq!(compare("1.01", "1.1"), Ordering::Equal);
        assert_eq!(compare("1.99999999999999999999999999", "1.100000000000000000000000000"), Ordering::Less);
    }

    #[test]
    fn conditions_hold_together() {
        let hold = |text: &str, version: &str| Conditions::parse(text).unwrap().hold_for(version);
        assert!(hold("<1.2", "1.1.9") && !hold("<1.2", "1.2") && hold("<=1.2", "1.2"));
        assert!(hold(">=3.0, <3.0.7", "3.0.5-1") && !hold(">=3.0, <3.0.7", "3.1") && !hold(">3.0,<3.0.7", "3.0"));
        assert!(hold("1.2", "1.2") && hold("= 1.2", "1.02") && !hold("=1.2", "1.2-1") && !hold("<9", ""));
        assert!(hold("5.0 (1432)", "5.0 (1432)") && hold(">1.0~rc1", "1.0"));
        let mistyped = ["=>1", "=<1", "==1", "<>1", "!=1", "~>1.2", "^1.2", "1 || 2", ">=1 <2", "latest", "<x"];
        for bad in ["", "<", "<1,", " , "].into_iter().chain(mistyped) {
            assert!(Conditions::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Conditions::parse(&["<1"; 9].join(",")).is_err());
    }

    proptest! {
        #[test]
        fn the_order_is_total(versions in prop::array::uniform3("[0-9a-c.~:+-]{0,6}")) {
            let [a, b, c] = &versions;
            prop_assert_eq!(compare(a, b), compare(b, a).reverse());
            prop_assert_eq!(compare(a, a), Ordering::Equal);
            if compare(a, b).is_le() && compare(b, c).is_le() {
                prop_assert!(compare(a, c).is_le());
            }
        }
    }
}
