//! Staged rollouts.

use super::statements;

statements! {
    /// Inserts a rollout, unless another one of its policy is active.
    INSERT = "INSERT INTO rollouts (id, space, policy_id, is_active, version, created_at, document) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
    /// Inserts an agent of an upgrade.
    INSERT_AGENT = "INSERT INTO rollout_agents (rollout_id, agent_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    /// Replaces a rollout of the version before.
    UPDATE = "UPDATE rollouts SET (is_active, version, document) = ($1, $2, $3) WHERE id = $4 AND version = $2 - 1";
    /// Selects whether a rollout of a policy is active.
    IS_ACTIVE = "SELECT 1 FROM rollouts WHERE policy_id = $1 AND is_active = 1";
    /// Selects the active rollout of a policy.
    ACTIVE_OF = "SELECT document FROM rollouts WHERE policy_id = $1 AND is_active = 1";
    /// Selects a rollout of a space.
    ONE = "SELECT document FROM rollouts WHERE id = $1 AND space = $2";
    /// Selects a page of the rollouts of a space, newest first.
    PAGE = "SELECT document FROM rollouts WHERE space = $1 ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3";
    /// Counts the rollouts of a space.
    TOTAL = "SELECT count(*) FROM rollouts WHERE space = $1";
    /// Selects the active rollouts.
    ACTIVE = "SELECT document FROM rollouts WHERE is_active = 1 ORDER BY created_at, id";
}
