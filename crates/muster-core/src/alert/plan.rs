//! The planner: what a receiver gets next.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::json;

use super::{Message, Progress, RETRIED_FOR, Receiver};
use crate::event::{Event, EventKind};
use crate::id::NodeId;
use crate::time::Timestamp;

/// Time after the loss of a server in which the absence of its agents has that cause: a full back-off, and the detection.
const LOSS_LASTS: Duration = Duration::from_secs(30 * 60);
/// Minimum number of agents whose simultaneous absence is taken for a failure of the network or of the server.
const MASS: u64 = 20;

/// Events after a cursor.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a> {
    /// The events with their numbers, oldest first.
    pub events: &'a [(i64, Event)],
    /// Whether there may be more.
    pub is_full: bool,
}

/// What else the planner considers.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// Servers that were lost recently, and when.
    pub lost: Vec<(NodeId, Timestamp)>,
    /// Number of agents of the space that should be connected: all but unenrolled and inactive ones.
    pub agents: u64,
}

/// Events that are not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Their numbers.
    pub covers: Vec<i64>,
    /// How many of them were given up after a day of failures.
    pub dropped: u64,
    /// How many of them a lost server explains.
    pub suppressed: u64,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing, until there are more events.
    Idle,
    /// Nothing before this time, unless there are more events.
    Wait(Timestamp),
    /// These events are not sent.
    Skip(Skipped),
    /// This message is sent.
    Send(Box<Message>),
}

impl Receiver {
    /// Decides what happens next. Events of one agent are sent in their order.
    pub fn next(&self, progress: &Progress, read: Read<'_>, around: &Around, now: Timestamp) -> Next {
        // Events that a message covered out of order are not looked at again.
        let open: Vec<&(i64, Event)> = read.events.iter().filter(|(seq, _)| progress.is_open(*seq)).collect();
        // Skipping first: it costs no request, and shortens what is left.
        let skipped = self.skipped(progress, &open, around, now);
        if !skipped.covers.is_empty() {
            return Next::Skip(skipped);
        }
        if open.is_empty() {
            return Next::Idle;
        }
        if let Some(failure) = progress.failure.as_ref().filter(|failure| failure.retry_at > now) {
            return Next::Wait(failure.retry_at);
        }
        match self.ripe(&open, read.is_full, now) {
            Ok(group) => Next::Send(Box::new(self.message(&open, &group, around))),
            Err(at) => Next::Wait(at),
        }
    }

    fn skipped(&self, progress: &Progress, open: &[&(i64, Event)], around: &Around, now: Timestamp) -> Skipped {
        let mut skipped = Skipped::default();
        for (seq, event) in open.iter().copied() {
            let is_other = event.space.as_ref().is_some_and(|space| *space != self.space);
            let is_muted = !self.is_enabled || self.muted_until.is_some_and(|until| event.at < until);
            let is_given_up = progress.failure.is_some() && now.since(event.at) > RETRIED_FOR;
            let is_explained = around.explains(event);
            // Given up only while failing: after a success, old events are sent like new ones.
            if is_other || is_muted || !self.filter.passes(event) || is_given_up || is_explained {
                let is_wanted = !is_other && !is_muted && self.filter.passes(event);
                skipped.covers.push(*seq);
                skipped.dropped += u64::from(is_wanted && is_given_up);
                skipped.suppressed += u64::from(is_wanted && is_explained);
            }
        }
        skipped
    }

    /// Returns the events of the kind that is due first, or the time at which one is due.
    fn ripe<'e>(
        &self,
        open: &[&'e (i64, Event)],
        is_full: bool,
        now: Timestamp,
    ) -> Result<Vec<&'e (i64, Event)>, Timestamp> {
        let mut groups: BTreeMap<EventKind, Vec<&(i64, Event)>> = BTreeMap::new();
        for entry in open.iter().copied() {
            groups.entry(entry.1.kind).or_default().push(entry);
        }
        let due = |group: &[&(i64, Event)]| {
            let first = group.first().map_or(now, |(_, event)| event.at);
            let is_held = group.first().is_some_and(|(_, event)| event.kind.is_held());
            // If more events follow than are read at once, waiting would not make the digest larger.
            if is_held && !is_full { first.plus(self.digest.window) } else { now.min(first) }
        };
        let (ripe, held): (Vec<_>, Vec<_>) = groups.into_values().partition(|group| due(group) <= now);
        // The oldest kind first, by number, because times of several servers can differ slightly.
        let first = ripe.into_iter().min_by_key(|group| group.first().map(|(seq, _)| *seq));
        first.ok_or_else(|| held.iter().map(|group| due(group)).min().unwrap_or(now))
    }

    fn message(&self, open: &[&(i64, Event)], group: &[&(i64, Event)], around: &Around) -> Message {
        let kind = group[0].1.kind;
        // The other events of these subjects wait, so that "offline" never arrives after "online".
        let free = free(open, group, kind);
        let is_mass = kind == EventKind::AgentOffline && around.is_mass(free.len() as u64);
        if (is_mass || free.len() >= self.digest.threshold as usize)
            && let Some(digest) = Message::digest(self, &free)
        {
            if !is_mass {
                return digest;
            }
            let detail = json!({"cause": "most agents went offline at once", "agents": around.agents});
            return Message { kind: EventKind::GatewayLost, detail, ..digest };
        }
        let same = |entry: &&&(i64, Event)| entry.1.subject.id == group[0].1.subject.id;
        Message::of(self, open.iter().find(same).unwrap_or(&group[0]))
    }
}

