//! Agents, their documents and tags.
//!
//! Columns form three groups, so that an update touches only the indexes concerned: those in no index
//! (`plain`), the status and its deadline (`status`), and the rest that is indexed (`keys`).

use super::{locked, statements};

macro_rules! plain {
    () => {
        "version, family, kind, replace_token, updated_at, target_revision, running_policy_id, policy_revision, \
         policy_revision_at, policy_failure, action_position, \
         action_token, tags, agent_version, newer_than_tested, last_checkin, health_status, \
         health_message, unhealthy_reason, status_since, audit_reason, audit_at, audit_departure, \
         unenrollment_started_at, unenrolled_at, unenrolled_reason, upgrade_started_at, upgraded_at, upgrade_open, upgrade_details, \
         upgrade_rollbacks, \
         user_metadata, first_address, last_address, inactivity_timeout, contact_interval"
    };
}
macro_rules! plain_values {
    () => {
        "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, \
         $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36"
    };
}
macro_rules! status {
    () => {
        "status, status_deadline"
    };
}
macro_rules! status_values {
    () => {
        "$37, $38"
    };
}
macro_rules! keys {
    () => {
        "active, host_id, enrollment_key_id, enrollment_id, enrolled_at, policy_id, space, hostname, duplicate_hosts, \
         former_id, node, os, hardware_uuid, serial"
    };
}
macro_rules! keys_values {
    () => {
        "$39, $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50, $51, $52"
    };
}
/// Computed from other columns, for filters and sorting; never read.
macro_rules! derived {
    () => {
        "version_key, program"
    };
}
macro_rules! columns {
    () => {
        concat!(plain!(), ", ", status!(), ", ", keys!(), ", id")
    };
}
macro_rules! values {
    () => {
        concat!(plain_values!(), ", ", status_values!(), ", ", keys_values!())
    };
}

/// A record with its live credentials in one column. Spaces and commas separate them, since none of their parts contains
/// one.
macro_rules! record {
    () => {
        concat!(
            columns!(),
            ", (SELECT string_agg(key_id || ' ' || type || ' ' || hash || ' ' || issued_at || coalesce(' ' || certificate, ''), ',') \
               FROM credentials WHERE agent_id = agents.id AND revoked_at IS NULL) "
        )
    };
}
/// Selects a record.
macro_rules! select {
    ($from:literal) => {
        concat!("SELECT ", record!(), $from)
    };
}

