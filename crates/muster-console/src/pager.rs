//! Pages of a list: where a page is in the list, and the links to the pages beside it.

use crate::text::grouped;

/// The place of a page in its list.
#[derive(Default)]
pub struct Pager {
    /// Link to the previous page; empty on the first one.
    pub previous: String,
    /// Link to the next page; empty on the last one.
    pub next: String,
    /// Number of rows in front of the page; `None` if it is unknown.
    pub from: Option<u64>,
    /// Number of rows of the list.
    pub total: u64,
}

/// What is beside a page of a list that is read with cursors.
pub struct Beside {
    /// Whether there is a previous page.
    pub has_previous: bool,
    /// Whether there is a next page.
    pub has_next: bool,
    /// Number of rows in front of the page, as its link says.
    pub from: u64,
    /// Number of rows of a page.
    pub size: u64,
}

impl Pager {
    /// Returns the place of a page of a list whose pages have numbers, beginning with 0, and `rows` rows each.
    pub fn numbered(number: u32, rows: u32, total: u64, link: impl Fn(u32) -> String) -> Self {
        let from = u64::from(number) * u64::from(rows);
        let is_last = from + u64::from(rows) >= total;
        Self {
            previous: number.checked_sub(1).map(&link).unwrap_or_default(),
            next: if is_last { String::new() } else { link(number.saturating_add(1)) },
            from: Some(from),
            total,
        }
    }

    /// Returns the place of a page of a list that is read with cursors. `link` makes the link to the rows `before` or `after` a row, with
    /// this number of rows in front of them.
    pub fn between<R>(page: &Beside, rows: &[R], total: u64, link: impl Fn(&str, &R, u64) -> String) -> Self {
        let Beside { has_previous, has_next, from, size } = *page;
        let from = if has_previous { from } else { 0 };
        let previous = rows.first().filter(|_| has_previous);
        let next = rows.last().filter(|_| has_next);
        Self {
            previous: previous.map(|row| link("before", row, from.saturating_sub(size))).unwrap_or_default(),
            next: next.map(|row| link("after", row, from.saturating_add(size))).unwrap_or_default(),
            // A link without the number was not made here.
            from: (from > 0 || !has_previous).then_some(from),
            total,
        }
    }

    /// Returns the caption of the table, such as `130 keys`, or `51–100 of 130 keys` if these are not all of them. `shown` is the number
    /// of rows on the page.
    pub fn caption(&self, shown: usize, one: &str, several: &str) -> String {
        let what = format!("{} {}", grouped(self.total), if self.total == 1 { one } else { several });
        let shown = u64::try_from(shown).unwrap_or(u64::MAX);
        match self.from.and_then(|from| Some((from, from.checked_add(shown)?))) {
            // What is counted and what is listed can differ for a moment, and anybody can write a link.
            Some((from, last)) if shown > 0 && shown < self.total && last <= self.total => {
                format!("{}–{} of {what}", grouped(from + 1), grouped(last))
            }
            _ => what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_between_cursors_is_reached_from_both_sides() {
        let page = |has_previous, has_next, from| Beside { has_previous, has_next, from, size: 50 };
        let link = |side: &str, row: &u8, from: u64| format!("{side} {row} {from}");
        let of = |page: Beside| Pager::between(&page, &[1, 9], 130, link);
        let middle = of(page(true, true, 50));
        assert_eq!((middle.previous.as_str(), middle.next.as_str()), ("before 1 0", "after 9 100"));
        assert_eq!(middle.caption(2, "agent", "agents"), "51–52 of 130 agents");
        let first = of(page(false, true, 7));
        assert_eq!((first.previous.as_str(), first.next.as_str(), first.from), ("", "after 9 50", Some(0)));
        assert_eq!(of(page(true, false, 0)).from, None);
    }

    #[test]
    fn a_page_has_links_to_those_beside_it_and_tells_its_place() {
        let page = |number| Pager::numbered(number, 50, 1_130, |number| number.to_string());
        let (first, last) = (page(0), page(22));
        assert_eq!((first.previous.as_str(), first.next.as_str()), ("", "1"));
        assert_eq!((last.previous.as_str(), last.next.as_str()), ("21", ""));
        assert_eq!(last.caption(30, "key", "keys"), "1,101–1,130 of 1,130 keys");
        assert_eq!(page(u32::MAX).caption(0, "key", "keys"), "1,130 keys");
        assert_eq!(Pager::numbered(0, 50, 1, |_| String::new()).caption(1, "key", "keys"), "1 key");
        let unknown = Pager { from: Some(u64::MAX), ..page(1) };
        assert_eq!(unknown.caption(50, "key", "keys"), "1,130 keys");
    }
}
