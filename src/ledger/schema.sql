-- The ledger's schema, version 2: the one source for creating a database and for checking one at start.
-- Tables and columns that operators' queries use are named in docs/database.md; columns marked "own" are ours.
-- Times are RFC 3339 UTC text with milliseconds and `Z`; JSON is text.

CREATE TABLE job_queue (
    id TEXT PRIMARY KEY NOT NULL,
    plugin TEXT NOT NULL,
    command TEXT NOT NULL,
    payload TEXT,
    status TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 1,
    max_attempts INTEGER NOT NULL DEFAULT 4,
    submitted_by TEXT NOT NULL,
    dedupe_key TEXT,
    created_at TEXT NOT NULL,
    started_at TEXT,
    completed_at TEXT,
    next_retry_at TEXT,
    last_error TEXT,
    parent_job_id TEXT,
    source_event_id TEXT,
    event_context_id TEXT,
    enqueued_config_snapshot_id INTEGER,
    started_config_snapshot_id INTEGER,
    -- own: the fence; grows with every claim
    claim_no INTEGER NOT NULL DEFAULT 0,
    -- own: the last claim that ended, negative when it was given back; tells a repeated call from a fenced one
    finished_claim_no INTEGER NOT NULL DEFAULT 0,
    -- own: the start of the gateway that owns the running row, and its process once spawned
    boot_id TEXT,
    pid INTEGER,
    pid_start INTEGER,
    -- own: who asked, beside the kind of trigger
    requested_by TEXT,
    -- own: the compiled route of a routed child, empty for plain routes
    target_key TEXT NOT NULL DEFAULT '',
    -- own: a cancellation that waits for the running attempt to end
    cancel_requested_at TEXT,
    cancel_requested_by TEXT,
    cancel_reason TEXT,
    -- own: the branch of a split that the job belongs to; its join waits for it
    join_id TEXT,
    join_branch INTEGER,
    -- own: 0 when what it emits starts no pipeline and follows no route
    is_routed INTEGER NOT NULL DEFAULT 1,
    -- own: which size of memory its attempts get: 0 for limits.memory, n for the n-th of limits.tiers
    memory_tier INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX job_queue_status_created_at_idx ON job_queue (status, created_at);
CREATE INDEX job_queue_plugin_command_status_idx ON job_queue (plugin, command, status);
CREATE INDEX job_queue_dedupe_status_completed_idx ON job_queue (dedupe_key, status, completed_at)
    WHERE dedupe_key IS NOT NULL;
CREATE UNIQUE INDEX job_queue_event_source_idx
    ON job_queue (parent_job_id, source_event_id, plugin, command, target_key)
    WHERE source_event_id IS NOT NULL;
CREATE INDEX job_queue_queued_idx ON job_queue (plugin) WHERE status = 'queued';
CREATE INDEX job_queue_scheduled_idx ON job_queue (plugin, command)
    WHERE submitted_by = 'scheduler' AND status IN ('queued', 'running');
CREATE INDEX job_queue_retry_idx ON job_queue (next_retry_at) WHERE next_retry_at IS NOT NULL;
CREATE INDEX job_queue_parent_idx ON job_queue (parent_job_id) WHERE parent_job_id IS NOT NULL;
CREATE INDEX job_queue_context_idx ON job_queue (event_context_id) WHERE event_context_id IS NOT NULL;

CREATE TRIGGER job_queue_born_queued BEFORE INSERT ON job_queue
WHEN NEW.status <> 'queued'
BEGIN
    SELECT RAISE(ABORT, 'illegal transition: a job begins as queued');
END;
CREATE TRIGGER job_queue_legal_transition BEFORE UPDATE OF status ON job_queue
WHEN OLD.status <> NEW.status AND OLD.status || '>' || NEW.status NOT IN (
    'queued>running', 'queued>dead', 'running>succeeded', 'running>skipped', 'running>queued', 'running>failed',
    'running>dead'
)
BEGIN
    SELECT RAISE(ABORT, 'illegal transition of job_queue.status');
END;

CREATE TABLE job_transitions (
    id INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL,
    from_status TEXT,
    to_status TEXT NOT NULL,
    reason TEXT,
    created_at TEXT NOT NULL,
    -- own
    attempt INTEGER
);
CREATE INDEX job_transitions_job_idx ON job_transitions (job_id);

CREATE TABLE job_attempts (
    id INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    -- own: how the attempt ended
    status TEXT NOT NULL,
    cause TEXT,
    exit_code INTEGER,
    signal INTEGER,
    error TEXT,
    started_at TEXT,
    completed_at TEXT,
    config_snapshot_id INTEGER,
    -- own: what it used, as far as it is known: processor time, most memory at a time in bytes
    cpu_ms INTEGER,
    peak_memory INTEGER
);
CREATE UNIQUE INDEX job_attempts_job_attempt_idx ON job_attempts (job_id, attempt);

CREATE TABLE job_log (
    id TEXT PRIMARY KEY NOT NULL,
    job_id TEXT NOT NULL,
    plugin TEXT NOT NULL,
    command TEXT NOT NULL,
    status TEXT NOT NULL,
    result TEXT,
    attempt INTEGER NOT NULL,
    submitted_by TEXT NOT NULL,
    created_at TEXT NOT NULL,
    started_at TEXT,
    completed_at TEXT NOT NULL,
    last_error TEXT,
    stderr TEXT,
    parent_job_id TEXT,
    source_event_id TEXT,
    event_context_id TEXT,
    enqueued_config_snapshot_id INTEGER,
    started_config_snapshot_id INTEGER,
    -- own: what a replay needs once the queue's row is pruned; kept with the last attempt only
    payload TEXT,
    requested_by TEXT
);
CREATE INDEX job_log_completed_idx ON job_log (completed_at);
CREATE INDEX job_log_plugin_completed_idx ON job_log (plugin, completed_at);

CREATE TABLE job_stopwatch (
    id INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL,
    plugin TEXT NOT NULL,
    pipeline TEXT,
    step_id TEXT,
    pipeline_instance_id TEXT,
    attempt INTEGER NOT NULL,
    enter_wall_ns INTEGER NOT NULL,
    exit_wall_ns INTEGER NOT NULL,
    dur_ns INTEGER NOT NULL,
    runtime_pre_ns INTEGER NOT NULL,
    runtime_post_ns INTEGER NOT NULL,
    status TEXT NOT NULL,
    subs_json TEXT,
    recorded_at TEXT NOT NULL
);
CREATE INDEX job_stopwatch_job_idx ON job_stopwatch (job_id);

CREATE TABLE plugin_facts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    seq INTEGER,
    plugin_name TEXT NOT NULL,
    fact_type TEXT NOT NULL,
    job_id TEXT,
    command TEXT,
    fact_json TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE UNIQUE INDEX plugin_facts_seq_idx ON plugin_facts (seq) WHERE seq IS NOT NULL;
CREATE INDEX plugin_facts_plugin_seq_idx ON plugin_facts (plugin_name, seq);
CREATE INDEX plugin_facts_plugin_type_idx ON plugin_facts (plugin_name, fact_type, id);

CREATE TABLE storage_sequences (
    name TEXT PRIMARY KEY NOT NULL,
    value INTEGER NOT NULL
);
INSERT INTO storage_sequences (name, value) VALUES ('plugin_facts', 0);

CREATE TABLE plugin_state (
    plugin_name TEXT PRIMARY KEY NOT NULL,
    state TEXT NOT NULL DEFAULT '{}',
    updated_at TEXT
);

CREATE TABLE event_context (
    id TEXT PRIMARY KEY NOT NULL,
    parent_id TEXT,
    pipeline_name TEXT,
    step_id TEXT,
    accumulated_json TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE INDEX event_context_parent_idx ON event_context (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX event_context_created_idx ON event_context (created_at);
CREATE INDEX event_context_pipeline_idx ON event_context (pipeline_name, created_at) WHERE pipeline_name IS NOT NULL;

-- own: one row for each time that a split with a join is entered
CREATE TABLE pipeline_joins (
    id TEXT PRIMARY KEY NOT NULL,
    -- the join that waits for this one, and as which of its branches
    outer_id TEXT,
    outer_branch INTEGER,
    -- jobs in its branches that have not ended, and joins nested in them that have not fired; at 0 it fires
    open INTEGER NOT NULL,
    -- the core.join job that follows, as JSON, and its context
    job TEXT NOT NULL,
    event_context_id TEXT,
    created_at TEXT NOT NULL,
    fired_at TEXT,
    fired_job_id TEXT
);
CREATE INDEX pipeline_joins_fired_idx ON pipeline_joins (fired_at) WHERE fired_at IS NOT NULL;
CREATE INDEX pipeline_joins_context_idx ON pipeline_joins (event_context_id) WHERE fired_at IS NULL;
CREATE TRIGGER pipeline_joins_fire_once BEFORE UPDATE ON pipeline_joins
WHEN OLD.fired_at IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a join fires once');
END;

-- own: what each branch has brought so far
CREATE TABLE pipeline_join_branches (
    join_id TEXT NOT NULL REFERENCES pipeline_joins (id) ON DELETE CASCADE,
    branch INTEGER NOT NULL,
    step TEXT NOT NULL,
    -- open, succeeded or failed
    status TEXT NOT NULL,
    payload TEXT,
    error TEXT,
    job_id TEXT,
    PRIMARY KEY (join_id, branch)
) WITHOUT ROWID;

CREATE TABLE circuit_breakers (
    plugin TEXT NOT NULL,
    command TEXT NOT NULL,
    state TEXT NOT NULL,
    failure_count INTEGER NOT NULL DEFAULT 0,
    opened_at TEXT,
    last_failure_at TEXT,
    last_job_id TEXT,
    updated_at TEXT NOT NULL,
    -- own: the job whose end decides while it is half-open
    probe_job_id TEXT,
    PRIMARY KEY (plugin, command)
);

CREATE TABLE circuit_breaker_transitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    plugin TEXT NOT NULL,
    command TEXT NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    failure_count INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL,
    job_id TEXT,
    created_at TEXT NOT NULL
);
CREATE INDEX circuit_breaker_transitions_plugin_idx ON circuit_breaker_transitions (plugin, command, id);

CREATE TABLE schedule_entries (
    plugin TEXT NOT NULL,
    schedule_id TEXT NOT NULL,
    command TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    last_fired_at TEXT,
    last_success_job_id TEXT,
    last_success_at TEXT,
    next_run_at TEXT,
    updated_at TEXT,
    -- own: the timing under which its ticks are expected, and where the grid of an interval begins
    fingerprint TEXT,
    anchor_at TEXT,
    -- own: the start of the gateway that armed a delay
    armed_by TEXT,
    PRIMARY KEY (plugin, schedule_id)
);

-- own: every instant at which a schedule was or will be due, with its end
CREATE TABLE schedule_ticks (
    id INTEGER PRIMARY KEY,
    plugin TEXT NOT NULL,
    schedule_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    instant TEXT NOT NULL,
    due_at TEXT NOT NULL,
    -- expected, fired, caught_up, skipped, missed
    status TEXT NOT NULL,
    reason TEXT,
    job_id TEXT,
    -- of a run of missed instants that share a row: how many, and the last of them
    instants INTEGER NOT NULL DEFAULT 1,
    last_instant TEXT,
    created_at TEXT NOT NULL,
    ended_at TEXT
);
CREATE UNIQUE INDEX schedule_ticks_identity_idx ON schedule_ticks (plugin, schedule_id, fingerprint, instant);
CREATE INDEX schedule_ticks_expected_idx ON schedule_ticks (plugin, schedule_id, instant) WHERE status = 'expected';
CREATE INDEX schedule_ticks_ended_idx ON schedule_ticks (ended_at) WHERE ended_at IS NOT NULL;
CREATE TRIGGER schedule_ticks_end_once BEFORE UPDATE ON schedule_ticks
WHEN OLD.status <> 'expected'
BEGIN
    SELECT RAISE(ABORT, 'a tick ends once');
END;

-- own: what is known of a job that kept ending abnormally, for whoever looks into it
CREATE TABLE job_quarantine (
    job_id TEXT PRIMARY KEY NOT NULL,
    plugin TEXT NOT NULL,
    command TEXT NOT NULL,
    reason TEXT NOT NULL,
    -- JSON: request without the plugin's configuration, fingerprint, limits, last output, resource use of each attempt
    bundle TEXT NOT NULL,
    created_at TEXT NOT NULL
);

-- own: how large the file was
CREATE TABLE storage_samples (
    at TEXT PRIMARY KEY NOT NULL,
    file_bytes INTEGER NOT NULL,
    wal_bytes INTEGER NOT NULL,
    free_bytes INTEGER NOT NULL
);

CREATE TABLE config_snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    config_hash TEXT NOT NULL,
    source_hash TEXT,
    source_path TEXT,
    source TEXT,
    reason TEXT NOT NULL,
    loaded_at TEXT NOT NULL,
    ductile_version TEXT,
    binary_path TEXT,
    snapshot_format INTEGER,
    semantics TEXT,
    plugin_fingerprints TEXT,
    sanitized_config TEXT,
    secret_fingerprints TEXT
);

-- own: facts about the file itself: clean_shutdown, last_prune_at, last_stop_at, boot_id
CREATE TABLE ledger_meta (
    name TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
);

CREATE TRIGGER job_transitions_append_only BEFORE UPDATE ON job_transitions
BEGIN
    SELECT RAISE(ABORT, 'job_transitions is append-only');
END;
CREATE TRIGGER job_attempts_append_only BEFORE UPDATE ON job_attempts
BEGIN
    SELECT RAISE(ABORT, 'job_attempts is append-only');
END;
CREATE TRIGGER job_log_append_only BEFORE UPDATE ON job_log
BEGIN
    SELECT RAISE(ABORT, 'job_log is append-only');
END;
CREATE TRIGGER plugin_facts_append_only BEFORE UPDATE ON plugin_facts
BEGIN
    SELECT RAISE(ABORT, 'plugin_facts is append-only');
END;
CREATE TRIGGER event_context_append_only BEFORE UPDATE ON event_context
BEGIN
    SELECT RAISE(ABORT, 'event_context is append-only');
END;
CREATE TRIGGER config_snapshots_append_only BEFORE UPDATE ON config_snapshots
BEGIN
    SELECT RAISE(ABORT, 'config_snapshots is append-only');
END;
CREATE TRIGGER circuit_breaker_transitions_append_only BEFORE UPDATE ON circuit_breaker_transitions
BEGIN
    SELECT RAISE(ABORT, 'circuit_breaker_transitions is append-only');
END;
