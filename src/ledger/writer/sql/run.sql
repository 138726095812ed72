INSERT INTO batch (at, finishes, spawns, facts, states, cancels, enqueues, claims)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8);
-- the transaction has ended; a section's table holds what an earlier batch left unless this one filled it
SELECT json_array(
    (SELECT max(id) FROM job_transitions) - (SELECT count(*) FROM batch_transition),
    (SELECT json_group_array(json_array(f.op, f.result, q.status, f.q, q.plugin, q.next_retry_at, q.attempt))
        FROM batch_finish f LEFT JOIN job_queue q ON q.rowid = f.q WHERE ?2 IS NOT NULL),
    (SELECT json_group_array(json_array(c.op, c.before)) FROM batch_cancel c WHERE ?6 IS NOT NULL),
    (SELECT json_group_array(json_array(e.op, e.idx, q.id, q.status, e.dup IS NOT NULL, q.rowid, q.plugin))
        FROM batch_enqueue e CROSS JOIN job_queue q ON q.id = coalesce(e.dup, e.id) WHERE ?7 IS NOT NULL),
    (SELECT json_group_array(json_array(c.op, c.q, c.job, c.verdict, q.plugin, q.command, q.payload, q.attempt,
            q.max_attempts, q.submitted_by, q.dedupe_key, q.created_at, q.claim_no, q.parent_job_id,
            (SELECT s.state FROM plugin_state s WHERE s.plugin_name = q.plugin),
            (SELECT x.accumulated_json FROM event_context x WHERE x.id = q.event_context_id)))
        FROM batch_claim c LEFT JOIN job_queue q ON q.rowid = c.q AND c.verdict = 0 WHERE ?8 IS NOT NULL),
    (SELECT json_group_array(json_array(t.job, t.from_status, t.to_status, t.reason)) FROM
        (SELECT * FROM batch_transition ORDER BY n) t))
