//! Actions for the agent that components receive, too (`proxied_actions` of their specifications).

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{InputAction, ProxiedAction};
use crate::backoff::Backoff;
use crate::entropy::System;
use crate::model::{Direction, Work};
use crate::protocol::line::Line;

/// Total time for a component to take an action (AG §9.2).
const LIMIT: Duration = Duration::from_secs(40);
/// First and maximum delay between two attempts.
const DELAYS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];

/// Returns whether the component at this connection receives actions of this type.
pub(super) fn takes(line: &Line, kind: &str) -> bool {
    line.session(|session| match &session.component().work {
        Ok(Work::Service(spec)) => spec.service.proxied_actions.iter().any(|one| one == kind),
        Ok(Work::Command(spec)) => spec.proxied_actions.iter().any(|one| one == kind),
        _ => false,
    })
}

/// Gives the action to all components at the same time. Returns the first refusal.
pub(super) async fn give(lines: Vec<Arc<Line>>, action: &ProxiedAction) -> Result<(), String> {
    let mut tasks = JoinSet::new();
    for line in lines {
        let action = action.clone();
        tasks.spawn(async move { give_to(&line, &action).await });
    }
    while let Some(given) = tasks.join_next().await {
        given.map_err(|error| error.to_string())??;
    }
    Ok(())
}

/// Gives the action to a component. A refusal is not final, because the component may not have taken its policy yet.
async fn give_to(line: &Line, action: &ProxiedAction) -> Result<(), String> {
    let component = line.session(|session| session.component().clone());
    // An action is for an input; a component without one has nothing to take.
    let Some(input) = component.units.iter().find(|unit| unit.direction == Direction::Input) else { return Ok(()) };
    let input_type = input.config["type"].as_str().unwrap_or_default().to_owned();
    let deadline = Instant::now() + LIMIT;
    let mut backoff = Backoff::new(DELAYS[0], DELAYS[1]);
    loop {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let request = InputAction { input_type: input_type.clone(), params: action.params.clone(), timeout };
        let Err(reason) = line.act(&request, input.id.clone()).await else { return Ok(()) };
        let wait = backoff.next(&System);
        if Instant::now() + wait >= deadline {
            return Err(format!("the component {} refused the action {}: {reason}", component.id, action.kind));
        }
        tokio::time::sleep(wait).await;
    }
}
