//! Measures of a source file.

use std::path::{Path, PathBuf};

use super::function::{Function, functions};
use super::repository::UNSAFE;

// Targets are lower. These limits only prevent files and functions that nobody can review.
const MAX_FILE: usize = 800;
const MAX_FUNCTION: usize = 80;

/// Measures of a file.
#[derive(Default)]
pub struct Source {
    /// Path in the repository.
    pub path: PathBuf,
    /// Lines of product code.
    pub product: usize,
    /// Lines of tests.
    pub test: usize,
    /// Number of tests.
    pub tests: usize,
    /// Lines of plain comments in product code.
    pub comments: usize,
    /// Number of public items.
    pub public: usize,
    /// Number of documented public items.
    pub documented: usize,
    /// Number of `expect` calls in product code.
    pub expects: usize,
    /// Functions of product code.
    pub functions: Vec<Function>,
    stops: Vec<String>,
}

impl Source {
    /// Returns the violations.
    pub fn stops(&self) -> Vec<String> {
        self.stops.iter().map(|stop| format!("{}: {stop}", self.path.display())).collect()
    }

    /// Measures a file. `is_test` means that it contains only tests.
    pub fn measure(path: &Path, text: &str, is_test: bool) -> Self {
        let lines: Vec<_> = text.lines().collect();
        // Everything after the inline test module counts as tests: the module is at the end of a file.
        let cut = if is_test { 0 } else { test_module(&lines) };
        let (product, test) = lines.split_at(cut);
        let mut source = Self { path: path.to_owned(), product: product.len(), test: test.len(), ..Self::default() };
        source.tests = lines.iter().filter(|line| is_test_attribute(line)).count();
        source.count(product);
        source.functions = functions(product);
        source.look_for_stops(product, &lines);
        source
    }

    fn count(&mut self, product: &[&str]) {
        for (at, line) in product.iter().enumerate() {
            let bare = line.trim_start();
            self.comments += usize::from(bare.starts_with("// "));
            self.expects += usize::from(line.contains(".expect(") && !bare.starts_with("//"));
            if is_public(bare) {
                self.public += 1;
                self.documented += usize::from(has_docs(&product[..at]) || is_documented_module(bare));
            }
        }
    }

    fn look_for_stops(&mut self, product: &[&str], all: &[&str]) {
        if product.len() > MAX_FILE && !all.iter().take(5).any(|line| line.contains("table")) {
            self.stops.push(format!(
                "{} lines, but only a file that begins with the word table may have more than {MAX_FILE}",
                product.len()
            ));
        }
        for function in self.functions.iter().filter(|function| function.lines > MAX_FUNCTION) {
            self.stops.push(format!("{} has {} lines", function.name, function.lines));
        }
        // Files of tests describe themselves by the names of their tests.
        let is_test = product.is_empty();
        if !is_test && !all.first().is_some_and(|line| line.starts_with("//!") || line.starts_with("#!")) {
            self.stops.push("the module documentation (`//!`) is missing".to_owned());
        }
        let may_be_unsafe = self.path.starts_with(UNSAFE);
        for (at, line) in all.iter().enumerate() {
            let in_product = || bad_in_product(line, may_be_unsafe).filter(|_| at < product.len());
            if let Some(why) = bad_anywhere(line).or_else(in_product) {
                self.stops.push(format!("line {}: {why}", at + 1));
            }
        }
    }
}

/// Returns the line at which the inline test module begins.
pub fn test_module(lines: &[&str]) -> usize {
    let is_start =
        |pair: &[&str]| pair[0].trim() == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].ends_with('{');
    lines.windows(2).position(is_start).unwrap_or(lines.len())
}

fn is_test_attribute(line: &str) -> bool {
    let line = line.trim_start();
    ["#[test]", "#[tokio::test", "proptest!"].iter().any(|start| line.starts_with(start))
}

fn is_public(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("pub ") else { return false };
    let rest = ["async ", "const ", "unsafe "].iter().fold(rest, |rest, word| rest.strip_prefix(word).unwrap_or(rest));
    ["fn ", "struct ", "enum ", "trait ", "type ", "static ", "mod ", "macro "]
        .iter()
        .any(|kind| rest.starts_with(kind))
}

fn has_docs(before: &[&str]) -> bool {
    let mut above = before.iter().rev().map(|line| line.trim_start());
    // Attributes may be between the documentation and the item.
    above.find(|line| !line.starts_with("#[") && !line.starts_with(')')).is_some_and(|line| line.starts_with("///"))
}

/// Returns whether a line declares a module, whose documentation is in its file.
fn is_documented_module(line: &str) -> bool {
    line.starts_with("pub mod ") && line.ends_with(';')
}

