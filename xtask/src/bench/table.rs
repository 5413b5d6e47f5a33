//! The one table: figure, target, ours, the other, ratio.

use std::fmt::Write as _;

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// The more the better.
    AtLeast(f64),
    /// The less the better.
    AtMost(f64),
    /// Told for its own sake.
    None,
}

/// One figure.
#[derive(Debug)]
pub struct Row {
    /// What was measured.
    pub figure: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What it should be.
    pub goal: Goal,
    /// What it is.
    pub ours: f64,
    /// What the other server has.
    pub other: Option<f64>,
}

/// All figures.
#[derive(Debug, Default)]
pub struct Table(Vec<Row>);

impl Table {
    /// One more; it is told at once as well.
    pub fn add(&mut self, row: Row) {
        super::say(&row.line());
        self.0.push(row);
    }

    /// In Markdown.
    pub fn render(&self) -> String {
        let mut text = String::from(
            "| figure | target | Muster | bare Go | ratio | |\n| --- | ---: | ---: | ---: | ---: | --- |\n",
        );
        for row in &self.0 {
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

/// Three digits that count, and thousands set apart.
fn number(value: f64) -> String {
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
    fn numbers_read_well() {
        let shown: Vec<_> = [0.0, 1.234, 27.36, 100.5, 12345.6, 1_000_000.0, -4321.0].map(number).to_vec();
        assert_eq!(shown, ["0", "1.23", "27.4", "100", "12,346", "1,000,000", "-4,321"]);
    }

    #[test]
    fn a_row_says_whether_its_goal_is_met() {
        let row = Row { figure: "x", unit: "/s", goal: Goal::AtLeast(2000.0), ours: 1500.0, other: Some(3000.0) };
        assert_eq!(row.line(), "| x | ≥ 2,000 /s | 1,500 /s | 3,000 /s | 0.50 | **missed** |");
        let row = Row { figure: "x", unit: "ms", goal: Goal::AtMost(20.0), ours: 3.0, other: None };
        assert_eq!(row.line(), "| x | ≤ 20 ms | 3 ms |  |  | met |");
    }
}
