-- One batch is one INSERT into this view, hence one statement and one transaction: SQLite commits or undoes it as a
-- whole, and the hand-over to the connection's thread is paid once. Each column carries the operations of one kind as
-- a JSON array of arrays, or NULL. Everything lives in the connection's temp schema; the file knows nothing of it.
-- The order is part of the contract: a slot freed by a finish can be claimed in the same batch, so claims come last.

CREATE TEMP TABLE batch_transition (
    n INTEGER PRIMARY KEY, job TEXT, from_status TEXT, to_status TEXT, reason TEXT, attempt INTEGER
);
CREATE TEMP VIEW batch (at, finishes, spawns, facts, states, cancels, enqueues, claims) AS
    SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;
CREATE TEMP TRIGGER batch_run INSTEAD OF INSERT ON batch
BEGIN
    DELETE FROM batch_transition;
    INSERT INTO batch_finishes (at, ops, facts, states) SELECT NEW.at, NEW.finishes, NEW.facts, NEW.states
        WHERE NEW.finishes IS NOT NULL;
    INSERT INTO batch_spawns (ops) SELECT NEW.spawns WHERE NEW.spawns IS NOT NULL;
    INSERT INTO batch_cancels (at, ops) SELECT NEW.at, NEW.cancels WHERE NEW.cancels IS NOT NULL;
    INSERT INTO batch_enqueues (at, ops) SELECT NEW.at, NEW.enqueues WHERE NEW.enqueues IS NOT NULL;
    INSERT INTO batch_claims (at, ops) SELECT NEW.at, NEW.claims WHERE NEW.claims IS NOT NULL;
    INSERT INTO job_transitions (job_id, from_status, to_status, reason, created_at, attempt)
        SELECT t.job, t.from_status, t.to_status, t.reason, NEW.at, t.attempt FROM batch_transition t ORDER BY t.n;
END;
