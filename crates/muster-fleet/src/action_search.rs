//! Search among actions for administrators: by what follows from an action and its progress, which the store cannot filter by.

use muster_core::Error;
use muster_core::action::Action;
use muster_core::action_request::ActionProgress;
use muster_core::authorization::{AgentsRead, Grant};
use muster_store::query::{ActionCursor, Page};

use super::action_views::{ActionListQuery, ActionView};
use super::actions::Actions;

/// Number of actions that are read at once.
const BATCH: u32 = 200;
/// Maximum number of actions that a search examines. The next one continues behind them.
pub const MAX_SEARCHED: usize = 1_000;

/// What a search has found.
#[derive(Clone, Debug)]
pub struct FoundActions {
    /// The matching actions, newest first.
    pub items: Vec<ActionView>,
    /// Where to continue; `None` if there is nothing behind the last one.
    pub next: Option<ActionCursor>,
    /// Whether it ended after [`MAX_SEARCHED`] actions, and not because it had found enough.
    pub is_cut: bool,
}

impl Actions {
    /// Searches actions and policy changes, newest first, without CANCEL actions, until `limit` of them are wanted.
    pub async fn search(
        &self,
        grant: &Grant<AgentsRead>,
        question: &ActionListQuery,
        limit: usize,
        wanted: impl Fn(&Action, &ActionProgress) -> bool,
    ) -> Result<FoundActions, Error> {
        let mut found = FoundActions { items: Vec::new(), next: question.after.clone(), is_cut: false };
        let mut searched = 0;
        'search: loop {
            // Errors are looked up for the few that match only.
            let batch = ActionListQuery { errors: 0, after: found.next.clone(), ..question.clone() };
            let read = self.list(grant, &batch, Page { offset: 0, limit: BATCH }).await?;
            // The store reads on behind unreadable actions: only the end of the list makes a batch short.
            let is_last = read.items.len() < BATCH as usize;
            for view in read.items {
                if found.items.len() == limit || searched == MAX_SEARCHED {
                    found.is_cut = found.items.len() < limit;
                    break 'search;
                }
                searched += 1;
                found.next = Some(ActionCursor::behind(&view.action));
                if wanted(&view.action, &view.progress) {
                    found.items.push(view);
                }
            }
            if is_last {
                found.next = None;
                break;
            }
        }
        self.add_errors(grant, &mut found.items, question.errors).await?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use muster_core::action::ActionType;
    use muster_core::authorization::{Actor, OpContext};
    use muster_core::testing::action;
    use muster_store::{ActionWrite, Write};

    use super::*;
    use crate::testing::TestFleet;

    #[tokio::test]
    async fn a_search_examines_a_limited_number_of_actions_and_continues_behind_them() {
        let fleet = TestFleet::new().await;
        let added = (0..MAX_SEARCHED + 300).map(|number| {
            let mut one = action(&format!("a-{number:04}"), ActionType::Settings, fleet.now());
            one.data = Some(if number < 5 { "{\"old\":true}".into() } else { "{}".into() });
            Write::Action(ActionWrite::Insert { action: Box::new(one), targets: Vec::new() })
        });
        fleet.commit(added.collect()).await;
        let context = OpContext::administrator(Actor::Local { uid: 0 });
        let grant = context.grant().unwrap();
        let is_old =
            |action: &Action, _: &ActionProgress| action.data.as_deref().is_some_and(|data| data.contains("old"));
        let actions = fleet.fleet.actions();
        let first = actions.search(&grant, &ActionListQuery::default(), 3, is_old).await.unwrap();
        assert!(first.items.is_empty() && first.is_cut);
        let behind = |found: &FoundActions| ActionListQuery { after: found.next.clone(), ..ActionListQuery::default() };
        let second = actions.search(&grant, &behind(&first), 3, is_old).await.unwrap();
        let ids = |found: &FoundActions| found.items.iter().map(|one| one.action.id.to_string()).collect::<Vec<_>>();
        assert_eq!((ids(&second), second.is_cut), (vec!["a-0004".into(), "a-0003".into(), "a-0002".into()], false));
        let third = actions.search(&grant, &behind(&second), 3, is_old).await.unwrap();
        assert_eq!((ids(&third), third.next), (vec!["a-0001".into(), "a-0000".into()], None));
    }
}
