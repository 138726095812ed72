-- Cancellations: a queued row dies at once, a running one gets a flag that its attempt's end obeys.
-- `before` is the status found, NULL when there is no such job.

CREATE TEMP TABLE batch_cancel (
    op INTEGER PRIMARY KEY, q INTEGER, job TEXT, before TEXT, attempt INTEGER, reason TEXT, requested_by TEXT, n INTEGER
);
CREATE TEMP VIEW batch_cancels (at, ops) AS SELECT NULL, NULL;
CREATE TEMP TRIGGER batch_cancels_run INSTEAD OF INSERT ON batch_cancels
BEGIN
    DELETE FROM batch_cancel;
    INSERT INTO batch_cancel
        SELECT j.value ->> 0, q.rowid, j.value ->> 1, q.status, q.attempt, j.value ->> 2, j.value ->> 3, NULL
        FROM jsonb_each(NEW.ops) j LEFT JOIN job_queue q ON q.id = j.value ->> 1;
    UPDATE job_queue SET status = 'dead', completed_at = NEW.at, next_retry_at = NULL,
            last_error = 'cancelled: ' || c.reason, cancel_requested_at = NEW.at,
            cancel_requested_by = c.requested_by, cancel_reason = c.reason
        FROM batch_cancel c WHERE job_queue.rowid = c.q AND c.before = 'queued';
    UPDATE job_queue SET cancel_requested_at = NEW.at, cancel_requested_by = c.requested_by, cancel_reason = c.reason
        FROM batch_cancel c
        WHERE job_queue.rowid = c.q AND c.before = 'running' AND job_queue.cancel_requested_at IS NULL;
    INSERT INTO batch_transition (job, from_status, to_status, reason, attempt)
        SELECT c.job, 'queued', 'dead', 'cancelled: ' || c.reason, c.attempt
        FROM batch_cancel c WHERE c.before = 'queued' ORDER BY c.op;
END;
