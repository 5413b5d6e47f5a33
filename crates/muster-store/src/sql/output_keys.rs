//! Keys of agents at the clusters of their outputs.

use super::statements;

macro_rules! key_columns {
    () => {
        "version, cluster, state, key_id, sealed, permissions_hash, policy_id, revision, is_withheld, since, \
         failure_reason, retry_at, agent_id, output"
    };
}

macro_rules! cluster_columns {
    () => {
        "id, output, sealed, failure_kind, failure_reason, failing_since, retry_at, trial_at, fallback_reason, \
         fallback_since"
    };
}

macro_rules! set_key {
    () => {
        "UPDATE output_keys SET version = $1, cluster = $2, state = $3, key_id = $4, sealed = $5, \
         permissions_hash = $6, policy_id = $7, revision = $8, is_withheld = $9, since = $10, \
         failure_reason = $11, retry_at = $12 WHERE agent_id = $13 AND output = $14 AND version = $1 - 1"
    };
}

statements! {
    /// Inserts a cluster, or updates how it is reached. Bootstrap settings that are in use stay in use until the test.
    PUT_CLUSTER = "INSERT INTO output_clusters (id, output, sealed, trial_at) VALUES ($1, $2, $3, $4) ON CONFLICT (id) \
        DO UPDATE SET output = excluded.output, sealed = excluded.sealed, \
        failure_kind = NULL, failure_reason = NULL, failing_since = NULL, retry_at = NULL, \
        trial_at = excluded.trial_at, fallback_reason = CASE WHEN excluded.trial_at IS NULL THEN NULL \
        ELSE output_clusters.fallback_reason END, fallback_since = CASE WHEN excluded.trial_at IS NULL THEN NULL \
        ELSE output_clusters.fallback_since END";
    /// Sets or clears the failure of a cluster.
    CLUSTER_FAILURE = "UPDATE output_clusters SET failure_kind = $1, failure_reason = $2, failing_since = $3, \
        retry_at = $4 WHERE id = $5";
    /// Sets which settings of a cluster are in use, and when those of the output are tested.
    CLUSTER_TRIAL = "UPDATE output_clusters SET trial_at = $1, fallback_reason = $2, fallback_since = $3 WHERE id = $4";
    /// Deletes a cluster without keys.
    DELETE_CLUSTER = "DELETE FROM output_clusters WHERE id = $1 \
        AND NOT EXISTS (SELECT 1 FROM output_keys WHERE cluster = $1) \
        AND NOT EXISTS (SELECT 1 FROM retired_output_keys WHERE cluster = $1)";
    /// Selects a cluster.
    CLUSTER = concat!("SELECT ", cluster_columns!(), " FROM output_clusters WHERE id = $1");
    /// Selects all clusters by output.
    CLUSTERS = concat!("SELECT ", cluster_columns!(), " FROM output_clusters ORDER BY output, id");
    /// Selects clusters with pending work, a test of the output's own settings included.
    CLUSTERS_DUE = "SELECT id FROM output_clusters AS c WHERE trial_at <= $1 OR (retry_at IS NULL OR retry_at <= $1) AND (\
        EXISTS (SELECT 1 FROM output_keys WHERE cluster = c.id AND state IN ('wanted', 'outdated', 'confirmed') \
        AND (retry_at IS NULL OR retry_at <= $1)) \
        OR EXISTS (SELECT 1 FROM retired_output_keys WHERE cluster = c.id AND after_policy IS NULL)) ORDER BY id";

    /// Inserts a key unless the agent has one for the output.
    INSERT = concat!(
        "INSERT INTO output_keys (", key_columns!(), ") \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT DO NOTHING"
    );
    /// Updates a key from the version before.
    UPDATE = set_key!();
    /// Updates a key from the version before, if it is wanted in the same form by an active agent.
    SETTLE = concat!(
        set_key!(), " AND cluster = $2 AND permissions_hash = $6 \
         AND EXISTS (SELECT 1 FROM agents WHERE id = $13 AND active = 1)"
    );
    /// Selects whether a key is in use.
    IN_USE = "SELECT 1 FROM output_keys WHERE cluster = $1 AND key_id = $2";
    /// Deletes a key for an agent that is inactive or gone.
    DELETE_ABANDONED = "DELETE FROM output_keys WHERE agent_id = $1 AND output = $2 \
        AND NOT EXISTS (SELECT 1 FROM agents WHERE id = $1 AND active = 1) RETURNING cluster, key_id";
    /// Deletes a key in its version.
    DELETE = "DELETE FROM output_keys WHERE agent_id = $1 AND output = $2 AND version = $3";
    /// Deletes all keys of an agent.
    DELETE_OF_AGENT = "DELETE FROM output_keys WHERE agent_id = $1 RETURNING cluster, key_id";
    /// Selects the keys of an agent.
    OF_AGENT = concat!("SELECT ", key_columns!(), " FROM output_keys WHERE agent_id = $1 ORDER BY output");
    /// Selects whether there are any.
    ANY = "SELECT 1 FROM output_keys UNION ALL SELECT 1 FROM retired_output_keys LIMIT 1";
    /// Selects keys of a cluster in a state.
    DUE = concat!(
        "SELECT ", key_columns!(), " FROM output_keys WHERE cluster = $1 AND state = $2 \
         AND (retry_at IS NULL OR retry_at <= $3) ORDER BY since LIMIT $4"
    );
    /// Selects agents that wait for a key of a cluster.
    WAITING = "SELECT DISTINCT agent_id FROM output_keys WHERE cluster = $1 AND state IN ('wanted', 'outdated') \
        AND agent_id > $2 ORDER BY agent_id LIMIT $3";
    /// Counts the keys of a cluster.
    COUNTS = "SELECT count(key_id), coalesce(sum(CASE WHEN key_id IS NULL THEN 1 ELSE 0 END), 0), \
        coalesce(sum(CASE WHEN key_id IS NOT NULL AND state IN ('outdated', 'confirmed') THEN 1 ELSE 0 END), 0), \
        count(failure_reason), min(failure_reason) FROM output_keys WHERE cluster = $1";

    /// Inserts a retired key, or makes it due.
    RETIRE = "INSERT INTO retired_output_keys (cluster, key_id, agent_id, after_policy, after_revision, retired_at) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (cluster, key_id) \
        DO UPDATE SET after_policy = excluded.after_policy, after_revision = excluded.after_revision";
    /// Makes all retired keys of an agent due.
    RETIRED_DUE_OF_AGENT = "UPDATE retired_output_keys SET after_policy = NULL, after_revision = NULL WHERE agent_id = $1";
    /// Selects retired keys of an agent that wait for a confirmation.
    RETIRED_OF_AGENT = "SELECT cluster, key_id, agent_id, after_policy, after_revision, retired_at \
        FROM retired_output_keys WHERE agent_id = $1 AND after_policy IS NOT NULL ORDER BY cluster, key_id";
    /// Selects retired keys of a cluster that are due.
    RETIRED_DUE = "SELECT key_id FROM retired_output_keys WHERE cluster = $1 AND after_policy IS NULL \
        ORDER BY retired_at LIMIT $2";
    /// Counts the retired keys of a cluster that are due.
    RETIRED_COUNT = "SELECT count(*) FROM retired_output_keys WHERE cluster = $1 AND after_policy IS NULL";
    /// Selects whether a key is retired.
    RETIRED = "SELECT 1 FROM retired_output_keys WHERE cluster = $1 AND key_id = $2";
    /// Deletes a retired key.
    DELETE_RETIRED = "DELETE FROM retired_output_keys WHERE cluster = $1 AND key_id = $2";
}