fn bad_anywhere(line: &str) -> Option<&'static str> {
    let bare = line.trim_start();
    let is_comment = bare.starts_with("//");
    // The names are split, so that this file does not violate its own rule.
    let macros = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("db", "g!(")];
    if !is_comment && macros.iter().any(|name| line.contains(name)) {
        return Some("unfinished code");
    }
    if bare.starts_with(concat!("#[ig", "nore")) {
        return Some("ignored test");
    }
    if (bare.starts_with("#[allow(") || bare.starts_with("#![allow("))
        && !line.contains("reason")
        && line.contains(")]")
    {
        return Some("lint disabled without a reason");
    }
    None
}

fn bad_in_product(line: &str, may_be_unsafe: bool) -> Option<&'static str> {
    let bare = line.trim_start();
    // Strings can contain these words, for example in messages. A line with a string is not checked, which is
    // inaccurate but sufficient.
    let is_code = !bare.starts_with("//") && !line.contains('"');
    if is_code && line.contains(".unwrap()") {
        return Some("unwrap in product code");
    }
    if !bare.starts_with("//") && has_debug_field(line) {
        return Some("a log field printed as Rust's debug format");
    }
    (is_code && !may_be_unsafe && (line.contains("unsafe {") || line.contains("unsafe fn "))).then_some("unsafe")
}

/// Returns whether a field of a log event is printed as `Some("…")` or by the name of a type. Durations may be: their
/// debug format is the readable one.
fn has_debug_field(line: &str) -> bool {
    const DURATIONS: [&str; 4] = ["held", "limit", "patience", "wait"];
    line.match_indices([' ', '(']).filter_map(|(at, _)| line[at + 1..].strip_prefix('?')).any(|rest| {
        let name: &str = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        // `?name=` in a text is the query of a URL.
        let is_field = rest[name.len()..].is_empty() || rest[name.len()..].starts_with([',', ')', '.']);
        name.starts_with(char::is_lowercase) && is_field && !DURATIONS.contains(&name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(text: &str) -> Vec<String> {
        Source::measure(Path::new("a.rs"), text, false).stops
    }

    #[test]
    fn only_tests_may_unwrap() {
        let text = "//! x\nfn a() {\n    b.unwrap();\n}\n\n#[cfg(test)]\nmod tests {\n    b.unwrap();\n}\n";
        assert_eq!(stops(text), ["line 3: unwrap in product code"]);
    }

    #[test]
    fn log_fields_are_plain_values() {
        let stops = |line: &str| stops(&format!("//! x\nfn a() {{\n    {line}\n}}\n")).len();
        assert_eq!(stops("tracing::warn!(agent = ?self.agent, \"x\");"), 1);
        assert_eq!(stops("tracing::warn!(?hosts, \"x\");"), 1);
        assert_eq!(stops("tracing::warn!(%host, ?wait, \"x\");"), 0);
        assert_eq!(stops("fn b(c: &(impl D + ?Sized)) -> E { c()?.d }"), 0);
    }

    #[test]
    fn long_functions_and_files_are_violations() {
        let long = format!("//! x\nfn a() {{\n{}}}\n", "    b();\n".repeat(81));
        assert_eq!(stops(&long), ["a has 81 lines"]);
        let long = format!("//! x\n{}", "// y\n".repeat(800));
        assert_eq!(stops(&long), ["801 lines, but only a file that begins with the word table may have more than 800"]);
        assert!(stops(&long.replacen("//! x", "//! A table of x", 1)).is_empty());
    }

    #[test]
    fn one_crate_may_contain_unsafe_code() {
        let text = "//! x\nfn a() {\n    unsafe {\n        b();\n    }\n}\n";
        assert_eq!(stops(text), ["line 3: unsafe"]);
        let place = Path::new(UNSAFE).join("src/a.rs");
        assert!(Source::measure(&place, text, false).stops.is_empty());
    }

    #[test]
    fn allow_attributes_need_a_reason() {
        assert_eq!(stops("//! x\n#[allow(clippy::all)]\nfn a() {}\n").len(), 1);
        assert!(stops("//! x\n#[allow(clippy::all, reason = \"y\")]\nfn a() {}\n").is_empty());
    }

    #[test]
    fn docs_are_found_above_attributes() {
        let source = Source::measure(
            Path::new("a.rs"),
            "//! x\n/// Y.\n#[derive(Debug)]\npub struct Y;\npub fn z() {}\npub mod w;\n",
            false,
        );
        assert_eq!((source.public, source.documented), (3, 2));
    }
}
