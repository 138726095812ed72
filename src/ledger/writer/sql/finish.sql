-- Ends of attempts: finished (with an attempt status) or given back (without one).
-- `result`: 0 fenced, 1 applied, 2 already applied. Every statement below looks at rows with result 1 only, so a
-- fenced or repeated call changes nothing.

CREATE TEMP TABLE batch_finish (
    op INTEGER PRIMARY KEY, result INTEGER, q INTEGER, job TEXT, claim_no INTEGER, attempt INTEGER,
    attempt_status TEXT, to_status TEXT, due TEXT, error TEXT, first_reason TEXT, second_reason TEXT, output TEXT,
    stderr TEXT, cause TEXT, exit_code INTEGER, signal INTEGER, ended_at TEXT, enter_wall_ns INTEGER,
    exit_wall_ns INTEGER, dur_ns INTEGER, runtime_pre_ns INTEGER, runtime_post_ns INTEGER, subs TEXT
);
-- Facts and states, apart: most attempts have none, and its window would be set up for every batch.
CREATE TEMP VIEW batch_memory (at, facts, states) AS SELECT NULL, NULL, NULL;
CREATE TEMP TRIGGER batch_memory_run INSTEAD OF INSERT ON batch_memory
BEGIN
    INSERT INTO plugin_facts (seq, plugin_name, fact_type, job_id, command, fact_json, created_at)
        SELECT s.value + row_number() OVER (ORDER BY x.key), q.plugin, x.value ->> 1, f.job, q.command,
            x.value ->> 2, NEW.at
        FROM jsonb_each(NEW.facts) x
        CROSS JOIN batch_finish f ON f.op = x.value ->> 0 AND f.result = 1
        CROSS JOIN job_queue q ON q.rowid = f.q
        CROSS JOIN storage_sequences s ON s.name = 'plugin_facts'
        WHERE NEW.facts IS NOT NULL ORDER BY x.key;
    UPDATE storage_sequences SET value = max(value, (SELECT coalesce(max(seq), 0) FROM plugin_facts WHERE seq IS NOT NULL))
        WHERE name = 'plugin_facts' AND NEW.facts IS NOT NULL;
    INSERT INTO plugin_state (plugin_name, state, updated_at)
        SELECT q.plugin, x.value ->> 1, NEW.at
        FROM jsonb_each(NEW.states) x
        CROSS JOIN batch_finish f ON f.op = x.value ->> 0 AND f.result = 1
        CROSS JOIN job_queue q ON q.rowid = f.q
        WHERE NEW.states IS NOT NULL ORDER BY x.key
        ON CONFLICT (plugin_name) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at;
END;

