-- New jobs. `gate` names the finish whose child this is: without its application there is no child.
-- `dup` is the job that suppresses this one: succeeded within the window, in flight when asked for, or the same routed
-- event and target. `+column` keeps the planner on the index of keys: that of plugins would walk over a long queue.

CREATE TEMP TABLE batch_enqueue (
    n INTEGER PRIMARY KEY, op INTEGER, idx INTEGER, id TEXT, plugin TEXT, command TEXT, payload TEXT,
    max_attempts INTEGER, submitted_by TEXT, requested_by TEXT, dedupe_key TEXT, since TEXT, in_flight INTEGER,
    parent TEXT, source_event TEXT, target_key TEXT, context TEXT, snapshot INTEGER, dup TEXT
);
CREATE INDEX temp.batch_enqueue_key ON batch_enqueue (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX temp.batch_enqueue_event ON batch_enqueue (source_event) WHERE source_event IS NOT NULL;
CREATE TEMP VIEW batch_enqueues (at, ops) AS SELECT NULL, NULL;
CREATE TEMP TRIGGER batch_enqueues_run INSTEAD OF INSERT ON batch_enqueues
BEGIN
    DELETE FROM batch_enqueue;
    INSERT INTO batch_enqueue
        SELECT j.key, j.value ->> 0, j.value ->> 1, j.value ->> 3, j.value ->> 4, j.value ->> 5, j.value ->> 6,
            j.value ->> 7, j.value ->> 8, j.value ->> 9, j.value ->> 10, j.value ->> 11, j.value ->> 12,
            j.value ->> 13, j.value ->> 14, j.value ->> 15, j.value ->> 16, j.value ->> 17, NULL
        FROM jsonb_each(NEW.ops) j
        WHERE j.value ->> 2 IS NULL
            OR EXISTS (SELECT 1 FROM batch_finish f WHERE f.op = j.value ->> 2 AND f.result = 1);
    UPDATE batch_enqueue SET dup = coalesce(
            (SELECT q.id FROM job_queue q
                WHERE q.dedupe_key = batch_enqueue.dedupe_key AND q.status IN ('queued', 'running')
                    AND +q.plugin = batch_enqueue.plugin AND +q.command = batch_enqueue.command
                    AND batch_enqueue.in_flight LIMIT 1),
            (SELECT q.id FROM job_queue q
                WHERE q.dedupe_key = batch_enqueue.dedupe_key AND q.status = 'succeeded'
                    AND q.completed_at > batch_enqueue.since
                    AND +q.plugin = batch_enqueue.plugin AND +q.command = batch_enqueue.command
                ORDER BY q.completed_at DESC LIMIT 1))
        WHERE dedupe_key IS NOT NULL;
    UPDATE batch_enqueue SET dup =
            (SELECT q.id FROM job_queue q
                WHERE q.parent_job_id = batch_enqueue.parent AND q.source_event_id = batch_enqueue.source_event
                    AND q.plugin = batch_enqueue.plugin AND q.command = batch_enqueue.command
                    AND q.target_key = batch_enqueue.target_key)
        WHERE source_event IS NOT NULL AND dup IS NULL;
    -- the first of several twins in one batch becomes the row, the others are its duplicates
    UPDATE batch_enqueue SET dup =
            (SELECT e.id FROM batch_enqueue e
                WHERE e.n < batch_enqueue.n AND e.dup IS NULL
                    AND e.plugin = batch_enqueue.plugin AND e.command = batch_enqueue.command
                    AND ((e.dedupe_key = batch_enqueue.dedupe_key AND batch_enqueue.in_flight)
                        OR (e.parent = batch_enqueue.parent AND e.source_event = batch_enqueue.source_event
                            AND e.target_key = batch_enqueue.target_key))
                ORDER BY e.n LIMIT 1)
        WHERE dup IS NULL AND ((dedupe_key IS NOT NULL AND in_flight) OR source_event IS NOT NULL);
    INSERT INTO job_queue (id, plugin, command, payload, status, max_attempts, submitted_by, requested_by, dedupe_key,
            created_at, parent_job_id, source_event_id, target_key, event_context_id, enqueued_config_snapshot_id)
        SELECT e.id, e.plugin, e.command, e.payload, 'queued', e.max_attempts, e.submitted_by, e.requested_by,
            e.dedupe_key, NEW.at, e.parent, e.source_event, e.target_key, e.context, e.snapshot
        FROM batch_enqueue e WHERE e.dup IS NULL ORDER BY e.n;
    INSERT INTO batch_transition (job, to_status, reason, attempt)
        SELECT e.id, 'queued', 'enqueued by ' || e.submitted_by, 1
        FROM batch_enqueue e WHERE e.dup IS NULL ORDER BY e.n;
END;
