//! Events of servers: one was lost, or is back (MG168).

use std::collections::BTreeMap;
use std::time::Duration;

use muster_core::Error;
use muster_core::event::{EventKind, of_server};
use muster_core::time::Timestamp;
use muster_store::{FencingToken, LostNode, NodeRecord, Precondition, SettingWrite, StoreError, Write};
use serde::{Deserialize, Serialize};

use super::Alerts;
use crate::authority::System;

/// Setting with the losses of servers of which was told.
const TOLD: &str = "alerts_lost_servers";
/// Minimum microseconds between two losses of one server that are told apart. The time of a loss is known to milliseconds.
const APART: i64 = 30_000_000;
/// Time after which a loss is forgotten. The store lists losses for a day.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2 * 24 * 3600);

/// The loss of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Loss {
    at: Timestamp,
    is_back: bool,
}

/// The losses that were told of, by server.
type Told = BTreeMap<String, Loss>;

impl Alerts {
    /// Appends an event for each server that was lost or is back since the last call, once, whichever server calls.
    pub(super) async fn tell_of_servers(&self, token: FencingToken) -> Result<(), Error> {
        let everywhere = self.store.everywhere(&System);
        let lost = everywhere.lost_nodes().await?;
        if lost.is_empty() {
            return Ok(());
        }
        let before = everywhere.setting(TOLD).await?;
        // If the value cannot be read, the losses are told of again.
        let known: Told = before.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let (told, events) = news(known.clone(), &lost, &everywhere.nodes().await?, self.clock.now());
        if told == known {
            return Ok(());
        }
        let value = serde_json::to_string(&told).map_err(Error::internal)?;
        let mut writes = vec![Write::Fenced(token)];
        writes.push(SettingWrite::Swap { name: TOLD.into(), before, value }.into());
        writes.extend(events);
        match self.store.commit(&System, writes).await {
            // In the second case, another server was faster.
            Ok(_) | Err(StoreError::Conflict(Precondition::Changed(_) | Precondition::LeaseLost(_))) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the losses after telling of new ones, and the events.
fn news(mut told: Told, lost: &[LostNode], live: &[NodeRecord], now: Timestamp) -> (Told, Vec<Write>) {
    let mut events = Vec::new();
    told.retain(|_, loss| now.since(loss.at) < FORGOTTEN_AFTER);
    for node in lost {
        let (id, at) = (&node.id, now.minus(node.since));
        let mut tell = |kind| events.push(Write::Event(Box::new(of_server(kind, id, &node.name, now))));
        let is_apart = |loss: &Loss| (loss.at.as_micros() - at.as_micros()).abs() > APART;
        if told.get(id.as_str()).is_none_or(is_apart) {
            told.insert(id.to_string(), Loss { at, is_back: false });
            tell(EventKind::GatewayLost);
        }
        if let Some(loss) = told.get_mut(id.as_str()).filter(|loss| !loss.is_back)
            && live.iter().any(|node| node.id == *id)
        {
            loss.is_back = true;
            tell(EventKind::GatewayConnected);
        }
    }
    (told, events)
}

#[cfg(test)]
mod tests {
    use muster_core::id::NodeId;
    use muster_core::testing::at;

    use super::*;

    fn lost(seconds: u64) -> LostNode {
        LostNode { id: NodeId::trusted("n"), name: "one".into(), since: Duration::from_secs(seconds) }
    }

    fn live() -> NodeRecord {
        NodeRecord {
            id: NodeId::trusted("n"),
            name: "one".into(),
            version: String::new(),
            addresses: Vec::new(),
            is_draining: false,
            handled: 0,
            started_at: at(0),
            expires_at: at(0),
        }
    }

    fn kinds(events: &[Write]) -> Vec<&'static str> {
        let kind = |write: &Write| match write {
            Write::Event(event) => event.kind.as_str(),
            _ => "-",
        };
        events.iter().map(kind).collect()
    }

    #[test]
    fn each_loss_and_each_return_is_told_once() {
        let (told, events) = news(Told::default(), &[lost(5)], &[], at(100));
        assert_eq!(kinds(&events), ["gateway.lost"]);
        let (told, events) = news(told, &[lost(15)], &[], at(110));
        assert_eq!(kinds(&events), Vec::<&str>::new());
        let (told, events) = news(told, &[lost(25)], &[live()], at(120));
        assert_eq!(kinds(&events), ["gateway.connected"]);
        let (told, events) = news(told, &[lost(35)], &[live()], at(130));
        assert_eq!(kinds(&events), Vec::<&str>::new(), "it stays listed for a day");
        let (_, events) = news(told, &[lost(1)], &[live()], at(500));
        assert_eq!(kinds(&events), ["gateway.lost", "gateway.connected"], "another loss");
    }
}
