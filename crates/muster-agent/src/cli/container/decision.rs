//! Whether a container enrolls at its start. The first rule that matches decides.

/// The reason to enroll again that is the server's decision.
pub const KEY_REJECTED: &str = "the server rejected the stored access key";

/// What the variables require.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `FLEET_FORCE`.
    pub force: bool,
    /// `ELASTIC_AGENT_ID`.
    pub id: Option<String>,
}

/// How the stored enrollment compares with the variables.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Agent id.
    pub id: String,
    /// Whether it has the servers of the variables.
    pub has_servers: bool,
    /// Whether it was made with the token of the variables; `None` if that is not known.
    pub token_matches: Option<bool>,
    /// Whether it has the replace token of the variables; `None` if they have none.
    pub replace_token_matches: Option<bool>,
}

/// What the server says about the stored access key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// It is valid.
    Valid,
    /// It is not valid.
    Rejected,
    /// The server was not reachable, or did not say.
    Unknown,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Enroll, for this reason.
    Enroll(&'static str),
    /// Use the stored enrollment.
    Keep,
    /// The server must be asked about the key.
    AskServer,
}

/// Decides. `key` is `None` before the server was asked.
pub fn decide(wanted: &Wanted, stored: &Stored, key: Option<Key>) -> Decision {
    if wanted.force {
        return Decision::Enroll("FLEET_FORCE is set");
    }
    if wanted.id.as_ref().is_some_and(|id| *id != stored.id) {
        return Decision::Enroll("ELASTIC_AGENT_ID differs from the stored id");
    }
    if !stored.has_servers {
        return Decision::Enroll("FLEET_URL differs from the stored servers");
    }
    if stored.token_matches == Some(false) {
        return Decision::Enroll("FLEET_ENROLLMENT_TOKEN has changed");
    }
    if stored.replace_token_matches == Some(false) {
        return Decision::Enroll("FLEET_REPLACE_TOKEN has changed");
    }
    match key {
        None => Decision::AskServer,
        Some(Key::Rejected) => Decision::Enroll(KEY_REJECTED),
        Some(Key::Valid | Key::Unknown) => Decision::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Stored {
        Stored { id: "a".into(), has_servers: true, token_matches: Some(true), replace_token_matches: None }
    }

    #[test]
    fn ag27_ag30_unchanged_variables_keep_the_enrollment_unless_the_key_is_rejected() {
        let decision = |key| decide(&Wanted::default(), &stored(), key);
        assert_eq!(decision(None), Decision::AskServer);
        assert_eq!(decision(Some(Key::Valid)), Decision::Keep);
        assert_eq!(decision(Some(Key::Unknown)), Decision::Keep);
        assert!(matches!(decision(Some(Key::Rejected)), Decision::Enroll(_)));
    }

    #[test]
    fn ag29_ag31_changed_variables_require_an_enrollment() {
        let enrolls = |wanted: Wanted, stored: Stored| matches!(decide(&wanted, &stored, None), Decision::Enroll(_));
        assert!(enrolls(Wanted { force: true, id: None }, stored()));
        assert!(enrolls(Wanted { force: false, id: Some("b".into()) }, stored()));
        assert!(enrolls(Wanted::default(), Stored { has_servers: false, ..stored() }));
        assert!(enrolls(Wanted::default(), Stored { token_matches: Some(false), ..stored() }));
        assert!(enrolls(Wanted::default(), Stored { replace_token_matches: Some(false), ..stored() }));
    }

    #[test]
    fn ag32_the_stored_id_does_not_enroll_again() {
        let wanted = Wanted { force: false, id: Some("a".into()) };
        assert_eq!(decide(&wanted, &stored(), Some(Key::Valid)), Decision::Keep);
    }
}
