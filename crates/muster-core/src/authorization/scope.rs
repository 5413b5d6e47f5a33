//! Scopes: the part of the installation to which a binding applies, and the part that a grant covers.

use serde::{Deserialize, Serialize};

use super::privilege::{PrivilegeName, PrivilegeSet, Reach};
use crate::id::{PolicyId, SpaceId};

/// A selector of agents. An agent may request tags when it enrolls, and can change neither policy nor tags later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Selector {
    /// One of these policies, the agents on them, and their enrollment keys and uninstall tokens.
    Policies(Vec<PolicyId>),
    /// The agents with at least one of these tags.
    Tags(Vec<String>),
}

impl Selector {
    fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Policies(own), Self::Policies(ids)) => ids.iter().all(|id| own.contains(id)),
            (Self::Tags(own), Self::Tags(tags)) => tags.iter().all(|tag| own.contains(tag)),
            // A policy and a tag can select the same agents today, and others tomorrow.
            (Self::Policies(_), Self::Tags(_)) | (Self::Tags(_), Self::Policies(_)) => false,
        }
    }
}

/// The part of the installation to which a binding applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BindingScope {
    /// Everything, in all spaces.
    System,
    /// A space as a whole.
    Space(SpaceId),
    /// A part of a space.
    Part {
        /// The space.
        space: SpaceId,
        /// The part.
        selector: Selector,
    },
}

impl BindingScope {
    /// Returns what a binding with this scope covers of `space` for a privilege; `None` for nothing.
    pub fn cover(&self, space: &SpaceId, privilege: PrivilegeName) -> Option<Cover<'_>> {
        match (self, privilege.reach()) {
            (Self::System, _) => Some(Cover::All),
            (Self::Space(own), Reach::Space | Reach::Policies | Reach::Agents) if own == space => Some(Cover::All),
            (Self::Part { space: own, selector }, Reach::Agents) if own == space => Some(Cover::Part(selector)),
            // Tags belong to agents: a selector by tag says nothing about policies and what belongs to them.
            (Self::Part { space: own, selector: selector @ Selector::Policies(_) }, Reach::Policies)
                if own == space =>
            {
                Some(Cover::Part(selector))
            }
            // A binding to a part confers nothing that concerns the space as a whole.
            (Self::Space(_) | Self::Part { .. }, _) => None,
        }
    }

    /// Returns the privileges of a role that a binding with this scope does not give, because they need a wider one.
    pub fn not_given(&self, privileges: PrivilegeSet) -> Vec<PrivilegeName> {
        let is_given = |privilege| {
            let home = SpaceId::default();
            self.cover(self.space().unwrap_or(&home), privilege).is_some()
        };
        privileges.iter().filter(|privilege| !is_given(*privilege)).collect()
    }

    /// Returns whether everything in `other` is in this scope too.
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::System, _) => true,
            (Self::Space(own), Self::Space(space) | Self::Part { space, .. }) => own == space,
            (Self::Part { space: own, selector }, Self::Part { space, selector: part }) => {
                own == space && selector.contains(part)
            }
            (Self::Space(_) | Self::Part { .. }, _) => false,
        }
    }

    /// Returns the space, if the scope is within one.
    pub fn space(&self) -> Option<&SpaceId> {
        match self {
            Self::System => None,
            Self::Space(space) | Self::Part { space, .. } => Some(space),
        }
    }
}

/// What a binding covers of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover<'a> {
    /// All of it.
    All,
    /// What the selector selects.
    Part(&'a Selector),
}

/// The objects of the space that a grant covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    #[default]
    Whole,
    /// Those that at least one of the selectors selects.
    AnyOf(Vec<Selector>),
}

impl Scope {
    /// Returns whether the scope contains an agent on this policy and with these tags.
    pub fn has_agent(&self, policy: Option<&PolicyId>, tags: &[String]) -> bool {
        self.any(|selector| match selector {
            Selector::Policies(ids) => policy.is_some_and(|id| ids.contains(id)),
            Selector::Tags(wanted) => tags.iter().any(|tag| wanted.contains(tag)),
        })
    }

