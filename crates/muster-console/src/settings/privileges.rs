//! The privileges that a form offers, in groups by what they are about.

use muster_core::authorization::PrivilegeName;

/// A privilege that a role or a token can have.
pub struct Choice {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Its narrowest scope; empty where scopes do not matter.
    pub scope: &'static str,
    /// Whether it is chosen.
    pub is_chosen: bool,
    /// Whether the person has it, and may therefore give it to others.
    pub is_own: bool,
}

/// The choices about the same objects, with their name: `disk_keys` are "Disk keys".
pub type Group = (String, Vec<Choice>);

/// Groups choices, in the order in which the groups first occur.
pub fn grouped(choices: impl IntoIterator<Item = Choice>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for choice in choices {
        let object = choice.name.split('.').next().unwrap_or_default();
        let title = crate::text::sentence(&object.replace('_', " "));
        match groups.iter_mut().find(|group| group.0 == title) {
            Some((_, group)) => group.push(choice),
            None => groups.push((title, vec![choice])),
        }
    }
    groups
}

/// Returns whether one of the names that a form carries is a privilege's.
pub fn is_among(chosen: &[String], name: PrivilegeName) -> bool {
    chosen.iter().any(|one| one == name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_of_one_object_stand_together() {
        let choice =
            |name: &PrivilegeName| Choice { name: name.as_str(), about: "", scope: "", is_chosen: false, is_own: true };
        let groups = grouped(PrivilegeName::ALL.iter().map(choice));
        assert_eq!(groups.iter().map(|group| group.1.len()).sum::<usize>(), PrivilegeName::ALL.len());
        let agents = groups.iter().find(|group| group.0 == "Agents").unwrap();
        assert!(agents.1.len() > 1 && agents.1.iter().all(|choice| choice.name.starts_with("agents.")));
    }
}
