//! Checks citations of `docs/reference`. Each must refer to an existing section or statement.

use std::collections::BTreeSet;
use std::path::Path;

use crate::reference::{PAGES, Page};

/// Tags of numbered statements: `EA72`, `D11`, `M11`.
const ROW_TAGS: [&str; 6] = ["EA", "MG", "AG", "FL", "D", "M"];

/// All statements that can be cited.
pub struct Citations {
    rows: BTreeSet<&'static str>,
    cited: BTreeSet<String>,
}

impl Citations {
    /// Reads the reference pages.
    pub fn of_the_pages() -> Self {
        let rows = PAGES.iter().flat_map(Page::rows).map(|row| row.number).collect();
        Self { rows, cited: BTreeSet::new() }
    }

    /// Returns the invalid citations of a file, and records the valid ones.
    pub fn check(&mut self, path: &Path, text: &str) -> Vec<String> {
        // Within its own page, a section needs no prefix.
        let own = PAGES.iter().find(|page| path == Path::new(page.path));
        // Only in code do names of functions contain numbers.
        let is_code = path.extension().is_some_and(|ending| ending == "rs");
        let mut stops = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let mut stop = |what: String| stops.push(format!("{}:{}: {what}", path.display(), at + 1));
            sections(line).into_iter().filter_map(|section| section.fault(own)).for_each(&mut stop);
            let mut numbers = rows(line);
            numbers.extend(test_numbers(line).filter(|_| is_code));
            for number in numbers {
                if !self.rows.contains(number.as_str()) {
                    stop(format!("{number} is not in docs/reference: add the statement there, or correct the number"));
                } else if own.is_none() {
                    self.cited.insert(number);
                }
            }
        }
        stops
    }

    /// Returns the statements that nothing cites. They are not errors, because a page may be ahead of the code.
    pub fn uncited(&self) -> Vec<&'static str> {
        self.rows.iter().copied().filter(|row| !self.cited.contains(*row)).collect()
    }
}

/// A section sign and its target.
#[derive(Debug, PartialEq, Eq)]
struct Section<'a> {
    page: Cited<'a>,
    number: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cited<'a> {
    /// One of our pages, by its tag.
    Page(&'a str),
    /// Another document: an RFC.
    Elsewhere,
    /// No page is named.
    Bare,
}

impl Section<'_> {
    fn fault(&self, own: Option<&Page>) -> Option<String> {
        let number = self.number;
        let page = match self.page {
            Cited::Elsewhere => return None,
            Cited::Page(tag) => PAGES.iter().find(|page| page.tag == Some(tag)),
            Cited::Bare => own,
        };
        let Some(page) = page else {
            return Some(format!(
                "§{number} has no page prefix: write EA §{number}, MG §{number}, AG §{number} or FL §{number}"
            ));
        };
        let leads = page.sections().contains(number);
        (!leads).then(|| format!("{} has no section {number}", page.path))
    }
}

/// Returns the section citations in a line. The items of a list have the same page: `EA §1.4, §1.11`.
fn sections(line: &str) -> Vec<Section<'_>> {
    let mut found: Vec<Section<'_>> = Vec::new();
    let mut end_of_last = 0;
    for (at, sign) in line.match_indices('§') {
        let rest = &line[at + sign.len()..];
        let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = rest[..length].trim_end_matches('.');
        // The sign is used for something else, such as `§§`.
        if number.is_empty() {
            continue;
        }
        let between = &line[end_of_last..at];
        // After the first item of a list, the prefix is not repeated.
        let is_listed = matches!(between, ", " | " and " | " to " | "–" | "; ");
        let page = match found.last() {
            Some(last) if is_listed => last.page,
            _ => page_before(&line[..at]),
        };
        found.push(Section { page, number });
        end_of_last = at + sign.len() + number.len();
    }
    found
}

fn page_before(text: &str) -> Cited<'_> {
    let words: Vec<_> = text.trim_end_matches(['§', ' ']).rsplitn(3, [' ', '(', '`', '[']).collect();
    match words.as_slice() {
        [number, "RFC", ..] if number.bytes().all(|byte| byte.is_ascii_digit()) => Cited::Elsewhere,
        [tag, ..] if matches!(*tag, "EA" | "MG" | "AG" | "FL") && text.ends_with(' ') => Cited::Page(tag),
        _ => Cited::Bare,
    }
}

/// Returns the statement numbers in a line.
fn rows(line: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | '/' | '=' | '.');
    line.split(|c| !is_part(c))
        .map(|word| word.trim_end_matches(['.', '-', '/']))
        .filter(|word| is_number(word))
        .map(str::to_owned)
        .collect()
}

fn is_number(word: &str) -> bool {
    let digits = word.trim_start_matches(|c: char| c.is_ascii_uppercase());
    let tag = &word[..word.len() - digits.len()];
    // Other words have the same form, such as `D0` or `M1024`.
    ROW_TAGS.contains(&tag)
        && (1..=3).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0')
}

/// Returns the statement numbers at the beginning of the name of a function: `ea35_d6_the_key_works`.
fn test_numbers(line: &str) -> impl Iterator<Item = String> {
    let name = line.split_once("fn ").map_or("", |(_, rest)| rest);
    let name = &name[..name.find(['(', '<']).unwrap_or(0)];
    name.split('_').map(str::to_ascii_uppercase).take_while(|word| is_number(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> Vec<String> {
        Citations::of_the_pages().check(Path::new(path), text)
    }

    #[test]
    fn valid_citations_pass() {
        let text = "// EA §4.2, §4.4–§4.7, MG §5.4 and AG §9.1 (EA10–EA13, D11, M11; RFC 9112 §7.1, RFC 9112 §§2.2)\nfn mg40_ea57_x() {}";
        assert_eq!(faults("a.rs", text), [""; 0]);
    }

    #[test]
    fn citation_of_a_missing_section_or_statement_is_a_fault() {
        let text = "// EA §4.99\n// MG9999 is no number, but EA999 is.\nfn ea998_x() {}\n";
        let [section, row, test] = faults("a.rs", text).try_into().unwrap();
        assert_eq!(section, "a.rs:1: docs/reference/elastic-agent-protocol.md has no section 4.99");
        assert!(row.starts_with("a.rs:2: EA999 is not in docs/reference"), "{row}");
        assert!(test.starts_with("a.rs:3: EA998 is not in docs/reference"), "{test}");
    }

    #[test]
    fn section_without_a_page_is_a_fault_except_on_the_page_itself() {
        // Put together here, so that this file does not cite a section without its page.
        let bare = format!("{}4.2", '\u{a7}');
        let fault = format!("a.rs:1: {bare} has no page prefix: write EA {bare}, MG {bare}, AG {bare} or FL {bare}");
        assert_eq!(faults("a.rs", &format!("// see {bare}")), [fault]);
        assert_eq!(faults(crate::reference::PROTOCOL.path, &format!("see {bare}")), [""; 0]);
    }

    #[test]
    fn tokens_and_identifiers_are_not_citations() {
        let text = "let a = \"VuaCfGcB+EA7/x==\"; let md5 = D3_X; // sha-EA9\n";
        assert_eq!(faults("a.rs", text), [""; 0]);
    }
}
