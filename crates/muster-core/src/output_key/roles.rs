//! Role descriptors of a key: the permissions of a policy, and those of the policy before it.

use serde_json::{Map, Value};

/// Role descriptors by name, as in `output_permissions.NAME`.
pub type Roles = Map<String, Value>;

/// Suffix of roles that are kept only until the agent confirms its policy. Fleet Server uses the same one, so that tools
/// which look at keys show both alike.
const FORMER: &str = "-rdstale";

/// Returns the new roles together with those that the key has, under names of their own (EA106).
pub fn widened(present: &Roles, new: &Roles) -> Roles {
    let mut merged = new.clone();
    for (name, role) in present {
        // A role that is granted anyway is not repeated. Without this, a key whose agent is away would grow with every
        // revision of its policy.
        if merged.values().any(|granted| granted == role) {
            continue;
        }
        let name = free_name(base(name), &merged);
        merged.insert(name, role.clone());
    }
    merged
}

/// Returns whether the key has roles of a former policy.
pub fn has_former_roles(roles: &Roles) -> bool {
    roles.keys().any(|name| name.ends_with(FORMER))
}

/// Returns the name without suffix and number.
fn base(name: &str) -> &str {
    let Some(rest) = name.strip_suffix(FORMER) else { return name };
    match rest.rsplit_once('-') {
        Some((base, number)) if number.bytes().all(|digit| digit.is_ascii_digit()) => base,
        _ => rest,
    }
}

fn free_name(base: &str, taken: &Roles) -> String {
    let mut number = 0;
    loop {
        let name = format!("{base}-{number}{FORMER}");
        if !taken.contains_key(&name) {
            return name;
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn roles(value: &Value) -> Roles {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn ea106_former_roles_stay_under_other_names_beside_the_new_ones() {
        let (a, b, c) = (json!({"cluster": ["a"]}), json!({"cluster": ["b"]}), json!({"cluster": ["c"]}));
        let present = roles(&json!({"one": a, "two": b, "two-0-rdstale": c}));
        let after = widened(&present, &roles(&json!({"one": c, "two": b})));
        assert_eq!(after, roles(&json!({"one": c, "two": b, "one-0-rdstale": a})));
        assert!(has_former_roles(&after) && !has_former_roles(&roles(&json!({"one": c}))));
        // Once more, before the agent has confirmed anything.
        let again = widened(&after, &roles(&json!({"one": b})));
        assert_eq!(again, roles(&json!({"one": b, "one-0-rdstale": c, "one-1-rdstale": a})));
        let odd = widened(&roles(&json!({"x-rdstale": a})), &roles(&json!({"one": b})));
        assert_eq!(odd, roles(&json!({"one": b, "x-0-rdstale": a})));
    }

    fn some_roles() -> impl Strategy<Value = Roles> {
        let name = prop::sample::select(vec!["a", "b", "a-0-rdstale", "b-7-rdstale", "-rdstale"]);
        let role = (0_u8..4).prop_map(|number| json!({"cluster": [number]}));
        prop::collection::btree_map(name.prop_map(str::to_owned), role, 0..5).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn ea106_nothing_is_lost_and_repetition_adds_nothing(present in some_roles(), new in some_roles()) {
            let after = widened(&present, &new);
            prop_assert!(new.iter().all(|(name, role)| after.get(name) == Some(role)), "the new ones are as they are");
            prop_assert!(present.values().all(|role| after.values().any(|granted| granted == role)));
            prop_assert_eq!(widened(&after, &new), after);
        }
    }
}
