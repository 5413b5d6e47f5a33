-- The first schema. Times are microseconds since 1970, ids are text, lists and documents are JSON as text,
-- flags are 0 or 1.

-- Machines. Agents of one space that report the same machine id share one.
CREATE TABLE hosts (
    id TEXT NOT NULL PRIMARY KEY,
    space TEXT NOT NULL,
    machine_id TEXT,
    hostname TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    system_id TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX hosts_by_name ON hosts (space, lower(hostname), id);
CREATE UNIQUE INDEX hosts_by_machine ON hosts (space, machine_id) WHERE machine_id IS NOT NULL;
CREATE INDEX hosts_by_system ON hosts (space, system_id) WHERE system_id IS NOT NULL;

CREATE TABLE agents (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    family TEXT NOT NULL,
    kind TEXT NOT NULL,
    replace_token TEXT,
    updated_at INTEGER NOT NULL,
    target_revision INTEGER,
    running_policy_id TEXT,
    policy_revision INTEGER NOT NULL,
    policy_revision_at INTEGER,
    policy_failure TEXT,
    action_position INTEGER NOT NULL,
    action_token TEXT,
    tags TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    newer_than_tested INTEGER NOT NULL,
    last_checkin INTEGER,
    health_status TEXT NOT NULL,
    health_message TEXT NOT NULL,
    unhealthy_reason TEXT NOT NULL,
    status_since INTEGER NOT NULL,
    audit_reason TEXT,
    audit_at INTEGER,
    audit_departure TEXT,
    unenrollment_started_at INTEGER,
    unenrolled_at INTEGER,
    unenrolled_reason TEXT,
    upgrade_started_at INTEGER,
    upgraded_at INTEGER,
    upgrade_open TEXT,
    upgrade_details TEXT,
    upgrade_rollbacks TEXT,
    user_metadata TEXT,
    first_address TEXT NOT NULL,
    last_address TEXT NOT NULL,
    inactivity_timeout INTEGER,
    -- Seconds.
    contact_interval INTEGER NOT NULL,
    status TEXT NOT NULL,
    status_deadline INTEGER,
    active INTEGER NOT NULL,
    host_id TEXT,
    enrollment_key_id TEXT,
    enrollment_id TEXT,
    enrolled_at INTEGER NOT NULL,
    policy_id TEXT,
    space TEXT NOT NULL,
    hostname TEXT NOT NULL,
    duplicate_hosts TEXT,
    former_id TEXT,
    node TEXT,
    os TEXT NOT NULL,
    -- In lower case; empty if unknown.
    hardware_uuid TEXT NOT NULL,
    serial TEXT NOT NULL,
    -- A number that sorts versions.
    version_key INTEGER NOT NULL,
    -- The family and the version, one in each line.
    program TEXT NOT NULL,
    -- Computed from the id: decides in which wave of a rollout the agent is.
    place INTEGER NOT NULL
) STRICT;
-- A column named here makes an update dearer: see "agents" among the statements.
-- With what lists of hosts are filtered by: hosts are counted from this index alone.
CREATE INDEX agents_by_host ON agents (host_id, space, status, os) WHERE host_id IS NOT NULL;
-- Agents are counted by system and by program from this index alone.
CREATE INDEX agents_by_system ON agents (space, os, program, status);
CREATE INDEX agents_by_policy ON agents (policy_id, active);
CREATE INDEX agents_by_status ON agents (space, status);
CREATE INDEX agents_by_deadline ON agents (status_deadline) WHERE status_deadline IS NOT NULL;
CREATE INDEX agents_by_enrollment_key ON agents (enrollment_key_id) WHERE enrollment_key_id IS NOT NULL;
-- One agent of an enrollment key and an enrollment id waits for its first check-in, whichever server enrolls it.
CREATE UNIQUE INDEX agents_by_enrollment_id ON agents (enrollment_id, enrollment_key_id)
WHERE enrollment_id IS NOT NULL AND last_checkin IS NULL;
CREATE INDEX agents_by_space ON agents (space, id);
CREATE INDEX agents_by_version ON agents (space, version_key, id);
CREATE INDEX agents_by_upgrade ON agents (space, id) WHERE upgrade_details IS NOT NULL;
CREATE INDEX agents_by_departure ON agents (space, audit_at) WHERE audit_at IS NOT NULL;
CREATE INDEX agents_by_hostname ON agents (space, lower(hostname));
CREATE INDEX agents_by_hardware_uuid ON agents (space, hardware_uuid) WHERE hardware_uuid <> '';
CREATE INDEX agents_by_serial ON agents (space, serial) WHERE serial <> '';
CREATE INDEX agents_by_duplicate_hosts ON agents (space, duplicate_hosts) WHERE duplicate_hosts IS NOT NULL;
CREATE INDEX agents_by_enrollment ON agents (space, enrolled_at, id);

-- What agents authenticate with: the live credentials of each, and those that it had before. A hash is in base64.
CREATE TABLE credentials (
    key_id TEXT NOT NULL PRIMARY KEY,
    agent_id TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    type TEXT NOT NULL,
    hash TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    last_used_at INTEGER,
    revoked_at INTEGER,
    -- Hash of the names in the client certificate that it is bound to.
    certificate TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX credentials_by_agent ON credentials (agent_id, issued_at, key_id);

CREATE TABLE agent_documents (
    agent_id TEXT NOT NULL PRIMARY KEY REFERENCES agents (id) ON DELETE CASCADE,
    local_metadata TEXT,
    components TEXT
) STRICT;

-- The tags once more, for filters; written only when they change.
CREATE TABLE agent_tags (
    agent_id TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    tag TEXT NOT NULL,
    PRIMARY KEY (agent_id, tag)
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_tags_by_tag ON agent_tags (tag, agent_id);

-- What hosts answered to host checks. passes is NULL if the query never ran; failed_at is NULL if it ran the last time.
CREATE TABLE host_check_results (
    agent_id TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    check_id TEXT NOT NULL,
    passes INTEGER,
    since INTEGER NOT NULL,
    error TEXT NOT NULL,
    failed_at INTEGER,
    PRIMARY KEY (agent_id, check_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX host_check_results_by_check ON host_check_results (check_id, passes, since, agent_id);
CREATE INDEX host_check_results_by_error ON host_check_results (check_id, failed_at, agent_id) WHERE failed_at IS NOT NULL;

-- The latest changes of the answers of hosts. The newest one of a host and check is the present answer, as long as it is kept.
CREATE TABLE host_check_changes (
    agent_id TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    check_id TEXT NOT NULL,
    since INTEGER NOT NULL,
    passes INTEGER NOT NULL,
    PRIMARY KEY (agent_id, check_id, since)
) STRICT, WITHOUT ROWID;
CREATE INDEX host_check_changes_by_check ON host_check_changes (check_id);
CREATE INDEX host_check_changes_by_time ON host_check_changes (since);

-- Numbers of hosts that passed and failed at the end of a day (days since the epoch, UTC).
CREATE TABLE host_check_days (
    check_id TEXT NOT NULL,
    day INTEGER NOT NULL,
    passing INTEGER NOT NULL,
    failing INTEGER NOT NULL,
    PRIMARY KEY (check_id, day)
) STRICT, WITHOUT ROWID;
CREATE INDEX host_check_days_by_day ON host_check_days (day);

-- Scheduled queries that do not work on hosts. error is NULL if osqueryd has denylisted the query; until is NULL if the host tells when that ends.
CREATE TABLE query_failures (
    agent_id TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    space TEXT NOT NULL,
    error TEXT,
    since INTEGER NOT NULL,
    until INTEGER,
    PRIMARY KEY (agent_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX query_failures_by_name ON query_failures (name, space);
CREATE INDEX query_failures_by_end ON query_failures (until) WHERE until IS NOT NULL;

-- Labels of hosts. query is NULL for manual labels. name_key is the name in lower case.
CREATE TABLE labels (
    id TEXT NOT NULL PRIMARY KEY,
    space TEXT NOT NULL,
    version INTEGER NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    description TEXT NOT NULL,
    query TEXT,
    platforms TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX labels_by_name ON labels (space, name_key);

-- The hosts of each label.
CREATE TABLE label_hosts (
    label_id TEXT NOT NULL REFERENCES labels (id) ON DELETE CASCADE,
    host_id TEXT NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
    PRIMARY KEY (label_id, host_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX label_hosts_by_host ON label_hosts (host_id, label_id);

-- The hosts on which the query of a label failed when it was run last.
CREATE TABLE label_errors (
    label_id TEXT NOT NULL REFERENCES labels (id) ON DELETE CASCADE,
    host_id TEXT NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
    error TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (label_id, host_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX label_errors_by_host ON label_errors (host_id, label_id);

-- Archives of files that osqueryd uploads. Their blocks are in chunks, under the id of the carve.
CREATE TABLE carves (
    id TEXT NOT NULL PRIMARY KEY,
    space TEXT NOT NULL,
    agent_id TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    host_id TEXT,
    hostname TEXT NOT NULL,
    block_count INTEGER NOT NULL,
    block_size INTEGER NOT NULL,
    size INTEGER NOT NULL,
    carve_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    session_hash TEXT NOT NULL,
    blocks INTEGER NOT NULL,
    is_compressed INTEGER NOT NULL,
    state TEXT NOT NULL,
    error TEXT,
    began_at INTEGER NOT NULL,
    ended_at INTEGER,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX carves_by_session ON carves (session_hash);
CREATE INDEX carves_by_space ON carves (space, began_at, id);
CREATE INDEX carves_by_agent ON carves (agent_id, began_at, id);
CREATE INDEX carves_by_begin ON carves (began_at, id);
CREATE INDEX carves_by_expiry ON carves (expires_at) WHERE state IN ('receiving', 'complete');

-- Runs of scripts on hosts. expires_at: no host gets the script after it.
CREATE TABLE script_runs (
    id TEXT NOT NULL PRIMARY KEY,
    space TEXT NOT NULL,
    name TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    stopped_at INTEGER,
    targets INTEGER NOT NULL,
    finished INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    result_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    timeout INTEGER NOT NULL,
    script TEXT NOT NULL
) STRICT;
CREATE INDEX script_runs_by_space ON script_runs (space, created_at, id);
CREATE INDEX script_runs_by_expiry ON script_runs (expires_at);

-- What hosts made of them. They outlive the agents. result_bytes: length of the outputs.
CREATE TABLE script_run_hosts (
    run_id TEXT NOT NULL REFERENCES script_runs (id) ON DELETE CASCADE,
    agent_id TEXT NOT NULL,
    host_id TEXT,
    hostname TEXT NOT NULL,
    state TEXT NOT NULL,
    begun_at INTEGER,
    ended_at INTEGER,
    attempts INTEGER NOT NULL,
    result_bytes INTEGER NOT NULL,
    exit_code INTEGER,
    runtime INTEGER,
    output TEXT,
    PRIMARY KEY (run_id, agent_id)
) STRICT;
CREATE INDEX script_run_hosts_open ON script_run_hosts (agent_id) WHERE state IN ('pending', 'begun');
CREATE INDEX script_run_hosts_by_host ON script_run_hosts (host_id);

-- name_key is the name in lower case.
CREATE TABLE saved_scripts (
    id TEXT NOT NULL PRIMARY KEY,
    space TEXT NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    description TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    version INTEGER NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    script TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX saved_scripts_by_name ON saved_scripts (space, name_key);

-- Packages with their scripts. The blocks of a package are in chunks, under its id. name_key is the name in lower case.
CREATE TABLE installers (
    id TEXT NOT NULL PRIMARY KEY,
    space TEXT NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    version TEXT NOT NULL,
    format TEXT NOT NULL,
    platform TEXT NOT NULL,
    file_name TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    uploaded_at INTEGER,
    condition TEXT NOT NULL,
    install_script TEXT NOT NULL,
    post_install_script TEXT NOT NULL,
    uninstall_script TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX installers_by_name ON installers (space, name_key, version, platform);
CREATE INDEX installers_unfinished ON installers (created_at) WHERE uploaded_at IS NULL;

-- Runs that install or uninstall software on hosts. They outlive their installer. expires_at: no host begins after it.
CREATE TABLE install_runs (
    id TEXT NOT NULL PRIMARY KEY,
    space TEXT NOT NULL,
    name TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    stopped_at INTEGER,
    targets INTEGER NOT NULL,
    finished INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    result_bytes INTEGER NOT NULL,
    kind TEXT NOT NULL,
    installer_id TEXT NOT NULL,
    version TEXT NOT NULL,
    max_retries INTEGER NOT NULL
) STRICT;
CREATE INDEX install_runs_by_space ON install_runs (space, created_at, id);
CREATE INDEX install_runs_by_installer ON install_runs (installer_id, created_at, id);
CREATE INDEX install_runs_by_expiry ON install_runs (expires_at);

-- What became of them on hosts. They outlive the agents. An absent exit code is a step that did not run. result_bytes: length of the outputs.
CREATE TABLE install_run_hosts (
    run_id TEXT NOT NULL REFERENCES install_runs (id) ON DELETE CASCADE,
    agent_id TEXT NOT NULL,
    host_id TEXT,
    hostname TEXT NOT NULL,
    state TEXT NOT NULL,
    begun_at INTEGER,
    ended_at INTEGER,
    attempts INTEGER NOT NULL,
    result_bytes INTEGER NOT NULL,
    retries_remaining INTEGER,
    condition TEXT,
    exit_code INTEGER,
    output TEXT,
    post_install_exit_code INTEGER,
    post_install_output TEXT,
    PRIMARY KEY (run_id, agent_id)
) STRICT;
CREATE INDEX install_run_hosts_open ON install_run_hosts (agent_id) WHERE state IN ('pending', 'begun');
CREATE INDEX install_run_hosts_by_host ON install_run_hosts (host_id);

-- Recovery keys of encrypted disks that orbit reports. The space is that of the agent: a key does not follow its agent to another one, unless
-- it is handed over. escrow_asked: how often the host was told of the request for its passphrase that it has not answered; NULL without such
-- a request. escrow_due_at: from when it is told again; NULL after the last time.
CREATE TABLE disk_keys (
    agent_id TEXT NOT NULL,
    space TEXT NOT NULL,
    stored_at INTEGER,
    error TEXT,
    error_at INTEGER,
    escrow_asked INTEGER,
    escrow_due_at INTEGER,
    sealed BLOB,
    PRIMARY KEY (agent_id, space)
) STRICT;
CREATE INDEX disk_keys_by_space ON disk_keys (space);
CREATE INDEX disk_keys_escrow ON disk_keys (agent_id) WHERE escrow_due_at IS NOT NULL;

-- Software that hosts report, once for all hosts. The id is a hash of the other columns, name_key the name in lower case. A row that no
-- host has any more is deleted a week later.
CREATE TABLE software (
    id INTEGER NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    source TEXT NOT NULL,
    name_key TEXT NOT NULL,
    unused_since INTEGER
) STRICT;
CREATE INDEX software_by_end ON software (unused_since) WHERE unused_since IS NOT NULL;

-- The software of each host: ids of seven bytes, sorted. The index below follows a little later: `indexed` is the list that it has, if
-- another one, and `indexed_space` the space, NULL before the first time. `pending` counts the changes that it has to follow; a deletion
-- of the agent is one.
CREATE TABLE host_software (
    agent_id TEXT NOT NULL PRIMARY KEY,
    number INTEGER,
    list BLOB NOT NULL,
    indexed BLOB,
    indexed_space TEXT,
    pending INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    left_out INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX host_software_by_number ON host_software (number) WHERE number IS NOT NULL;
CREATE INDEX host_software_pending ON host_software (agent_id) WHERE pending > 0;

-- What else osquery reports of each host: disks, users, certificates. One compressed document of each kind, written when it changes.
CREATE TABLE host_inventory (
    agent_id TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    document BLOB NOT NULL,
    PRIMARY KEY (agent_id, kind)
) STRICT;

-- The software of each space, with the number of hosts, by name.
CREATE TABLE space_software (
    space TEXT NOT NULL,
    software_id INTEGER NOT NULL,
    name_key TEXT NOT NULL,
    hosts INTEGER NOT NULL,
    PRIMARY KEY (space, software_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX space_software_by_name ON space_software (space, name_key, software_id);
CREATE INDEX space_software_by_software ON space_software (software_id);

-- The hosts that have software, in chunks of 4,096 numbers: a list of places of two bytes, or a bitmap of 512.
CREATE TABLE software_postings (
    space TEXT NOT NULL,
    software_id INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    hosts BLOB NOT NULL,
    PRIMARY KEY (space, software_id, chunk)
) STRICT, WITHOUT ROWID;

-- When agents were seen last, with what lists filter by, in the order of a list: an index of the agents would be written by
-- each check-in with changes. Minutes, so that an agent that checks in often seldom changes its place.
CREATE TABLE agent_checkins (
    id TEXT NOT NULL PRIMARY KEY REFERENCES agents (id) ON DELETE CASCADE,
    space TEXT NOT NULL,
    policy_id TEXT,
    status TEXT NOT NULL,
    seen_minute INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_checkins_by_time ON agent_checkins (space, seen_minute, id, status, policy_id);

-- What lists show of each agent, in lower case; searched with LIKE. SQLite reads all texts of the space, PostgreSQL an index of
-- their trigrams. Not a column of the agents, whose status changes would write that index.
CREATE TABLE agent_texts (
    space TEXT NOT NULL,
    id TEXT NOT NULL,
    search TEXT NOT NULL,
    PRIMARY KEY (space, id)
) STRICT, WITHOUT ROWID;

-- Numbers of agents by policy and status, so that totals need not count agents: of all (the tag is empty), and of those
-- with each tag (after '='). Without a policy, its id is empty. The number is the sum over the servers that changed it,
-- each of which has a row of its own, so that none waits for another; a row of one server can be negative.
CREATE TABLE agent_counts (
    space TEXT NOT NULL,
    tag TEXT NOT NULL,
    policy_id TEXT NOT NULL,
    status TEXT NOT NULL,
    node TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (space, tag, policy_id, status, node)
) STRICT, WITHOUT ROWID;

-- Keys with which agents enroll. The family tells which agents: of elastic, a key is an id and a secret; of fleetd, a secret
-- from which the key id is derived, so that it is unique over all spaces.
CREATE TABLE enrollment_keys (
    id TEXT NOT NULL PRIMARY KEY,
    space TEXT NOT NULL,
    family TEXT NOT NULL,
    name TEXT NOT NULL,
    key_id TEXT NOT NULL UNIQUE,
    hash BLOB NOT NULL,
    sealed_token BLOB,
    policy_id TEXT,
    tags TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    max_uses INTEGER,
    uses INTEGER NOT NULL,
    last_used_at INTEGER,
    hidden INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    -- Of one-time secrets: the hardware of the host, in lower case, and the first use by each of its programs.
    one_time INTEGER NOT NULL,
    bound_uuid TEXT,
    bound_serial TEXT,
    orbit_used_at INTEGER,
    osquery_used_at INTEGER
) STRICT;
-- A live key's name is unique among those of its space and policy.
CREATE UNIQUE INDEX enrollment_keys_by_name ON enrollment_keys (space, coalesce(policy_id, ''), name) WHERE revoked_at IS NULL;
CREATE INDEX enrollment_keys_by_policy ON enrollment_keys (policy_id);
CREATE INDEX enrollment_keys_by_creation ON enrollment_keys (space, created_at, id);
CREATE INDEX enrollment_keys_one_time ON enrollment_keys (space, created_at, id) WHERE one_time = 1;
CREATE INDEX enrollment_keys_by_expiration ON enrollment_keys (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE policies (
    id TEXT NOT NULL PRIMARY KEY,
    space TEXT NOT NULL,
    name TEXT NOT NULL,
    namespace TEXT NOT NULL,
    description TEXT NOT NULL,
    revision INTEGER NOT NULL,
    is_managed INTEGER NOT NULL,
    is_default INTEGER NOT NULL,
    inactivity_timeout INTEGER NOT NULL,
    unenroll_timeout INTEGER,
    config TEXT NOT NULL,
    secrets TEXT NOT NULL,
    fields TEXT NOT NULL,
    -- Slow hash of the code with which protected agents can be uninstalled when the server is lost.
    recovery_code_hash TEXT,
    updated_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (space, name)
) STRICT;
CREATE INDEX policies_default ON policies (is_default) WHERE is_default = 1;

CREATE TABLE policy_revisions (
    policy_id TEXT NOT NULL REFERENCES policies (id) ON DELETE CASCADE,
    revision INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    source TEXT NOT NULL,
    compiled TEXT NOT NULL,
    PRIMARY KEY (policy_id, revision)
) STRICT;

-- Staged rollouts. The document is the whole rollout; the other columns are searched.
CREATE TABLE rollouts (
    id TEXT NOT NULL PRIMARY KEY,
    space TEXT NOT NULL,
    policy_id TEXT,
    is_active INTEGER NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    document TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX rollouts_active ON rollouts (policy_id) WHERE is_active = 1 AND policy_id IS NOT NULL;
CREATE INDEX rollouts_by_space ON rollouts (space, created_at, id);

-- The agents of a rollout of an upgrade.
CREATE TABLE rollout_agents (
    rollout_id TEXT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    agent_id TEXT NOT NULL,
    PRIMARY KEY (rollout_id, agent_id)
) STRICT, WITHOUT ROWID;

-- Live queries. end_reason: complete, timed_out, stopped, full; NULL while it runs.
CREATE TABLE live_queries (
    id TEXT NOT NULL PRIMARY KEY,
    space TEXT NOT NULL,
    sql TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    targets INTEGER NOT NULL,
    answered INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    gone INTEGER NOT NULL,
    row_count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    ended_at INTEGER,
    end_reason TEXT
) STRICT;
CREATE INDEX live_queries_by_space ON live_queries (space, created_at, id);
CREATE INDEX live_queries_running ON live_queries (space) WHERE ended_at IS NULL;
CREATE INDEX live_queries_by_end ON live_queries (ended_at) WHERE ended_at IS NOT NULL;

-- The agents that a live query is for, and when each of them answered, or left the space before it did.
CREATE TABLE live_query_targets (
    query_id TEXT NOT NULL REFERENCES live_queries (id) ON DELETE CASCADE,
    agent_id TEXT NOT NULL,
    answered_at INTEGER,
    PRIMARY KEY (query_id, agent_id)
) STRICT, WITHOUT ROWID;

-- Their answers, numbered in the order of commits. size_through: length of this answer and all before it, bytes.
CREATE TABLE live_query_results (
    query_id TEXT NOT NULL REFERENCES live_queries (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    size_through INTEGER NOT NULL,
    agent_id TEXT NOT NULL,
    host_id TEXT,
    hostname TEXT NOT NULL,
    at INTEGER NOT NULL,
    error TEXT,
    row_data TEXT NOT NULL,
    row_count INTEGER NOT NULL,
    is_truncated INTEGER NOT NULL,
    missing_rows INTEGER NOT NULL,
    PRIMARY KEY (query_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE actions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    space TEXT NOT NULL,
    kind TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expiration INTEGER,
    start_time INTEGER,
    rollout_seconds INTEGER,
    timeout INTEGER,
    input_type TEXT NOT NULL,
    data TEXT,
    signed_data TEXT,
    signed_signature TEXT,
    total INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    cancelled_at INTEGER
) STRICT;
CREATE INDEX actions_by_space ON actions (space, seq);
CREATE INDEX actions_by_expiration ON actions (expiration) WHERE expiration IS NOT NULL;

-- Targets and their results. state: queued, acked, failed, withdrawn; ineligible: meant, but never ordered.
CREATE TABLE action_targets (
    agent_id TEXT NOT NULL,
    action_seq INTEGER NOT NULL REFERENCES actions (seq) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    state TEXT NOT NULL,
    -- 1: given to an earlier life of the agent's id; neither delivered to this one nor answered by it.
    former INTEGER NOT NULL DEFAULT 0,
    result_at INTEGER,
    result_error TEXT,
    result_fields TEXT,
    PRIMARY KEY (agent_id, action_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX action_targets_in_order ON action_targets (action_seq, place);
CREATE INDEX action_targets_by_state ON action_targets (action_seq, state, result_at);

CREATE TABLE outputs (
    id TEXT NOT NULL PRIMARY KEY,
    space TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    is_default INTEGER NOT NULL,
    is_default_monitoring INTEGER NOT NULL,
    fields TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (space, name)
) STRICT;

-- Fleet Server hosts, proxies and download sources, which policies refer to.
CREATE TABLE network_objects (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    space TEXT NOT NULL,
    name TEXT NOT NULL,
    is_default INTEGER NOT NULL,
    fields TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (kind, id),
    UNIQUE (space, kind, name)
) STRICT;

-- Tokens with which protected agents of a policy can be uninstalled, all since its creation. They outlive the policy.
CREATE TABLE uninstall_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    space TEXT NOT NULL,
    policy_id TEXT NOT NULL,
    -- Of the policy, while there is one: 1 for the first token, and so on.
    number INTEGER NOT NULL,
    hash TEXT NOT NULL,
    sealed BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (policy_id, number)
) STRICT;
CREATE INDEX uninstall_tokens_by_space ON uninstall_tokens (space, created_at);

-- Elasticsearch clusters as outputs reach them, with the credential that creates keys (sealed), and why they fail.
CREATE TABLE output_clusters (
    id TEXT NOT NULL PRIMARY KEY,
    output TEXT NOT NULL,
    sealed BLOB NOT NULL,
    failure_kind TEXT,
    failure_reason TEXT,
    failing_since INTEGER,
    retry_at INTEGER,
    -- Of outputs with a bootstrap block: when their own settings are tested, and why those of the block are in use.
    trial_at INTEGER,
    fallback_reason TEXT,
    fallback_since INTEGER
) STRICT;
CREATE INDEX output_clusters_by_output ON output_clusters (output, id);

-- The key of each agent at each output, wanted or issued.
CREATE TABLE output_keys (
    agent_id TEXT NOT NULL,
    output TEXT NOT NULL,
    version INTEGER NOT NULL,
    cluster TEXT NOT NULL,
    state TEXT NOT NULL,
    key_id TEXT,
    sealed BLOB,
    permissions_hash TEXT NOT NULL,
    policy_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    is_withheld INTEGER NOT NULL,
    since INTEGER NOT NULL,
    failure_reason TEXT,
    retry_at INTEGER,
    PRIMARY KEY (agent_id, output)
) STRICT;
CREATE INDEX output_keys_by_cluster ON output_keys (cluster, state, since);
CREATE UNIQUE INDEX output_keys_by_key ON output_keys (cluster, key_id) WHERE key_id IS NOT NULL;

-- Keys to invalidate: once their agent runs a revision, or now. They outlive the agent.
CREATE TABLE retired_output_keys (
    cluster TEXT NOT NULL,
    key_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    after_policy TEXT,
    after_revision INTEGER,
    retired_at INTEGER NOT NULL,
    PRIMARY KEY (cluster, key_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX retired_output_keys_by_agent ON retired_output_keys (agent_id);
CREATE INDEX retired_output_keys_due ON retired_output_keys (cluster, retired_at) WHERE after_policy IS NULL;

CREATE TABLE secrets (
    id TEXT NOT NULL PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT;

CREATE TABLE uploads (
    id TEXT NOT NULL PRIMARY KEY,
    action_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    source TEXT NOT NULL,
    name TEXT NOT NULL,
    mime_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    status TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    transit_hash TEXT,
    UNIQUE (agent_id, action_id)
) STRICT;

CREATE TABLE files (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    mime_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE file_agents (
    file_id TEXT NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    agent_id TEXT NOT NULL,
    PRIMARY KEY (file_id, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX file_agents_by_agent ON file_agents (agent_id);

-- Of uploads and of files. The bytes stand last, so that the other columns are read without them.
CREATE TABLE chunks (
    file_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    length INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (file_id, number)
) STRICT;

-- Packages, carves and uploads that were deleted, whose chunks are deleted in batches. Nobody reads them any more.
CREATE TABLE removed_files (
    file_id TEXT NOT NULL PRIMARY KEY
) STRICT;

CREATE TABLE artifacts (
    identifier TEXT NOT NULL,
    decoded_sha256 TEXT NOT NULL,
    decoded_size INTEGER NOT NULL,
    encoded_sha256 TEXT NOT NULL,
    compression TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (identifier, decoded_sha256)
) STRICT;

CREATE TABLE settings (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Append-only, a chain for each node; hash = SHA-256 of the hash before it in its chain and the event's text.
CREATE TABLE audit_events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    chain TEXT NOT NULL,
    position INTEGER NOT NULL,
    event TEXT NOT NULL,
    hash BLOB NOT NULL,
    -- That of the event, to find the events about an object. Verification compares it with the event.
    subject TEXT NOT NULL DEFAULT '',
    UNIQUE (chain, position)
) STRICT;
CREATE INDEX audit_events_by_subject ON audit_events (subject, seq);
-- Append-only for every program that opens the store. Each trigger is one line, which the other engine translates.
CREATE TRIGGER audit_events_no_update BEFORE UPDATE ON audit_events BEGIN SELECT RAISE(ABORT, 'audit events are append-only'); END;
CREATE TRIGGER audit_events_no_delete BEFORE DELETE ON audit_events BEGIN SELECT RAISE(ABORT, 'audit events are append-only'); END;
-- INSERT OR REPLACE deletes the row that it replaces without firing the trigger above.
CREATE TRIGGER audit_events_no_replace BEFORE INSERT ON audit_events WHEN EXISTS (SELECT 1 FROM audit_events WHERE seq = NEW.seq OR (chain = NEW.chain AND position = NEW.position)) BEGIN SELECT RAISE(ABORT, 'audit events are append-only'); END;

CREATE TABLE changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    -- The space from which the subject was deleted.
    deleted_from TEXT
) STRICT;

-- Uploads whose time is over.
CREATE INDEX uploads_by_age ON uploads (status, started_at, id);
-- Lists of actions include policy revisions by their time, without reading the revisions themselves.
CREATE INDEX policy_revisions_by_creation ON policy_revisions (created_at, policy_id, revision, created_by);

-- Actions whose effect on the records of their agents is not committed completely; completed at the next start.
CREATE TABLE unfinished_effects (
    action_id TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Components that agents reported recently, many to a page, before they move to agent_documents. A ring: the row with
-- the lowest seq is overwritten next, after those of its entries that are still the newest were moved.
CREATE TABLE recent_components (
    slot INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    entries BLOB NOT NULL
) STRICT;

-- Servers that use the store, each with a lease. A shared store's row is removed by whoever finds its lease expired.
CREATE TABLE nodes (
    id TEXT NOT NULL PRIMARY KEY,
    epoch TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    -- Tells a server that starts again from another one with a copy of its data directory.
    place TEXT NOT NULL,
    version TEXT NOT NULL,
    -- Greatest migration that its program knows.
    schema_known INTEGER NOT NULL,
    addresses TEXT NOT NULL,
    is_draining INTEGER NOT NULL,
    handled INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- Servers whose leases expired before they gave them back.
CREATE TABLE lost_nodes (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    lost_at INTEGER NOT NULL
) STRICT;

-- In a store that another one is being copied to: the fleet, where it comes from, the newest number of its change log at the
-- beginning, and the last key that was copied, as a JSON list after the name of its table. No server uses such a store.
CREATE TABLE copy_progress (
    fleet TEXT NOT NULL PRIMARY KEY,
    source TEXT NOT NULL,
    newest_change INTEGER NOT NULL,
    position TEXT NOT NULL
) STRICT;

-- Work that one node at a time does, with the epoch of that node. Each holder has the next number.
CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    epoch TEXT,
    number INTEGER NOT NULL
) STRICT;
INSERT INTO leases (name, number) VALUES ('statuses', 0), ('housekeeping', 0), ('output_keys', 0), ('actions', 0), ('rollouts', 0), ('auto_upgrades', 0), ('software', 0);

-- Tenants. The default space exists without a row, which it gets when somebody renames it.
CREATE TABLE spaces (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- Users and service accounts.
CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    full_name TEXT NOT NULL,
    password TEXT,
    issuer TEXT,
    subject TEXT,
    locked_at INTEGER,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX users_by_subject ON users (issuer, subject) WHERE issuer IS NOT NULL;

-- Roles beside the built-in ones, which are in the program. Privileges are a list of their names.
CREATE TABLE roles (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    privileges TEXT NOT NULL,
    version INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- Who has which role, and where. Either a user or a group of the OpenID provider. The space is also part of the scope.
CREATE TABLE bindings (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
    group_name TEXT,
    role_id TEXT NOT NULL,
    space TEXT,
    scope TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL
) STRICT;
CREATE INDEX bindings_by_user ON bindings (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX bindings_by_group ON bindings (group_name) WHERE group_name IS NOT NULL;
CREATE INDEX bindings_by_role ON bindings (role_id);
CREATE INDEX bindings_by_space ON bindings (space) WHERE space IS NOT NULL;

CREATE TABLE api_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    key_id TEXT NOT NULL UNIQUE,
    hash BLOB NOT NULL,
    owner TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    privileges TEXT NOT NULL,
    group_names TEXT NOT NULL,
    expires_at INTEGER,
    -- The session that it ends with; empty if it ends with all sessions of the owner.
    session TEXT,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    last_used_at INTEGER,
    revoked_at INTEGER
) STRICT;
CREATE INDEX api_tokens_by_session ON api_tokens (session) WHERE session IS NOT NULL;
CREATE INDEX api_tokens_by_owner ON api_tokens (owner, created_at, id);
CREATE INDEX api_tokens_by_creation ON api_tokens (created_at, id);
CREATE INDEX api_tokens_by_expiration ON api_tokens (expires_at) WHERE expires_at IS NOT NULL;

-- Sessions of browsers, and links with which a user sets a password once.
CREATE TABLE sessions (
    key_id TEXT NOT NULL PRIMARY KEY,
    hash BLOB NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    group_names TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- Address of the login.
    address TEXT,
    last_used_at INTEGER
) STRICT;
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiration ON sessions (expires_at);
CREATE TABLE setup_links (
    key_id TEXT NOT NULL PRIMARY KEY,
    hash BLOB NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX setup_links_by_user ON setup_links (user_id);
CREATE INDEX setup_links_by_expiration ON setup_links (expires_at);

-- Requests with an idempotency key. `sealed` contains a fingerprint of the request, and its response if there is one, which may
-- contain secrets.
CREATE TABLE idempotency_keys (
    account TEXT NOT NULL,
    request_key TEXT NOT NULL,
    sealed BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (account, request_key)
) STRICT;
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
-- OpenID providers. The document has the settings that need no column.
CREATE TABLE oidc_providers (
    id TEXT NOT NULL PRIMARY KEY,
    issuer TEXT NOT NULL,
    document TEXT NOT NULL,
    sealed_secret BLOB,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
-- Logins at a provider that were completed, until their cookies end: none is completed twice.
CREATE TABLE completed_log_ins (
    state TEXT NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX completed_log_ins_by_expiration ON completed_log_ins (expires_at);
-- Logins of devices that wait for approval. An approved one has a user and what its token gets.
CREATE TABLE device_log_ins (
    key_id TEXT NOT NULL PRIMARY KEY,
    hash BLOB NOT NULL,
    user_code TEXT NOT NULL UNIQUE,
    device TEXT NOT NULL,
    address TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    is_denied INTEGER NOT NULL,
    user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
    privileges TEXT,
    group_names TEXT,
    token_expires_at INTEGER,
    session TEXT
) STRICT;
CREATE INDEX device_log_ins_by_user ON device_log_ins (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX device_log_ins_by_session ON device_log_ins (session) WHERE session IS NOT NULL;
CREATE INDEX device_log_ins_by_expiration ON device_log_ins (expires_at);
-- What happened, for alerts; appended in the commits of the transitions.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    -- Empty for an event that concerns every space.
    space TEXT NOT NULL,
    -- Kind and id of what it happened to.
    subject TEXT NOT NULL,
    document TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_time ON events (at);
CREATE INDEX events_by_subject ON events (subject, seq);
CREATE INDEX events_by_space ON events (space, seq);

-- Numbers of agents by status, one for each hour since the epoch in which housekeeping ran.
CREATE TABLE agent_history (
    space TEXT NOT NULL,
    hour INTEGER NOT NULL,
    status TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (space, hour, status)
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_history_by_hour ON agent_history (hour);

-- Views of lists that people have saved: the parameters of a list's URL under a name.
CREATE TABLE saved_views (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    space TEXT NOT NULL,
    name TEXT NOT NULL,
    query TEXT NOT NULL,
    PRIMARY KEY (user_id, space, name)
) STRICT, WITHOUT ROWID;

-- Receivers of alerts, as documents, and how far each is in the events.
CREATE TABLE alert_receivers (
    id TEXT NOT NULL PRIMARY KEY,
    space TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    document TEXT NOT NULL,
    UNIQUE (space, name)
) STRICT;
CREATE TABLE alert_progress (
    receiver_id TEXT NOT NULL PRIMARY KEY REFERENCES alert_receivers (id) ON DELETE CASCADE,
    document TEXT NOT NULL
) STRICT;
INSERT INTO leases (name, number) VALUES ('alerts', 0);
