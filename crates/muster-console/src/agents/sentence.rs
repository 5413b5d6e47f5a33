//! The texts of the buttons that carry out an act, and of the notices after it: what it does, and to how many agents.

use super::acts::{Act, NO_POLICY, listed};
use super::bulk::Order;

impl Act {
    /// Says that it was done to a number of agents, or is requested of them.
    pub fn done(self, agents: &str) -> String {
        match self {
            Self::Tag => format!("The tags of {agents} were changed."),
            Self::Assign => format!("The policy of {agents} was changed."),
            Self::Upgrade => format!("The upgrade of {agents} was requested."),
            Self::Rollback => format!("The rollback of {agents} was requested."),
            Self::Diagnostics => format!("Diagnostics were requested from {agents}."),
            Self::LogLevel => {
                format!("The log level of {agents} was changed. Agents apply it with their next check-in.")
            }
            Self::Unenroll => format!("The unenrollment of {agents} was requested."),
            Self::Revoke => format!("The access of {agents} was revoked."),
            Self::Delete => format!("The records of {agents} were deleted."),
        }
    }

    /// What it does to a number of agents, such as `Upgrade 60 agents to 9.6.0`.
    pub fn sentence(self, agents: &str, policy: &str, order: &Order) -> String {
        match self {
            Self::Tag => tag_sentence(agents, order),
            Self::Assign if order.policy == NO_POLICY => format!("Remove the policy from {agents}"),
            Self::Assign => format!("Assign the policy {policy} to {agents}"),
            Self::Upgrade => format!("Upgrade {agents} to {}", order.version.trim()),
            Self::Rollback => format!("Roll back {agents}"),
            Self::Diagnostics => format!("Request diagnostics from {agents}"),
            Self::LogLevel if order.level == "reset" => format!("Reset the log level of {agents}"),
            Self::LogLevel => format!("Set the log level of {agents} to {}", order.level),
            Self::Unenroll => format!("Unenroll {agents}"),
            Self::Revoke => format!("Revoke {agents} immediately"),
            Self::Delete => format!("Delete {agents}"),
        }
    }
}

fn tag_sentence(agents: &str, order: &Order) -> String {
    let named = |tags: Vec<String>| match tags.as_slice() {
        [] => String::new(),
        [one] => format!("the tag {one}"),
        several => format!("the tags {}", several.join(", ")),
    };
    match (named(listed(&order.add)), named(listed(&order.remove))) {
        (add, remove) if remove.is_empty() => format!("Add {add} to {agents}"),
        (add, remove) if add.is_empty() => format!("Remove {remove} from {agents}"),
        (add, remove) => format!("Add {add} to {agents} and remove {remove}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_says_what_it_does_and_to_how_many_agents() {
        let order = |add: &str, remove: &str| Order {
            add: add.into(),
            remove: remove.into(),
            version: " 9.6.0 ".into(),
            level: "reset".into(),
            policy: NO_POLICY.into(),
            ..Order::default()
        };
        let sentence = |act: Act, add, remove| act.sentence("60 agents", "web", &order(add, remove));
        assert_eq!(sentence(Act::Upgrade, "", ""), "Upgrade 60 agents to 9.6.0");
        assert_eq!(sentence(Act::Tag, "x", ""), "Add the tag x to 60 agents");
        assert_eq!(sentence(Act::Tag, "", "x,y"), "Remove the tags x, y from 60 agents");
        assert_eq!(sentence(Act::Tag, "x", "y"), "Add the tag x to 60 agents and remove the tag y");
        assert_eq!(sentence(Act::Assign, "", ""), "Remove the policy from 60 agents");
        assert_eq!(sentence(Act::LogLevel, "", ""), "Reset the log level of 60 agents");
    }
}