/// Returns the events of the group that no earlier event of another kind precedes for the same subject.
fn free<'e>(open: &[&'e (i64, Event)], group: &[&'e (i64, Event)], kind: EventKind) -> Vec<&'e (i64, Event)> {
    let mut others: HashMap<&str, i64> = HashMap::new();
    for (seq, event) in open.iter().filter(|(_, event)| event.kind != kind) {
        others.entry(&event.subject.id).or_insert(*seq);
    }
    let is_free = |entry: &&&(i64, Event)| others.get(entry.1.subject.id.as_str()).is_none_or(|seq| *seq > entry.0);
    group.iter().filter(is_free).copied().collect()
}

impl Around {
    /// Returns whether the absence of an agent is that of its server (MG168).
    fn explains(&self, event: &Event) -> bool {
        event.kind == EventKind::AgentOffline
            // Only within the time in which the agents find another server.
            && self.lost.iter().any(|(server, at)| {
                event.subject.server.as_ref() == Some(server) && event.at >= *at && event.at.since(*at) <= LOSS_LASTS
            })
    }

    /// Returns whether so many agents are away that the cause can't be the agents.
    fn is_mass(&self, away: u64) -> bool {
        away >= MASS && away * 2 >= self.agents
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Digest, Filter, Target};
    use crate::event::Subject;
    use crate::id::{AlertReceiverId, PolicyId, SecretId, SpaceId};
    use crate::testing::at;

    fn receiver() -> Receiver {
        Receiver {
            id: AlertReceiverId::trusted("r"),
            space: SpaceId::default(),
            name: "r".into(),
            target: Target::Webhook { url: "https://x".into(), secret: SecretId::trusted("s"), ca: None },
            filter: Filter::default(),
            digest: Digest::default(),
            is_enabled: true,
            muted_until: None,
            version: 1,
            created_at: at(0),
            created_by: "local:root".into(),
            updated_at: at(0),
        }
    }

    fn event(seq: i64, kind: EventKind, agent: &str, second: u64) -> (i64, Event) {
        let subject = Subject { kind: "agent".into(), id: agent.into(), name: agent.into(), ..Subject::default() };
        let space = Some(SpaceId::default());
        (seq, Event { at: at(second), kind, space, subject, before: None, after: None, detail: json!({}) })
    }

    /// Everything that is sent until `until`, with the time of each message.
    fn run(receiver: &Receiver, events: &[(i64, Event)], around: &Around, until: u64) -> Vec<(u64, Message)> {
        let (mut progress, mut sent) = (Progress::default(), Vec::new());
        for second in 0..=until {
            let now = at(second);
            let happened: Vec<_> = events.iter().filter(|(_, event)| event.at <= now).cloned().collect();
            loop {
                let read = Read { events: &happened, is_full: false };
                match receiver.next(&progress, read, around, now) {
                    Next::Idle | Next::Wait(_) => break,
                    Next::Skip(skipped) => progress.skipped(&skipped, &happened),
                    Next::Send(message) => {
                        progress.delivered(&message, &happened, now);
                        sent.push((second, *message));
                    }
                }
            }
        }
        assert_eq!(progress.done.len(), 0, "the cursor has passed everything");
        sent
    }

    fn told(sent: &[(u64, Message)]) -> Vec<(u64, &str, usize)> {
        sent.iter().map(|(second, message)| (*second, message.kind.as_str(), message.covers.len())).collect()
    }

    #[test]
    fn mg167_five_hundred_agents_offline_within_a_minute_are_one_digest() {
        let events: Vec<_> =
            (0..500).map(|n| event(n + 1, EventKind::AgentOffline, &format!("a{n}"), n as u64 / 10)).collect();
        let around = Around { agents: 5000, ..Around::default() };
        let sent = run(&receiver(), &events, &around, 300);
        assert_eq!(told(&sent), [(60, "agent.offline", 500)]);
        let json = sent[0].1.to_json();
        assert_eq!(
            (&json["digest"]["count"], json["digest"]["subjects"].as_array().unwrap().len()),
            (&json!(500), 100)
        );
        assert!(json.to_string().len() < 64 << 10);
    }

    #[test]
    fn few_events_are_sent_one_by_one_after_the_window() {
        let events: Vec<_> =
            (0..3).map(|n| event(n + 1, EventKind::AgentOffline, &format!("a{n}"), 10 + n as u64)).collect();
        let around = Around { agents: 3, ..Around::default() };
        let expected = [(70, "agent.offline", 1), (71, "agent.offline", 1), (72, "agent.offline", 1)];
        assert_eq!(told(&run(&receiver(), &events, &around, 300)), expected);
    }

    #[test]
    fn mg166_a_departure_is_sent_at_once_and_never_before_an_earlier_event_of_its_agent() {
        let events = [
            event(1, EventKind::AgentDegraded, "a", 10),
            event(2, EventKind::AgentDegraded, "b", 11),
            event(3, EventKind::AgentUninstalled, "a", 20),
        ];
        let sent = run(&receiver(), &events, &Around::default(), 300);
        assert_eq!(told(&sent), [(20, "agent.degraded", 1), (20, "agent.uninstalled", 1), (71, "agent.degraded", 1)]);
    }

    #[test]
    fn mg168_agents_of_a_lost_server_are_not_told_of() {
        let mut events = vec![event(1, EventKind::GatewayLost, "node", 0)];
        for n in 0..10 {
            let (seq, mut offline) = event(n + 2, EventKind::AgentOffline, &format!("a{n}"), 900);
            offline.subject.server = Some(NodeId::trusted("node"));
            events.push((seq, offline));
        }
        let around = Around { lost: vec![(NodeId::trusted("node"), at(0))], agents: 5000 };
        assert_eq!(told(&run(&receiver(), &events, &around, 2000)), [(0, "gateway.lost", 1)]);
    }

    #[test]
    fn mg168_most_agents_offline_at_once_are_one_alert_about_the_network() {
        let events: Vec<_> = (0..60).map(|n| event(n + 1, EventKind::AgentOffline, &format!("a{n}"), 10)).collect();
        let around = Around { agents: 100, ..Around::default() };
        let sent = run(&receiver(), &events, &around, 300);
        assert_eq!(told(&sent), [(70, "gateway.lost", 60)]);
        assert_eq!(sent[0].1.detail["agents"], 100);
    }

    #[test]
    fn filters_muting_and_other_spaces_skip_events() {
        let mut of_other = event(1, EventKind::AgentError, "a", 1);
        of_other.1.space = Some(SpaceId::trusted("other"));
        let mut tagged = event(2, EventKind::AgentUninstalled, "b", 2);
        tagged.1.subject.tags = vec!["maintenance".into()];
        let mut on_policy = event(3, EventKind::AgentUninstalled, "c", 3);
        on_policy.1.subject.policy_id = Some(PolicyId::trusted("p"));
        let events = [of_other, tagged, on_policy, event(4, EventKind::AgentUninstalled, "d", 100)];
        let around = Around::default();
        let except = Filter { except_tags: vec!["maintenance".into()], ..Filter::default() };
        assert_eq!(run(&Receiver { filter: except, ..receiver() }, &events, &around, 200).len(), 2);
        let of_policy = Filter { policies: vec![PolicyId::trusted("p")], ..Filter::default() };
        assert_eq!(told(&run(&Receiver { filter: of_policy, ..receiver() }, &events, &around, 200))[0].0, 3);
        let of_kind = Filter { events: vec![EventKind::AgentOffline], ..Filter::default() };
        assert!(run(&Receiver { filter: of_kind, ..receiver() }, &events, &around, 200).is_empty());
        let muted = Receiver { muted_until: Some(at(50)), ..receiver() };
        assert_eq!(told(&run(&muted, &events, &around, 200)), [(100, "agent.uninstalled", 1)]);
    }

    #[test]
    fn pauses_double_up_to_a_quarter_of_an_hour_and_events_are_given_up_after_a_day() {
        let mut progress = Progress::default();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            progress.failed("500".into(), at(0));
            pauses.push(progress.failure.as_ref().unwrap().retry_at.since(at(0)).as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 900]);
        let events = [event(1, EventKind::AgentUninstalled, "a", 0)];
        let read = Read { events: &events, is_full: false };
        let day = 24 * 3600;
        assert!(matches!(receiver().next(&progress, read, &Around::default(), at(day)), Next::Send(_)));
        let Next::Skip(skipped) = receiver().next(&progress, read, &Around::default(), at(day + 1)) else { panic!() };
        assert_eq!((skipped.dropped, skipped.covers), (1, vec![1]));
        let fresh = receiver().next(&Progress::default(), read, &Around::default(), at(day + 1));
        assert!(matches!(fresh, Next::Send(_)), "a server that was away for a day still tries once");
    }
}
