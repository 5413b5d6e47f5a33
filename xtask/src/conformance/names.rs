//! Statement numbers in the names of tests.

use std::fmt;
use std::path::Path;

/// Number of a statement: EA40 or D6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number {
    deviation: bool,
    number: u16,
}

impl Number {
    /// Returns EAn.
    pub fn statement(number: u16) -> Self {
        Self { deviation: false, number }
    }

    /// Returns Dn.
    pub fn deviation(number: u16) -> Self {
        Self { deviation: true, number }
    }

    /// Returns whether it is a deviation.
    pub fn is_deviation(self) -> bool {
        self.deviation
    }

    /// Parses `EA40`, `ea40`, `D6` or `d6`.
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        if let Some(digits) = lower.strip_prefix("ea") {
            return digits.parse().ok().map(Self::statement);
        }
        lower.strip_prefix('d')?.parse().ok().map(Self::deviation)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.deviation { "D" } else { "EA" }, self.number)
    }
}

/// A test whose name begins with statement numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestName {
    /// Name of the function.
    pub name: String,
    /// Path of its file.
    pub place: String,
    /// Numbers of the statements that it verifies.
    pub numbers: Vec<Number>,
}

/// Returns the numbered tests of a file. A function is a test if it has a test attribute, or if it is a public function
/// of a suite that runs on several engines.
pub fn numbered_tests(path: &Path, text: &str) -> Vec<TestName> {
    // The functions of a suite are not tests themselves; a macro calls them for each engine.
    let is_suite = path.iter().any(|part| part == "suite");
    let mut found = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            is_test |= line.contains("test");
        } else if let Some(name) = function(line) {
            let numbers = numbers(name);
            if (is_test || is_suite && line.starts_with("pub ")) && !numbers.is_empty() {
                found.push(TestName { name: name.to_owned(), place: path.display().to_string(), numbers });
            }
            is_test = false;
        } else if !line.starts_with("//") {
            is_test = false;
        }
    }
    found
}

fn function(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    rest.split(['(', '<']).next()
}

/// Returns the statement numbers at the beginning of a name. Numbers of other pages (`mg40`, `ag133`, `m11`) are
/// skipped.
fn numbers(name: &str) -> Vec<Number> {
    let is_elsewhere = |word: &&str| {
        ["mg", "ag", "m"].iter().any(|tag| word.strip_prefix(tag).is_some_and(|digits| digits.parse::<u16>().is_ok()))
    };
    // Numbers of the other reference pages may come first.
    name.split('_').skip_while(is_elsewhere).map_while(Number::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str) -> Vec<String> {
        numbers(name).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn reference_numbers_begin_a_test_name() {
        assert_eq!(shown("ea35_ea36_d6_the_key_works"), ["EA35", "EA36", "D6"]);
        assert!(shown("day_4_of_ea35").is_empty());
        assert_eq!(shown("mg40_ea57_online"), ["EA57"]);
        assert!(shown("dead_ea1").is_empty());
    }

    #[test]
    fn only_tests_count_as_verification() {
        let text = "fn ea1_helper() {}\n#[tokio::test]\n#[expect(x)]\nasync fn ea2_ok() {\n}\nfn ea3_helper() {}\n#[test]\n// why\nfn d4_ok() {}";
        let names: Vec<_> = numbered_tests(Path::new("a.rs"), text).into_iter().map(|test| test.name).collect();
        assert_eq!(names, ["ea2_ok", "d4_ok"]);
    }

    #[test]
    fn a_suite_consists_of_tests() {
        let text = "pub async fn ea75_in_order(store: &impl Store) {}\nasync fn ea76_helper() {}";
        let found = |path: &str| numbered_tests(Path::new(path), text).len();
        assert_eq!((found("crates/a/tests/suite/b.rs"), found("crates/a/src/b.rs")), (1, 0));
    }
}
