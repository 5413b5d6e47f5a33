//! The subset of SPDX license expressions that manifests use.

use std::collections::BTreeSet;

/// Returns whether the allowed licenses satisfy an expression.
///
/// `AND` binds tighter than `OR`, the `/` of old manifests means `OR`, and `X WITH Y` is one license.
pub fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, allowed };
    let holds = parser.alternatives();
    holds && parser.words.is_empty()
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a BTreeSet<String>,
}

impl Parser<'_> {
    fn alternatives(&mut self) -> bool {
        let mut holds = self.conjunction();
        while self.take("OR") {
            // `||` would not evaluate the right side, which must be consumed in any case.
            holds |= self.conjunction();
        }
        holds
    }

    fn conjunction(&mut self) -> bool {
        let mut holds = self.license();
        while self.take("AND") {
            holds &= self.license();
        }
        holds
    }

    fn license(&mut self) -> bool {
        if self.take("(") {
            let holds = self.alternatives();
            return self.take(")") && holds;
        }
        let Some((name, rest)) = self.words.split_first() else { return false };
        self.words = rest;
        if self.take("WITH") {
            let Some((exception, rest)) = self.words.split_first() else { return false };
            self.words = rest;
            return self.allowed.contains(&format!("{name} WITH {exception}"));
        }
        self.allowed.contains(*name)
    }

    fn take(&mut self, word: &str) -> bool {
        match self.words.split_first() {
            Some((first, rest)) if *first == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn license_expressions_follow_spdx() {
        let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("MIT/GPL-3.0", true),
            ("MIT AND GPL-3.0", false),
            ("GPL-3.0 OR ISC AND MIT", true),
            ("(GPL-3.0 OR ISC) AND MIT", true),
            ("(GPL-3.0 OR BSL-1.0) AND MIT", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0 WITH other", false),
            ("Apache-2.0", false),
            ("MIT OR", true),
            ("MIT MIT", false),
            ("(MIT", false),
            ("", false),
        ] {
            assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
        }
    }
}
