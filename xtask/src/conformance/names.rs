//! Statement numbers in the names of tests.

use std::fmt;
use std::path::Path;

/// A list of numbered statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    /// Requirements of the Elastic Agent protocol.
    Ea,
    /// Deliberate deviations from it.
    D,
    /// Requirements of the management API.
    Mg,
    /// Requirements of the endpoint agent.
    Ag,
    /// Requirements of fleetd and osquery.
    Fl,
}

impl List {
    /// All lists in the order of the page.
    pub const ALL: [Self; 5] = [Self::Ea, Self::D, Self::Mg, Self::Ag, Self::Fl];

    /// Returns the letters before its numbers.
    pub fn tag(self) -> &'static str {
        match self {
            Self::Ea => "EA",
            Self::D => "D",
            Self::Mg => "MG",
            Self::Ag => "AG",
            Self::Fl => "FL",
        }
    }
}

/// Number of a statement: EA40, D6, MG123 or AG133.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number {
    /// Its list.
    pub list: List,
    number: u16,
}

impl Number {
    /// Returns the number of a list.
    pub fn of(list: List, number: u16) -> Self {
        Self { list, number }
    }

    /// Parses `EA40`, `ea40`, `D6` or `d6`.
    pub fn parse(text: &str) -> Option<Self> {
        let upper = text.to_ascii_uppercase();
        let parsed = |list: List| Some(Self::of(list, upper.strip_prefix(list.tag())?.parse().ok()?));
        List::ALL.into_iter().find_map(parsed)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.list.tag(), self.number)
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

/// Returns the statement numbers at the beginning of a name. Rows of the list of features (`m11`) are skipped.
fn numbers(name: &str) -> Vec<Number> {
    let is_row = |word: &&str| word.strip_prefix('m').is_some_and(|digits| digits.parse::<u16>().is_ok());
    name.split('_').filter(|word| !is_row(word)).map_while(Number::parse).collect()
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
        assert_eq!(shown("mg40_m11_ea57_online"), ["MG40", "EA57"]);
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
