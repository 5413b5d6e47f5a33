//! The pages under `docs/reference` and their numbers.

use std::collections::BTreeSet;

/// A page with numbered statements.
pub struct Page {
    /// Tag of its sections in citations: `EA` in `EA §4.2`. `None` for a page without sections.
    pub tag: Option<&'static str>,
    /// Path in the repository.
    pub path: &'static str,
    /// Its Markdown.
    pub text: &'static str,
}

/// The page of the Elastic Agent protocol, whose statements `docs/conformance.md` lists.
pub const PROTOCOL: Page = Page {
    tag: Some("EA"),
    path: "docs/reference/elastic-agent-protocol.md",
    text: include_str!("../../docs/reference/elastic-agent-protocol.md"),
};

/// All pages.
pub const PAGES: [Page; 5] = [
    PROTOCOL,
    Page {
        tag: Some("MG"),
        path: "docs/reference/management-api.md",
        text: include_str!("../../docs/reference/management-api.md"),
    },
    Page { tag: Some("AG"), path: "docs/reference/agent.md", text: include_str!("../../docs/reference/agent.md") },
    Page { tag: Some("FL"), path: "docs/reference/fleetd.md", text: include_str!("../../docs/reference/fleetd.md") },
    Page {
        tag: None,
        path: "docs/reference/requirements.md",
        text: include_str!("../../docs/reference/requirements.md"),
    },
];

/// A numbered statement of a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// `EA72`.
    pub number: &'a str,
    /// Text in Markdown.
    pub text: &'a str,
}

impl Page {
    /// Returns the numbered statements in order.
    ///
    /// A statement is a list item whose anchor is its number: `* <a id="ea72"></a>**EA72** must …`.
    pub fn rows(&self) -> impl Iterator<Item = Row<'static>> {
        self.text.lines().filter_map(row)
    }

    /// Returns the numbers of the sections: `4.2`.
    pub fn sections(&self) -> BTreeSet<&'static str> {
        self.text.lines().filter_map(section).collect()
    }
}

fn row(line: &str) -> Option<Row<'_>> {
    let (anchor, rest) = line.strip_prefix("* <a id=\"")?.split_once("\"></a>**")?;
    let (number, text) = rest.split_once("** ")?;
    // An anchor that differs from its number would lead to another statement.
    (anchor == number.to_ascii_lowercase()).then_some(Row { number, text })
}

fn section(line: &str) -> Option<&str> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').trim_start();
    let number = title.split(' ').next()?.trim_end_matches('.');
    number.starts_with(|first: char| first.is_ascii_digit()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_is_a_list_item_with_its_anchor() {
        let line = "* <a id=\"ea7\"></a>**EA7** must answer 400";
        assert_eq!(row(line), Some(Row { number: "EA7", text: "must answer 400" }));
        assert_eq!(row("* <a id=\"ea8\"></a>**EA7** must answer 400"), None);
        assert_eq!(row("* EA7 must answer 400"), None);
    }

    #[test]
    fn section_numbers_come_from_headings() {
        let lines = ["# Title", "## 4. Checkin", "#### 1.2.1 `GET /agents`", "4.2 text"];
        assert_eq!(lines.map(section), [None, Some("4"), Some("1.2.1"), None]);
    }

    #[test]
    fn numbers_are_unique() {
        let mut seen = BTreeSet::new();
        for row in PAGES.iter().flat_map(Page::rows) {
            assert!(seen.insert(row.number), "{}", row.number);
        }
        assert!(seen.len() > 300, "{}", seen.len());
    }
}
