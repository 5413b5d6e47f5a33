//! The table of figures: figure, target, our value, the other value, ratio.

use std::fmt::Write as _;

/// The target of a figure.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// At least this much.
    AtLeast(f64),
    /// At most this much.
    AtMost(f64),
    /// No target.
    None,
}

/// One figure.
#[derive(Debug)]
pub struct Row {
    /// What was measured.
    pub figure: String,
    /// Unit.
    pub unit: &'static str,
    /// Target.
    pub goal: Goal,
    /// Muster's value.
    pub ours: f64,
    /// The other server's value.
    pub other: Option<f64>,
}

/// All figures.
#[derive(Debug)]
pub struct Table {
    /// Name of the other server.
    other: String,
    rows: Vec<Row>,
}

impl Table {
    /// Creates an empty table with this name for the other server.
    pub fn new(other: &str) -> Self {
        Self { other: other.to_owned(), rows: Vec::new() }
    }

    /// Adds a row and prints it immediately.
    pub fn add(&mut self, row: Row) {
        super::say(&row.line());
        self.rows.push(row);
    }

    /// Renders the table as Markdown.
    pub fn render(&self) -> String {
        let mut text = format!(
            "| figure | target | Muster | {} | ratio | |\n| --- | ---: | ---: | ---: | ---: | --- |\n",
            self.other
        );
        for row in &self.rows {
            let _ = writeln!(text, "{}", row.line());
        }
        text
    }
}

impl Row {
    fn line(&self) -> String {
        let Self { figure, unit, ours, other, .. } = self;
        let target = match self.goal {
            Goal::AtLeast(value) => format!("≥ {} {unit}", number(value)),
            Goal::AtMost(value) => format!("≤ {} {unit}", number(value)),
            Goal::None => String::new(),
        };
        // A value of 0 has no ratio.
        let ratio = other.filter(|other| *other > 0.0).map(|other| format!("{:.2}", ours / other)).unwrap_or_default();
        let other = other.map(|other| format!("{} {unit}", number(other))).unwrap_or_default();
        format!("| {figure} | {target} | {} {unit} | {other} | {ratio} | {} |", number(*ours), self.verdict())
    }

    fn verdict(&self) -> String {
        let met = match self.goal {
            Goal::AtLeast(value) => self.ours >= value,
            Goal::AtMost(value) => self.ours <= value,
            Goal::None => return String::new(),
        };
        if met { "met".to_owned() } else { "**missed**".to_owned() }
    }
}

/// Formats a number with three significant digits and thousands separators.
fn number(value: f64) -> String {
    // Three significant digits: more would suggest an accuracy that the measurements do not have.
    if value.abs() < 100.0 && value.fract() != 0.0 {
        return format!("{value:.prec$}", prec = if value.abs() < 10.0 { 2 } else { 1 });
    }
    let digits = format!("{:.0}", value.abs());
    let grouped: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group)).collect();
    format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_for_readers() {
        let shown: Vec<_> = [0.0, 1.234, 27.36, 100.5, 12345.6, 1_000_000.0, -4321.0].map(number).to_vec();
        assert_eq!(shown, ["0", "1.23", "27.4", "100", "12,346", "1,000,000", "-4,321"]);
    }

    #[test]
    fn a_row_shows_whether_its_target_is_met() {
        let row =
            Row { figure: "x".into(), unit: "/s", goal: Goal::AtLeast(2000.0), ours: 1500.0, other: Some(3000.0) };
        assert_eq!(row.line(), "| x | ≥ 2,000 /s | 1,500 /s | 3,000 /s | 0.50 | **missed** |");
        let row = Row { figure: "x".into(), unit: "ms", goal: Goal::AtMost(20.0), ours: 3.0, other: None };
        assert_eq!(row.line(), "| x | ≤ 20 ms | 3 ms |  |  | met |");
    }
}