    /// Returns whether the scope contains a policy, and what belongs to it.
    pub fn has_policy(&self, id: &PolicyId) -> bool {
        self.any(|selector| match selector {
            Selector::Policies(ids) => ids.contains(id),
            Selector::Tags(_) => false,
        })
    }

    /// Returns the policies to which the scope is limited; `None` if it contains all policies of the space.
    pub fn policies(&self) -> Option<Vec<PolicyId>> {
        let Self::AnyOf(selectors) = self else { return None };
        let ids = selectors.iter().filter_map(|selector| match selector {
            Selector::Policies(ids) => Some(ids),
            Selector::Tags(_) => None,
        });
        Some(ids.flatten().cloned().collect())
    }

    fn any(&self, selects: impl Fn(&Selector) -> bool) -> bool {
        match self {
            Self::Whole => true,
            Self::AnyOf(selectors) => selectors.iter().any(selects),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(id: &str) -> Selector {
        Selector::Policies(vec![PolicyId::trusted(id)])
    }

    #[test]
    fn a_binding_covers_only_what_its_scope_contains() {
        let (red, blue) = (SpaceId::trusted("red"), SpaceId::trusted("blue"));
        let part = BindingScope::Part { space: red.clone(), selector: policies("a") };
        let tagged = BindingScope::Part { space: red.clone(), selector: Selector::Tags(vec!["lab".into()]) };
        let whole = BindingScope::Space(red.clone());
        assert_eq!(BindingScope::System.cover(&blue, PrivilegeName::AuditRead), Some(Cover::All));
        assert_eq!(whole.cover(&red, PrivilegeName::OutputsRead), Some(Cover::All));
        assert_eq!(whole.cover(&red, PrivilegeName::UsersRead), None);
        assert_eq!(whole.cover(&red, PrivilegeName::AuditRead), Some(Cover::All));
        assert_eq!(part.cover(&red, PrivilegeName::AuditRead), None);
        assert_eq!(whole.cover(&blue, PrivilegeName::AgentsRead), None);
        assert_eq!(part.cover(&red, PrivilegeName::PoliciesUpdate), Some(Cover::Part(&policies("a"))));
        assert_eq!(part.cover(&red, PrivilegeName::PoliciesCreate), None);
        assert_eq!(tagged.cover(&red, PrivilegeName::PoliciesRead), None);
        assert!(tagged.cover(&red, PrivilegeName::AgentsUpgrade).is_some());
    }

    #[test]
    fn a_scope_contains_what_one_of_its_selectors_selects() {
        let scope = Scope::AnyOf(vec![policies("a"), Selector::Tags(vec!["lab".into()])]);
        let (a, b) = (PolicyId::trusted("a"), PolicyId::trusted("b"));
        assert!(scope.has_agent(Some(&a), &[]) && scope.has_agent(Some(&b), &["lab".into()]));
        assert!(!scope.has_agent(Some(&b), &["web".into()]) && !scope.has_agent(None, &[]));
        assert!(scope.has_policy(&a) && !scope.has_policy(&b));
        assert_eq!(scope.policies(), Some(vec![a.clone()]));
        assert!(Scope::Whole.has_policy(&b) && Scope::Whole.policies().is_none());
        assert!(!Scope::AnyOf(Vec::new()).has_agent(Some(&a), &[]));
    }

    #[test]
    fn privileges_that_need_a_wider_binding_are_named() {
        let privileges =
            [PrivilegeName::AgentsRead, PrivilegeName::OutputsRead, PrivilegeName::UsersRead].into_iter().collect();
        let space = SpaceId::trusted("emea");
        let of = |scope: BindingScope| scope.not_given(privileges);
        assert_eq!(of(BindingScope::System), []);
        assert_eq!(of(BindingScope::Space(space.clone())), [PrivilegeName::UsersRead]);
        let part = BindingScope::Part { space, selector: Selector::Tags(vec!["web".into()]) };
        assert_eq!(of(part), [PrivilegeName::OutputsRead, PrivilegeName::UsersRead]);
    }
}
