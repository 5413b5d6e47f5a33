//! The plan of a rollout as a form, and its drawing.

use muster_core::rollout::{Gate, Members, Plan, Wave};
use muster_core::{Error, hex};
use serde_json::json;

use crate::durations::{self, written};

/// Rows without content that a form offers.
const SPARE: usize = 1;

/// A plan as it was entered.
#[derive(Clone)]
pub struct PlanForm {
    /// The waves; empty ones do not count.
    pub waves: Vec<WaveRow>,
    /// Limits of the gate.
    pub gate: [GateRow; 5],
}

/// A wave as it was entered.
#[derive(Clone, Default)]
pub struct WaveRow {
    /// `5%`, `3 agents` or a tag.
    pub members: String,
    /// `30m`.
    pub soak: String,
    /// Whether a person approves what follows.
    pub needs_approval: bool,
}

/// A limit of the gate.
#[derive(Clone)]
pub struct GateRow {
    /// Name of the field.
    pub name: &'static str,
    /// What it limits.
    pub label: &'static str,
    /// Its value, as it was entered.
    pub value: String,
}

/// Fields of the gate, with what they limit.
const GATE: [(&str, &str); 5] = [
    ("max_unhealthy_percent", "Agents that may turn degraded or fail (%)"),
    ("max_failed_percent", "Agents that may reject the change (%)"),
    ("max_silent_percent", "Agents that may go offline after it (%)"),
    ("min_applied_percent", "Connected agents that must apply it in time (%)"),
    ("apply_within", "Time to apply it"),
];

impl PlanForm {
    /// Reads the rows of a form. Without any, the plan is the usual one.
    pub fn of_rows([members, soak, approval]: [&Vec<String>; 3], gate: [&String; 5]) -> Self {
        let usual = Gate::default();
        let defaults = [
            usual.max_unhealthy_percent.to_string(),
            usual.max_failed_percent.to_string(),
            usual.max_silent_percent.to_string(),
            usual.min_applied_percent.to_string(),
            written(usual.apply_within),
        ];
        let row = |((name, label), (value, default)): ((&'static str, &'static str), (&String, String))| GateRow {
            name,
            label,
            value: if value.is_empty() { default } else { value.clone() },
        };
        let rows: Vec<GateRow> = GATE.into_iter().zip(gate.into_iter().zip(defaults)).map(row).collect();
        let waves = members.iter().enumerate().map(|(number, members)| WaveRow {
            members: members.trim().to_owned(),
            soak: soak.get(number).cloned().unwrap_or_default(),
            needs_approval: approval.get(number).is_some_and(|word| word == "yes"),
        });
        let mut waves: Vec<WaveRow> = waves.filter(|wave| !wave.members.is_empty()).collect();
        if waves.is_empty() {
            let usual = |members: &str| WaveRow { members: members.into(), soak: "30m".into(), needs_approval: false };
            waves = ["5%", "25%", "100%"].map(usual).into();
        }
        let gate = rows.try_into().unwrap_or_else(|_| unreachable!("one row for each field"));
        Self { waves, gate }
    }

    /// The rows of the form: those that were entered, and an empty one.
    pub fn rows(&self) -> Vec<WaveRow> {
        let spare = (0..SPARE).map(|_| WaveRow { soak: "30m".into(), ..WaveRow::default() });
        self.waves.iter().cloned().chain(spare).collect()
    }

    /// Returns the plan. Errors name the field: `waves[1].soak`.
    pub fn plan(&self) -> Result<Plan, Error> {
        let waves = self.waves.iter().enumerate().map(|(number, wave)| {
            let soak = duration(&format!("waves[{number}].soak"), &wave.soak)?;
            Ok(Wave { members: Members::parse(&wave.members), soak, needs_approval: wave.needs_approval })
        });
        let waves = waves.collect::<Result<_, Error>>()?;
        let [unhealthy, failed, silent, applied, within] = &self.gate;
        let gate = Gate {
            max_unhealthy_percent: percent(unhealthy)?,
            max_failed_percent: percent(failed)?,
            max_silent_percent: percent(silent)?,
            min_applied_percent: percent(applied)?,
            apply_within: duration("gate.apply_within", &within.value)?.as_secs(),
        };
        let plan = Plan { waves, gate };
        plan.check()?;
        Ok(plan)
    }

    /// Identifies whom the waves reach, as it was entered, and what else that depends on. Times, approvals and limits are
    /// seen where they are entered.
    pub fn mark(&self, more: [&str; 2]) -> String {
        let waves: Vec<&str> = self.waves.iter().map(|wave| wave.members.as_str()).collect();
        hex::encode(&hex::sha256(json!([waves, more]).to_string().as_bytes()))
    }

    /// The flags of `muster rollout` for the plan, as far as it has flags for it.
    pub fn flags(&self) -> String {
        let waves: Vec<&str> = self.waves.iter().map(|wave| wave.members.as_str()).collect();
        let soak = self.waves.first().map(|wave| wave.soak.as_str()).unwrap_or_default();
        let approve = if self.waves.iter().any(|wave| wave.needs_approval) { " --approve" } else { "" };
        let waves = muster_core::shell::option("--waves", &waves.join(","));
        format!("{waves} {}{approve}", muster_core::shell::option("--soak", soak))
    }
}