statements! {
    /// Inserts an agent unless the id is taken.
    INSERT = concat!(
        "INSERT INTO agents (", columns!(), ", ", derived!(), ", place) VALUES (", values!(), ", $53, $54, $55, $56) \
         ON CONFLICT (id) DO NOTHING"
    );
    /// Updates columns without an index.
    UPDATE_PLAIN = concat!(
        "UPDATE agents SET (", plain!(), ") = (", plain_values!(), ") WHERE id = $37 AND version = $38"
    );
    /// Updates the status as well.
    UPDATE_STATUS = concat!(
        "UPDATE agents SET (", plain!(), ", ", status!(), ") = (", plain_values!(), ", ", status_values!(),
        ") WHERE id = $39 AND version = $40"
    );
    /// Updates everything except the id.
    UPDATE_ALL = concat!(
        "UPDATE agents SET (", plain!(), ", ", status!(), ", ", keys!(), ", ", derived!(), ") = (", values!(),
        ", $53, $54) WHERE id = $55 AND version = $56"
    );
    /// Sets the check-in time if it is later.
    SEEN = "UPDATE agents SET last_checkin = $1 WHERE id = $2 AND (last_checkin IS NULL OR last_checkin < $1)";
    /// Inserts the place of an agent in the list by check-in.
    INSERT_CHECKIN = "INSERT INTO agent_checkins (id, space, policy_id, status, seen_minute) VALUES ($1, $2, $3, $4, $5)";
    /// Updates the place of an agent.
    UPDATE_CHECKIN = "UPDATE agent_checkins SET space = $1, policy_id = $2, status = $3, seen_minute = $4 WHERE id = $5";
    /// Sets the minute of the check-in if it is later.
    SEEN_MINUTE = "UPDATE agent_checkins SET seen_minute = $1 WHERE id = $2 AND seen_minute < $1";
    /// Inserts the text by which an agent is found.
    INSERT_TEXT = "INSERT INTO agent_texts (space, id, search) VALUES ($1, $2, $3)";
    /// Updates the text of an agent, which may have left the space.
    UPDATE_TEXT = "UPDATE agent_texts SET space = $1, search = $2 WHERE space = $3 AND id = $4";
    /// Deletes the text of an agent, before the agent.
    DELETE_TEXT = "DELETE FROM agent_texts WHERE space = (SELECT space FROM agents WHERE id = $1) AND id = $1";
    /// Deletes an agent with its documents and tags.
    DELETE = "DELETE FROM agents WHERE id = $1";
    /// Selects whether it has a version.
    HAS_VERSION = concat!("SELECT 1 FROM agents WHERE id = $1 AND version = $2 ", locked!());
    /// Counts those of these agents that are in a space.
    COUNT_IN_SPACE = "SELECT count(*) FROM agents WHERE id IN (SELECT value FROM json_each($1)) AND space = $2";
    /// Selects the version of a record.
    VERSION = "SELECT version FROM agents WHERE id = $1";
    /// Selects whether it exists.
    EXISTS = "SELECT 1 FROM agents WHERE id = $1";

    /// Inserts a credential unless its key id is taken.
    INSERT_CREDENTIAL = "INSERT INTO credentials (key_id, agent_id, type, hash, issued_at, certificate) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (key_id) DO NOTHING";
    /// Revokes a live credential.
    REVOKE_CREDENTIAL = "UPDATE credentials SET revoked_at = $1 WHERE key_id = $2 AND revoked_at IS NULL";
    /// Deletes a credential.
    DELETE_CREDENTIAL = "DELETE FROM credentials WHERE key_id = $1";
    /// Sets the time of a credential's last use if it is later.
    CREDENTIAL_USED = "UPDATE credentials SET last_used_at = $1 \
        WHERE key_id = $2 AND (last_used_at IS NULL OR last_used_at < $1)";
    /// Selects whether a live credential of an agent is bound to another certificate.
    IS_BOUND_OTHERWISE = "SELECT 1 FROM credentials \
        WHERE agent_id = $1 AND revoked_at IS NULL AND certificate IS NOT NULL AND certificate <> $2";
    /// Selects all credentials of an agent, newest first.
    CREDENTIALS = "SELECT key_id, type, hash, issued_at, last_used_at, revoked_at FROM credentials \
        WHERE agent_id = $1 ORDER BY issued_at DESC, key_id DESC";

    /// Inserts a host unless its id or machine is taken.
    INSERT_HOST = "INSERT INTO hosts (id, space, machine_id, hostname, created_at, system_id) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    /// Sets the system id of a host.
    SET_SYSTEM = "UPDATE hosts SET system_id = $1 WHERE id = $2";
    /// Selects whether a host exists.
    HOST_EXISTS = "SELECT 1 FROM hosts WHERE id = $1";
    /// Selects a host.
    HOST = "SELECT id, space, machine_id, hostname, created_at, system_id FROM hosts WHERE id = $1";
    /// Selects the host of a machine.
    HOST_BY_MACHINE = "SELECT id, space, machine_id, hostname, created_at, system_id FROM hosts \
        WHERE space = $1 AND machine_id = $2";
    /// Selects hosts with a system id, by id.
    HOSTS_BY_SYSTEM = "SELECT id, space, machine_id, hostname, created_at, system_id FROM hosts \
        WHERE space = $1 AND system_id = $2 ORDER BY id LIMIT $3";
    /// Deletes a host without agents.
    DELETE_EMPTY_HOST = "DELETE FROM hosts WHERE id = $1 AND NOT EXISTS \
        (SELECT 1 FROM agents WHERE agents.host_id = hosts.id)";
    /// Selects what an agent is counted by, and its host.
    GROUP = concat!("SELECT space, policy_id, status, tags, host_id FROM agents WHERE id = $1 ", locked!());

    /// Inserts the documents of an agent.
    INSERT_DOCUMENTS = "INSERT INTO agent_documents (agent_id, local_metadata, components) VALUES ($1, $2, $3)";
    /// Updates the documents that are not NULL.
    UPDATE_DOCUMENTS = "UPDATE agent_documents SET local_metadata = coalesce($1, local_metadata), \
        components = coalesce($2, components) WHERE agent_id = $3";
    /// Moves components to their table; ignored if the agent does not exist.
    SETTLE_COMPONENTS = "UPDATE agent_documents SET components = $1 WHERE agent_id = $2";
    /// Writes a page of pending components.
    PUT_RECENT = "INSERT INTO recent_components (slot, seq, entries) VALUES ($1, $2, $3) \
        ON CONFLICT (slot) DO UPDATE SET seq = excluded.seq, entries = excluded.entries";
    /// Selects all pages, oldest first: at most the size of the ring.
    ALL_RECENT = "SELECT seq, entries FROM recent_components ORDER BY seq";
    /// Clears the ring.
    CLEAR_RECENT = "DELETE FROM recent_components";
    /// Selects the documents of an agent.
    DOCUMENTS = "SELECT local_metadata, components FROM agent_documents WHERE agent_id = $1";

    /// Inserts a tag of an agent.
    INSERT_TAG = "INSERT INTO agent_tags (agent_id, tag) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    /// Deletes the tags of an agent.
    DELETE_TAGS = "DELETE FROM agent_tags WHERE agent_id = $1";

    /// Selects an agent.
    BY_ID = select!("FROM agents WHERE id = $1");
    /// Selects an agent of a space.
    BY_ID_IN = select!(
        "FROM agents WHERE id = $1 AND space = $2"
    );
    /// Selects the ids and records of these agents, with the document that lists show.
    NAMED = concat!(
        "SELECT id, ", record!(), ", (SELECT local_metadata FROM agent_documents WHERE agent_id = agents.id) \
         FROM agents WHERE id IN (SELECT value FROM json_each($1))"
    );
    /// Selects whether a credential exists, live or revoked.
    CREDENTIAL_EXISTS = "SELECT 1 FROM credentials WHERE key_id = $1";
    /// Selects the agent with a live credential.
    BY_CREDENTIAL = select!(
        "FROM agents WHERE id = (SELECT agent_id FROM credentials WHERE key_id = $1 AND revoked_at IS NULL)"
    );
    /// Selects the agent that enrolled with a key and an idempotency handle and has never checked in.
    BY_ENROLLMENT_ID = select!(
        "FROM agents \
         WHERE enrollment_id = $1 AND enrollment_key_id = $2 AND last_checkin IS NULL"
    );
    /// Selects agents whose status deadline has passed.
    DUE = select!(
        "FROM agents \
         WHERE status_deadline IS NOT NULL AND status_deadline <= $1 ORDER BY status_deadline LIMIT $2"
    );
    /// Selects whether a policy has active agents.
    ACTIVE_ON_POLICY = "SELECT 1 FROM agents WHERE policy_id = $1 AND active = 1 LIMIT 1";
}
