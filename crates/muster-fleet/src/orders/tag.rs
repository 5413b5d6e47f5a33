//! Tags: changed at once by the server; the action is a record of it (MG §5.6).

use muster_core::Error;
use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_core::context::{OpContext, Privilege};
use muster_core::eligibility::Wish;
use serde_json::json;

use super::Given;
use super::effect::Effect;
use crate::Fleet;
use crate::selection::Selected;
use crate::tags::TagChange;

impl Fleet {
    /// Adds tags and takes tags away.
    pub async fn change_tags(
        &self,
        context: &OpContext,
        selected: &Selected,
        change: &TagChange,
    ) -> Result<Given, Error> {
        context.require(Privilege::AgentsWrite)?;
        let facts = self.policy_facts().await?;
        let data = json!({"tags_to_add": change.add, "tags_to_remove": change.remove});
        let order = ActionRequest::new(ActionType::UpdateTags, data);
        let sorted = self.sort_targets(selected, &|agent, now| facts.check(agent, Wish::Tags, now)).await?;
        self.give_to(context, sorted, order, Some(Effect::Tags(change.clone()))).await
    }
}