/// Names the field of an error as the form does.
pub fn in_words(error: &Error) -> Error {
    let field = error.field.as_deref().unwrap_or_default();
    let label = match field.strip_prefix("waves[").and_then(|rest| rest.split_once(']')) {
        Some((number, rest)) => number.parse::<usize>().ok().map(|number| match rest {
            ".soak" => format!("Soak time of wave {}", number + 1),
            ".members" => format!("Agents of wave {}", number + 1),
            _ => format!("Wave {}", number + 1),
        }),
        None => {
            let is_it = |(name, _): &&(&str, &str)| field.strip_prefix("gate.") == Some(name);
            GATE.iter().find(is_it).map(|(_, label)| (*label).to_owned())
        }
    };
    let reason = error.message.strip_prefix(field).and_then(|rest| rest.strip_prefix(": "));
    match (label, reason) {
        (Some(label), Some(reason)) => Error { message: format!("{label}: {reason}"), ..error.clone() },
        _ => error.clone(),
    }
}

fn percent(row: &GateRow) -> Result<u8, Error> {
    let text = row.value.trim().trim_end_matches('%').trim_end();
    text.parse().map_err(|_| {
        Error::invalid(format!("gate.{}", row.name), format!("{:?} is not a number from 0 to 100", row.value))
    })
}

fn duration(field: &str, text: &str) -> Result<std::time::Duration, Error> {
    durations::parse(field, text).map(std::time::Duration::from_secs)
}

/// Returns whose agents a wave consists of.
pub fn members_text(members: &Members) -> String {
    match members {
        Members::Percent(percent) => format!("{percent}%"),
        Members::Count(count) => crate::policies::agents((*count).into()),
        Members::Tags(tags) => format!("tag {}", tags.join(", ")),
    }
}

/// A wave in the drawing.
pub struct DrawnWave {
    /// Its number, from 1.
    pub number: usize,
    /// Whose agents it consists of.
    pub members: String,
    /// Agents that it reaches in addition to those before.
    pub more: u64,
    /// All agents that are reached with it.
    pub reached: u64,
    /// Where its part of the bar begins, and its length, in percent.
    pub start: u64,
    /// Length of its part of the bar.
    pub length: u64,
    /// Its soak time.
    pub soak: String,
    /// Whether a person approves what follows.
    pub needs_approval: bool,
    /// Class of the color, sign and word of its state.
    pub state: (&'static str, &'static str, &'static str),
}

/// Draws the waves of a plan, which reach so many agents, each with those before. `state` is called with the number of a
/// wave.
pub fn draw(
    plan: &Plan,
    reached: &[u64],
    state: impl Fn(usize) -> (&'static str, &'static str, &'static str),
) -> Vec<DrawnWave> {
    let all = reached.iter().copied().max().unwrap_or(0).max(1);
    let share = |count: u64| count.saturating_mul(100) / all;
    let mut before = 0;
    let wave = |(number, wave): (usize, &Wave)| {
        let now = reached.get(number).copied().unwrap_or(before).max(before);
        let more = now - before;
        let (start, end) = (share(before), share(now));
        before = now;
        DrawnWave {
            number: number + 1,
            members: members_text(&wave.members),
            more,
            reached: now,
            start,
            // A wave of a few agents among many is still visible.
            length: if more == 0 { 0 } else { (end - start).max(1) },
            soak: written(wave.soak.as_secs()),
            needs_approval: wave.needs_approval,
            state: state(number),
        }
    };
    plan.waves.iter().enumerate().map(wave).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(members: &[&str], soak: &str) -> PlanForm {
        let members: Vec<String> = members.iter().map(ToString::to_string).collect();
        let soak = vec![soak.to_owned(); members.len()];
        let empty = String::new();
        PlanForm::of_rows([&members, &soak, &vec!["yes".into()]], [&empty; 5])
    }

    #[test]
    fn an_empty_form_is_the_usual_plan() {
        let usual = form(&[], "").plan().unwrap();
        assert_eq!((usual.waves.len(), usual.gate), (3, Gate::default()));
        assert_eq!(
            form(&["canary", " ", "10agents", "100%"], "1h").flags(),
            "--waves=canary,10agents,100% --soak=1h --approve"
        );
    }

    #[test]
    fn errors_of_a_plan_name_the_row() {
        let field = |form: PlanForm| form.plan().unwrap_err().field.unwrap();
        assert_eq!(field(form(&["5", "100"], "soon")), "waves[0].soak");
        assert_eq!(field(form(&["50", "20", "100"], "1m")), "waves[1].members");
        let mut wrong = form(&["100"], "1m");
        wrong.gate[1].value = "many".into();
        assert_eq!(field(wrong), "gate.max_failed_percent");
    }

    #[test]
    fn the_drawing_shows_what_each_wave_adds() {
        let plan = form(&["canary", "50", "100"], "90s").plan().unwrap();
        let drawn = draw(&plan, &[1, 500, 1_000], |_| ("", "", ""));
        let bars: Vec<_> = drawn.iter().map(|wave| (wave.more, wave.start, wave.length)).collect();
        assert_eq!(bars, [(1, 0, 1), (499, 0, 50), (500, 50, 50)]);
        assert_eq!((drawn[0].members.as_str(), drawn[0].soak.as_str()), ("tag canary", "90s"));
        // Without agents, nothing divides by zero.
        assert_eq!(draw(&plan, &[0, 0, 0], |_| ("", "", ""))[2].length, 0);
    }
}
