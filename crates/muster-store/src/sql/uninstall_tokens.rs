//! Uninstall tokens.

use super::statements;

macro_rules! columns {
    () => {
        "id, space, policy_id, number, hash, sealed, created_at"
    };
}

statements! {
    /// Inserts a token unless its id or number is taken.
    INSERT = concat!(
        "INSERT INTO uninstall_tokens (", columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING"
    );
    /// Selects a token.
    BY_ID = concat!("SELECT ", columns!(), " FROM uninstall_tokens WHERE id = $1");
    /// Selects the newest token of a policy.
    NEWEST = concat!(
        "SELECT ", columns!(), " FROM uninstall_tokens WHERE policy_id = $1 ORDER BY number DESC LIMIT 1"
    );
    /// Selects the newest token of each policy of a space whose id, or whose id or name, matches a pattern. Tokens of
    /// managed policies are left out (MG §13).
    LIST_IN = "SELECT t.id, t.policy_id, t.created_at, p.name FROM uninstall_tokens t \
        LEFT JOIN policies p ON p.id = t.policy_id WHERE t.space = $1 \
        AND NOT EXISTS (SELECT 1 FROM uninstall_tokens n WHERE n.policy_id = t.policy_id AND n.number > t.number) \
        AND coalesce(p.is_managed, 0) = 0 \
        AND (lower(t.policy_id) LIKE $2 ESCAPE '!' OR lower(coalesce(p.name, t.policy_id)) LIKE $3 ESCAPE '!') \
        ORDER BY t.created_at DESC, t.id";
}
