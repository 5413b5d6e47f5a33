//! Splits and joins check-ins that are larger than one message (AG §5.4).

use prost::Message;
use prost_types::Timestamp;

use super::messages::{CheckinExpected, CheckinObserved, UnitExpected};

/// Allowance for the length prefix of a unit.
const PREFIX: usize = 16;
/// Maximum number of units of a check-in that a component may send.
const UNITS_MAX: usize = 1024;

/// A unit that does not fit into a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration of the unit {id} has {size} bytes, which exceeds the maximum of a message")]
pub struct TooLarge {
    id: String,
    size: usize,
}

/// Splits a check-in into messages of at most `max` bytes: the common fields and the smallest units first, at the end a
/// message without units.
pub fn split(whole: CheckinExpected, max: usize, stamp: Timestamp) -> Result<Vec<CheckinExpected>, TooLarge> {
    if whole.encoded_len() <= max {
        return Ok(vec![whole]);
    }
    let mut first = whole;
    let mut units = std::mem::take(&mut first.units);
    units.sort_by_key(Message::encoded_len);
    first.units_timestamp = Some(stamp);
    let empty = || CheckinExpected { units_timestamp: Some(stamp), ..CheckinExpected::default() };
    let mut parts = vec![first];
    for unit in units {
        let fits =
            |part: &CheckinExpected, unit: &UnitExpected| part.encoded_len() + unit.encoded_len() + PREFIX <= max;
        if !parts.last().is_some_and(|part| fits(part, &unit)) {
            parts.push(empty());
        }
        let part = parts.last_mut().filter(|part| fits(part, &unit));
        let part = part.ok_or_else(|| TooLarge { id: unit.id.clone(), size: unit.encoded_len() })?;
        part.units.push(unit);
    }
    parts.push(empty());
    Ok(parts)
}

/// Joins the parts of check-ins.
#[derive(Debug, Default)]
pub struct Joiner {
    parts: Option<CheckinObserved>,
}

impl Joiner {
    /// Adds a message. Returns the check-in when it is complete.
    pub fn add(&mut self, message: CheckinObserved) -> Result<Option<CheckinObserved>, TooMany> {
        let Some(stamp) = message.units_timestamp else {
            // A whole check-in also replaces one that was never completed.
            self.parts = None;
            return check(message).map(Some);
        };
        let is_last = message.units.is_empty();
        match &mut self.parts {
            Some(whole) if whole.units_timestamp == Some(stamp) => whole.units.extend(message.units),
            // A newer check-in replaces one that was never completed.
            other => *other = Some(message),
        }
        let whole = self.parts.take().map(check).transpose()?;
        if is_last {
            return Ok(whole);
        }
        self.parts = whole;
        Ok(None)
    }
}

/// A check-in with too many units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a check-in has more than {UNITS_MAX} units")]
pub struct TooMany;

fn check(message: CheckinObserved) -> Result<CheckinObserved, TooMany> {
    if message.units.len() > UNITS_MAX { Err(TooMany) } else { Ok(message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::UnitObserved;

    fn unit(id: usize, size: usize) -> UnitExpected {
        UnitExpected { id: format!("{id}-{}", "x".repeat(size)), ..UnitExpected::default() }
    }

    const STAMP: Timestamp = Timestamp { seconds: 7, nanos: 1 };

    #[test]
    fn ag71_a_large_check_in_is_split_and_joined_identically() {
        let units: Vec<_> = (0..40).map(|id| unit(id, 1000 - id * 20)).collect();
        let whole = CheckinExpected { units: units.clone(), features_idx: 3, ..CheckinExpected::default() };
        let parts = split(whole.clone(), 3000, STAMP).unwrap();
        assert!(parts.len() > 3 && parts.iter().all(|part| part.encoded_len() <= 3000));
        assert!(parts.iter().all(|part| part.units_timestamp == Some(STAMP)));
        assert!(parts.last().unwrap().units.is_empty() && parts[0].features_idx == 3);
        let mut joined: Vec<_> = parts.into_iter().flat_map(|part| part.units).collect();
        joined.sort_by_key(|unit| std::cmp::Reverse(unit.encoded_len()));
        assert_eq!(joined, units);
        assert_eq!(split(whole.clone(), 1 << 20, STAMP).unwrap(), [whole]);
        let large = CheckinExpected { units: vec![unit(1, 4000)], ..CheckinExpected::default() };
        assert_eq!(split(large, 3000, STAMP).unwrap_err().size, 4005);
    }

    #[test]
    fn the_parts_of_a_check_in_are_joined_by_their_timestamp() {
        let part = |stamp: i64, ids: &[&str]| CheckinObserved {
            units: ids.iter().map(|id| UnitObserved { id: (*id).into(), ..UnitObserved::default() }).collect(),
            units_timestamp: (stamp > 0).then_some(Timestamp { seconds: stamp, nanos: 0 }),
            ..CheckinObserved::default()
        };
        let mut joiner = Joiner::default();
        assert_eq!(joiner.add(part(1, &["lost"])), Ok(None));
        assert_eq!(joiner.add(part(2, &["a"])), Ok(None));
        assert_eq!(joiner.add(part(2, &["b", "c"])), Ok(None));
        let whole = joiner.add(part(2, &[])).unwrap().unwrap();
        assert_eq!(whole.units.iter().map(|unit| unit.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(joiner.add(part(0, &["d"])).unwrap().unwrap().units.len(), 1);
        // A component cannot make the agent collect parts without end.
        let many = vec!["x"; 600];
        assert_eq!(joiner.add(part(3, &many)), Ok(None));
        assert_eq!(joiner.add(part(3, &many)), Err(TooMany));
    }
}