CREATE TEMP VIEW batch_finishes (at, ops, facts, states) AS SELECT NULL, NULL, NULL, NULL;
CREATE TEMP TRIGGER batch_finishes_run INSTEAD OF INSERT ON batch_finishes
BEGIN
    DELETE FROM batch_finish;
    INSERT INTO batch_finish
        SELECT j.value ->> 0,
            CASE WHEN q.status = 'running' AND q.claim_no = j.value ->> 2 THEN 1
                 WHEN q.finished_claim_no = CASE WHEN j.value ->> 3 IS NULL THEN -1 ELSE 1 END * (j.value ->> 2) THEN 2
                 ELSE 0 END,
            q.rowid, j.value ->> 1, j.value ->> 2, q.attempt, j.value ->> 3,
            -- a cancelled job is never tried again
            CASE WHEN j.value ->> 4 = 'queued' AND q.cancel_requested_at IS NOT NULL THEN 'dead'
                 ELSE j.value ->> 4 END,
            j.value ->> 5,
            CASE WHEN j.value ->> 4 = 'queued' AND q.cancel_requested_at IS NOT NULL
                 THEN 'cancelled: ' || q.cancel_reason ELSE j.value ->> 6 END,
            j.value ->> 7,
            CASE WHEN j.value ->> 4 = 'queued' AND q.cancel_requested_at IS NOT NULL
                 THEN 'cancelled: ' || q.cancel_reason ELSE j.value ->> 8 END,
            j.value ->> 9, j.value ->> 10, j.value ->> 11, j.value ->> 12, j.value ->> 13, j.value ->> 14,
            j.value ->> 15, j.value ->> 16, j.value ->> 17, j.value ->> 18, j.value ->> 19, j.value ->> 20
        FROM jsonb_each(NEW.ops) j LEFT JOIN job_queue q ON q.id = j.value ->> 1;

    INSERT INTO job_log (id, job_id, plugin, command, status, result, attempt, submitted_by, created_at, started_at,
            completed_at, last_error, stderr, parent_job_id, source_event_id, event_context_id,
            enqueued_config_snapshot_id, started_config_snapshot_id, payload, requested_by)
        SELECT f.job || '-' || f.attempt, f.job, q.plugin, q.command, f.attempt_status, f.output, f.attempt,
            q.submitted_by, q.created_at, q.started_at, f.ended_at, f.error, f.stderr, q.parent_job_id,
            q.source_event_id, q.event_context_id, q.enqueued_config_snapshot_id, q.started_config_snapshot_id,
            CASE WHEN f.to_status <> 'queued' THEN q.payload END, q.requested_by
        FROM batch_finish f CROSS JOIN job_queue q ON q.rowid = f.q
        WHERE f.result = 1 AND f.attempt_status IS NOT NULL ORDER BY f.op;

    INSERT INTO job_attempts (job_id, attempt, created_at, status, cause, exit_code, signal, error, started_at,
            completed_at, config_snapshot_id)
        SELECT f.job, f.attempt, NEW.at, f.attempt_status, f.cause, f.exit_code, f.signal, f.error, q.started_at,
            f.ended_at, q.started_config_snapshot_id
        FROM batch_finish f CROSS JOIN job_queue q ON q.rowid = f.q
        WHERE f.result = 1 AND f.attempt_status IS NOT NULL ORDER BY f.op;

    INSERT INTO job_stopwatch (job_id, plugin, attempt, enter_wall_ns, exit_wall_ns, dur_ns, runtime_pre_ns,
            runtime_post_ns, status, subs_json, recorded_at)
        SELECT f.job, q.plugin, f.attempt, f.enter_wall_ns, f.exit_wall_ns, f.dur_ns, f.runtime_pre_ns,
            f.runtime_post_ns,
            CASE f.attempt_status WHEN 'succeeded' THEN 'ok' WHEN 'timed_out' THEN 'timeout' ELSE 'err' END,
            f.subs, NEW.at
        FROM batch_finish f CROSS JOIN job_queue q ON q.rowid = f.q
        WHERE f.result = 1 AND f.enter_wall_ns IS NOT NULL ORDER BY f.op;

    -- numbered so that the two of one end follow each other, without a sort
    INSERT INTO batch_transition (n, job, from_status, to_status, reason, attempt)
        SELECT 2 * f.op + 1, f.job, 'running', coalesce(f.attempt_status, f.to_status),
            CASE WHEN f.attempt_status IS NULL AND f.to_status = 'dead' THEN f.second_reason ELSE f.first_reason END,
            f.attempt
        FROM batch_finish f WHERE f.result = 1;
    INSERT INTO batch_transition (n, job, from_status, to_status, reason, attempt)
        SELECT 2 * f.op + 2, f.job, f.attempt_status, f.to_status, f.second_reason, f.attempt
        FROM batch_finish f WHERE f.result = 1 AND f.attempt_status <> f.to_status;

    UPDATE job_queue SET
            status = f.to_status,
            attempt = f.attempt + (f.to_status = 'queued' AND f.attempt_status IS NOT NULL),
            started_at = CASE WHEN f.to_status <> 'queued' THEN job_queue.started_at END,
            completed_at = CASE WHEN f.to_status <> 'queued' THEN f.ended_at END,
            next_retry_at = CASE WHEN f.to_status = 'queued' THEN f.due END,
            last_error = CASE WHEN f.attempt_status IS NULL AND f.to_status = 'queued' THEN job_queue.last_error
                              ELSE f.error END,
            finished_claim_no = CASE WHEN f.attempt_status IS NULL THEN -f.claim_no ELSE f.claim_no END,
            boot_id = CASE WHEN f.to_status <> 'queued' THEN job_queue.boot_id END,
            pid = NULL, pid_start = NULL
        FROM batch_finish f WHERE job_queue.rowid = f.q AND f.result = 1;

    INSERT INTO batch_memory (at, facts, states) SELECT NEW.at, NEW.facts, NEW.states
        WHERE NEW.facts IS NOT NULL OR NEW.states IS NOT NULL;
END;

CREATE TEMP VIEW batch_spawns (ops) AS SELECT NULL;
CREATE TEMP TRIGGER batch_spawns_run INSTEAD OF INSERT ON batch_spawns
BEGIN
    UPDATE job_queue SET pid = j.value ->> 2, pid_start = j.value ->> 3
        FROM jsonb_each(NEW.ops) j
        WHERE job_queue.id = j.value ->> 0 AND job_queue.claim_no = j.value ->> 1 AND +job_queue.status = 'running';
END;
