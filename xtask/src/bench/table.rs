//! The table of figures: figure, and for each engine our value, its target and the verdict; the other server's value, and the ratio.

use std::fmt::Write as _;

use clap::ValueEnum;

/// The engine of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// The embedded database
    Sqlite,
    /// A PostgreSQL server on the same machine
    Postgres,
}

impl Engine {
    /// Returns the name for directories.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }

    /// Returns the name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

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

/// The targets of a figure on each engine.
#[derive(Clone, Copy, Debug)]
pub struct Goals {
    sqlite: Goal,
    postgres: Goal,
}

impl Goals {
    /// No targets.
    pub const NONE: Self = Self { sqlite: Goal::None, postgres: Goal::None };

    /// Targets on both engines.
    pub const fn new(sqlite: Goal, postgres: Goal) -> Self {
        Self { sqlite, postgres }
    }

    /// A target on SQLite only.
    pub const fn sqlite(goal: Goal) -> Self {
        Self { sqlite: goal, postgres: Goal::None }
    }

    fn of(self, engine: Engine) -> Goal {
        match engine {
            Engine::Sqlite => self.sqlite,
            Engine::Postgres => self.postgres,
        }
    }
}

/// One figure on one engine.
#[derive(Debug)]
pub struct Row {
    /// What was measured.
    pub figure: String,
    /// Unit.
    pub unit: &'static str,
    /// Targets.
    pub goals: Goals,
    /// Muster's value.
    pub ours: f64,
    /// The other server's value.
    pub other: Option<f64>,
}

/// A value with its target.
#[derive(Clone, Copy, Debug)]
struct Measured {
    value: f64,
    goal: Goal,
}

/// A line of the table.
#[derive(Debug)]
struct Line {
    figure: String,
    unit: &'static str,
    sqlite: Option<Measured>,
    postgres: Option<Measured>,
    other: Option<f64>,
}

/// All figures.
#[derive(Debug)]
pub struct Table {
    /// Name of the other server.
    other: String,
    lines: Vec<Line>,
}

impl Table {
    /// Creates an empty table with this name for the other server.
    pub fn new(other: &str) -> Self {
        Self { other: other.to_owned(), lines: Vec::new() }
    }

    /// Adds a figure of an engine and prints it immediately. The engines share the line of a figure.
    pub fn add(&mut self, engine: Engine, row: Row) {
        let measured = Some(Measured { value: row.ours, goal: row.goals.of(engine) });
        let at = self.lines.iter().position(|line| line.figure == row.figure).unwrap_or_else(|| {
            let Row { figure, unit, .. } = row;
            self.lines.push(Line { figure, unit, sqlite: None, postgres: None, other: None });
            self.lines.len() - 1
        });
        let line = &mut self.lines[at];
        match engine {
            Engine::Sqlite => line.sqlite = measured,
            Engine::Postgres => line.postgres = measured,
        }
        // The other server does not depend on the engine.
        line.other = line.other.or(row.other);
        super::say(&line.render());
    }

    /// Adds the name of the other agent to the head: in the rows of muster-agent, the other value is that of this agent.
    pub fn name_other_agent(&mut self, name: &str) {
        self.other = format!("{}; of muster-agent: {name}", self.other);
    }

    /// Renders the table as Markdown.
    pub fn render(&self) -> String {
        let mut text = format!(
            "| figure | SQLite | target | | PostgreSQL | target | | {} | ratio |\n\
             | --- | ---: | ---: | --- | ---: | ---: | --- | ---: | ---: |\n",
            self.other
        );
        for line in &self.lines {
            let _ = writeln!(text, "{}", line.render());
        }
        text
    }
}

impl Line {
    fn render(&self) -> String {
        let Self { figure, unit, other, .. } = self;
        let [sqlite, postgres] = [self.sqlite, self.postgres].map(|measured| cells(measured, unit));
        // The ratio compares the first engine. A value of 0 has no ratio.
        let ours = self.sqlite.or(self.postgres).map(|measured| measured.value);
        let ratio = ours.zip(other.filter(|other| *other > 0.0));
        let ratio = ratio.map(|(ours, other)| format!("{:.2}", ours / other)).unwrap_or_default();
        let other = other.map(|other| format!("{} {unit}", number(other))).unwrap_or_default();
        format!("| {figure} | {sqlite} | {postgres} | {other} | {ratio} |")
    }
}

/// Renders value, target and verdict.
fn cells(measured: Option<Measured>, unit: &str) -> String {
    let Some(measured) = measured else { return "| |".to_owned() };
    let target = match measured.goal {
        Goal::AtLeast(value) => format!("≥ {} {unit}", number(value)),
        Goal::AtMost(value) => format!("≤ {} {unit}", number(value)),
        Goal::None => String::new(),
    };
    format!("{} {unit} | {target} | {}", number(measured.value), measured.verdict())
}

impl Measured {
    fn verdict(self) -> &'static str {
        let is_met = match self.goal {
            Goal::AtLeast(target) => self.value >= target,
            Goal::AtMost(target) => self.value <= target,
            Goal::None => return "",
        };
        if is_met { "met" } else { "**missed**" }
    }
}

/// Formats a number with three significant digits and thousands separators.
pub fn number(value: f64) -> String {
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
    fn a_line_shows_for_each_engine_whether_its_target_is_met() {
        let mut table = Table::new("other");
        let goals = Goals::new(Goal::AtLeast(2000.0), Goal::AtLeast(1000.0));
        let row = |ours, other| Row { figure: "x".into(), unit: "/s", goals, ours, other };
        table.add(Engine::Sqlite, row(1500.0, Some(3000.0)));
        table.add(Engine::Postgres, row(1200.0, None));
        let expected = "| x | 1,500 /s | ≥ 2,000 /s | **missed** | 1,200 /s | ≥ 1,000 /s | met | 3,000 /s | 0.50 |";
        assert_eq!(table.lines[0].render(), expected);
    }

    #[test]
    fn a_figure_of_one_engine_leaves_the_cells_of_the_other_empty() {
        let mut table = Table::new("other");
        let goals = Goals::new(Goal::None, Goal::AtMost(1.0));
        table.add(Engine::Postgres, Row { figure: "y".into(), unit: "s", goals, ours: 3.0, other: None });
        assert_eq!(table.lines[0].render(), "| y | | | | 3 s | ≤ 1 s | **missed** |  |  |");
    }
}
