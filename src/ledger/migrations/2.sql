-- From version 1: ticks of schedules, quarantine, sizes of the file.
ALTER TABLE job_queue ADD COLUMN memory_tier INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job_attempts ADD COLUMN cpu_ms INTEGER;
ALTER TABLE job_attempts ADD COLUMN peak_memory INTEGER;
CREATE INDEX job_queue_scheduled_idx ON job_queue (plugin, command)
    WHERE submitted_by = 'scheduler' AND status IN ('queued', 'running');
ALTER TABLE circuit_breakers ADD COLUMN probe_job_id TEXT;
ALTER TABLE schedule_entries ADD COLUMN fingerprint TEXT;
ALTER TABLE schedule_entries ADD COLUMN anchor_at TEXT;
ALTER TABLE schedule_entries ADD COLUMN armed_by TEXT;

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
