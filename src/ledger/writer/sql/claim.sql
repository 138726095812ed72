-- Claims. Candidates are hints, each job at most once in a batch: status, due time, caps and running twins are decided
-- here, from rows.
-- `verdict`: 0 taken, 1 gone (no such row, or not queued), 2 not due, 3 a twin runs, 4 cap of the plugin,
-- 5 cap over all plugins.

CREATE TEMP TABLE batch_claim (
    n INTEGER PRIMARY KEY, op INTEGER, q INTEGER, job TEXT, cap INTEGER, max_running INTEGER, boot TEXT,
    snapshot INTEGER, plugin TEXT, command TEXT, dedupe_key TEXT, verdict INTEGER
);
CREATE INDEX temp.batch_claim_key ON batch_claim (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE TEMP VIEW batch_caps (running) AS SELECT NULL;
CREATE TEMP TRIGGER batch_caps_run INSTEAD OF INSERT ON batch_caps
BEGIN
    UPDATE batch_claim SET verdict = 4
        FROM (SELECT c.n, row_number() OVER (PARTITION BY c.plugin ORDER BY c.n) + coalesce(r.running, 0) AS place
                FROM batch_claim c LEFT JOIN (
                    SELECT q.plugin, count(*) AS running FROM job_queue q WHERE q.status = 'running' GROUP BY q.plugin
                ) r ON r.plugin = c.plugin
                WHERE c.verdict = 0) p
        WHERE batch_claim.n = p.n AND p.place > batch_claim.cap;
    UPDATE batch_claim SET verdict = 5
        FROM (SELECT c.n, row_number() OVER (ORDER BY c.n) AS place FROM batch_claim c WHERE c.verdict = 0) p
        WHERE batch_claim.n = p.n AND p.place + NEW.running > batch_claim.max_running;
END;
CREATE TEMP VIEW batch_claims (at, ops) AS SELECT NULL, NULL;
CREATE TEMP TRIGGER batch_claims_run INSTEAD OF INSERT ON batch_claims
BEGIN
    DELETE FROM batch_claim;
    INSERT INTO batch_claim
        SELECT j.key, j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, j.value ->> 5,
            j.value ->> 6, q.plugin, q.command, q.dedupe_key,
            CASE WHEN q.status IS NOT 'queued' THEN 1
                 WHEN q.next_retry_at > NEW.at THEN 2
                 WHEN q.dedupe_key IS NOT NULL AND EXISTS (
                     SELECT 1 FROM job_queue r WHERE r.dedupe_key = q.dedupe_key AND r.status = 'running'
                         AND +r.plugin = q.plugin AND +r.command = q.command) THEN 3
                 ELSE 0 END
        FROM jsonb_each(NEW.ops) j
        LEFT JOIN job_queue q ON q.rowid = j.value ->> 1 AND q.id = j.value ->> 2;
    UPDATE batch_claim SET verdict = 3
        WHERE verdict = 0 AND dedupe_key IS NOT NULL
            AND EXISTS (SELECT 1 FROM batch_claim c WHERE c.n < batch_claim.n AND c.verdict = 0
                AND c.dedupe_key = batch_claim.dedupe_key AND c.plugin = batch_claim.plugin
                AND c.command = batch_claim.command);
    -- the usual case first: so few run that no cap can bind
    INSERT INTO batch_caps (running) SELECT w.running
        FROM (SELECT (SELECT count(*) FROM job_queue q WHERE q.status = 'running') AS running, count(*) AS wanted,
                min(min(c.cap, c.max_running)) AS least
            FROM batch_claim c WHERE c.verdict = 0) w
        WHERE w.running + w.wanted > w.least;
    UPDATE job_queue SET status = 'running', started_at = NEW.at, next_retry_at = NULL,
            claim_no = job_queue.claim_no + 1, boot_id = c.boot, pid = NULL, pid_start = NULL,
            started_config_snapshot_id = c.snapshot
        FROM batch_claim c WHERE job_queue.rowid = c.q AND c.verdict = 0;
    INSERT INTO batch_transition (job, from_status, to_status, reason, attempt)
        SELECT c.job, 'queued', 'running', 'attempt ' || q.attempt || ' of ' || q.max_attempts, q.attempt
        FROM batch_claim c CROSS JOIN job_queue q ON q.rowid = c.q WHERE c.verdict = 0 ORDER BY c.n;
END;
