//! The statements of the reference pages.

use super::names::Number;
use crate::reference::{PAGES, Page};

/// Statement.
pub struct Statement {
    /// Its number.
    pub number: Number,
    /// File name of its page in `docs/reference`.
    pub page: &'static str,
    /// Text in Markdown.
    pub text: String,
}

/// Returns all of them: EA1–EA147, D1–D24, MG1–MG191, and those about the agent that are on its page.
pub fn all() -> Vec<Statement> {
    let mut found: Vec<Statement> = PAGES.iter().flat_map(of_page).collect();
    found.sort_by_key(|statement| statement.number);
    found
}

fn of_page(page: &Page) -> impl Iterator<Item = Statement> {
    let (tag, path) = (page.tag, page.path);
    page.rows().filter_map(move |row| {
        // A section needs no tag only on its own page.
        let text = row.text.replace('§', &format!("{} §", tag?));
        Some(Statement { number: Number::parse(row.number)?, page: path.strip_prefix("docs/")?, text })
    })
}

#[cfg(test)]
mod tests {
    use super::super::names::List;
    use super::*;

    #[test]
    fn no_statement_is_missing() {
        let numbers: Vec<_> = all().iter().map(|statement| statement.number).collect();
        for (list, last) in [(List::Ea, 147), (List::D, 24), (List::Mg, 191)] {
            let of_list: Vec<_> = numbers.iter().copied().filter(|number| number.list == list).collect();
            assert_eq!(of_list, (1..=last).map(|number| Number::of(list, number)).collect::<Vec<_>>());
        }
    }
}
