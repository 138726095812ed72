//! The rare operations: recovery, configuration snapshots, pruning, checkpoints. Each has the connection for itself.

use std::sync::Arc;

use ductile_domain::ids::JobId;
use ductile_domain::job::Fence;
use ductile_domain::outcome::{Cause, Outcome};
use ductile_domain::plan::Plan;
use ductile_domain::retry::{RetryPolicy, decide};
use ductile_domain::time::{self, Timestamp};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use tokio::sync::oneshot;

use super::Op;
use super::batch::Batch;
use super::task::{InForce, Task};
use crate::error::WriteError;
use crate::ops::{Deletable, Finish, Orphan, Prune, Pruned, Recorded, Recovered, Snapshot, Transition, Verdict};

/// Orphans finished per transaction.
const RECOVERY_STEP: usize = 128;

impl Task {
    pub(super) async fn orphans(&mut self) -> Result<Vec<Orphan>, WriteError> {
        let rows = sqlx::query(
            "SELECT id, claim_no, plugin, command, attempt, max_attempts, boot_id, pid, pid_start FROM job_queue
             WHERE status = 'running' AND boot_id IS NOT ?1 ORDER BY rowid",
        )
        .bind(self.boot.to_string())
        .fetch_all(&mut self.conn)
        .await?;
        // a row whose id is no UUID was not written by us, and must not keep the gateway from starting
        Ok(rows.iter().filter_map(orphan).collect())
    }

    pub(super) async fn recover(&mut self) -> Result<Vec<Recovered>, WriteError> {
        let orphans = self.orphans().await?;
        let mut recovered = Vec::with_capacity(orphans.len());
        for chunk in orphans.chunks(RECOVERY_STEP) {
            let now = self.now();
            let mut batch = Batch::default();
            let mut answers = Vec::with_capacity(chunk.len());
            for orphan in chunk {
                let (reply, answer) = oneshot::channel();
                // each job stands once in the list, and a step is smaller than a batch
                let _ = batch.admit(Op::Finish(Box::new(crashed(orphan, now)), reply));
                answers.push((orphan, answer));
            }
            self.commit(batch, Vec::new()).await;
            for (orphan, answer) in answers {
                let finished = answer.await.unwrap_or(Err(WriteError::Closed))?;
                if finished.verdict == Verdict::Applied {
                    recovered.push(Recovered { orphan: orphan.clone(), finished });
                }
            }
        }
        Ok(recovered)
    }

    pub(super) async fn mark(&mut self, name: &str, value: Option<String>) -> Result<(), WriteError> {
        self.set_synchronous(true).await?;
        let query = match value {
            Some(value) => sqlx::query(
                "INSERT INTO ledger_meta (name, value) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )
            .bind(name)
            .bind(value),
            None => sqlx::query("DELETE FROM ledger_meta WHERE name = ?1").bind(name),
        };
        query.execute(&mut self.conn).await?;
        Ok(())
    }

    pub(super) async fn record_snapshot(&mut self, snapshot: Snapshot) -> Result<Recorded, WriteError> {
        self.set_synchronous(true).await?;
        self.begin().await?;
        let result = self.write_snapshot(&snapshot).await;
        let recorded = self.end(result).await?;
        self.in_force =
            Some(InForce { generation: snapshot.generation, plugins: snapshot.plugins.into_iter().collect() });
        Ok(recorded)
    }

    async fn write_snapshot(&mut self, snapshot: &Snapshot) -> Result<Recorded, sqlx::Error> {
        let at = self.now();
        let now = time::format(at);
        let id = sqlx::query(
            "INSERT INTO config_snapshots (config_hash, source_hash, source_path, source, reason, loaded_at,
                ductile_version, binary_path, snapshot_format, semantics, plugin_fingerprints, sanitized_config,
                secret_fingerprints) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, 'merged', ?9, ?10, ?11)",
        )
        .bind(&snapshot.config_hash)
        .bind(&snapshot.source_hash)
        .bind(&snapshot.source_path)
        .bind(&snapshot.source)
        .bind(&snapshot.reason)
        .bind(&now)
        .bind(&snapshot.ductile_version)
        .bind(&snapshot.binary_path)
        .bind(&snapshot.plugin_fingerprints)
        .bind(&snapshot.sanitized_config)
        .bind(&snapshot.secret_fingerprints)
        .execute(&mut self.conn)
        .await?
        .last_insert_rowid();
        let plugins = serde_json::to_string(&snapshot.plugins).expect("strings serialize into memory");
        let rows = sqlx::query(
            "UPDATE job_queue SET status = 'dead', completed_at = ?1, next_retry_at = NULL,
                last_error = 'cancelled: plugin ' || plugin || ' was removed or disabled'
             WHERE status = 'queued' AND plugin NOT LIKE 'core.%'
                AND plugin NOT IN (SELECT value FROM json_each(?2))
             RETURNING id, last_error, attempt",
        )
        .bind(&now)
        .bind(plugins)
        .fetch_all(&mut self.conn)
        .await?;
        let mut buried = Vec::with_capacity(rows.len());
        for row in rows {
            let (job, reason, attempt) = (row.get::<String, _>(0), row.get::<String, _>(1), row.get::<i64, _>(2));
            let id = sqlx::query(
                "INSERT INTO job_transitions (job_id, from_status, to_status, reason, created_at, attempt)
                 VALUES (?1, 'queued', 'dead', ?2, ?3, ?4)",
            )
            .bind(&job)
            .bind(&reason)
            .bind(&now)
            .bind(attempt)
            .execute(&mut self.conn)
            .await?
            .last_insert_rowid();
            if let Ok(job) = job.parse::<JobId>() {
                buried.push(Transition { id, job, from: Some("queued"), to: "dead", reason: Some(reason), at });
            }
        }
        Ok(Recorded { id, buried })
    }

    pub(super) async fn prune(&mut self, prune: &Prune) -> Result<Pruned, WriteError> {
        self.set_synchronous(false).await?;
        self.begin().await?;
        let result = self.delete_old(prune).await;
        self.end(result).await
    }

    async fn delete_old(&mut self, prune: &Prune) -> Result<Pruned, sqlx::Error> {
        let now = self.now();
        let mut pruned = Pruned::default();
        for (kind, age) in &prune.retention {
            let age = chrono::TimeDelta::from_std(*age).unwrap_or(chrono::TimeDelta::MAX);
            let mut deleted = 0;
            if let Some(cutoff) = now.checked_sub_signed(age) {
                for sql in deletions(*kind) {
                    let result =
                        sqlx::query(*sql).bind(time::format(cutoff)).bind(prune.limit).execute(&mut self.conn).await?;
                    pruned.has_more |= result.rows_affected() >= u64::from(prune.limit);
                    deleted += result.rows_affected();
                }
            }
            pruned.deleted.push((*kind, deleted));
        }
        sqlx::query(
            "INSERT INTO ledger_meta (name, value) VALUES ('last_prune_at', ?1)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(time::format(now))
        .execute(&mut self.conn)
        .await?;
        Ok(pruned)
    }

    pub(super) async fn checkpoint(&mut self) -> Result<(), WriteError> {
        sqlx::raw_sql("PRAGMA incremental_vacuum(1000); PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&mut self.conn)
            .await?;
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), WriteError> {
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut self.conn).await?;
        Ok(())
    }

    async fn end<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, WriteError> {
        let result = match result {
            Ok(value) => sqlx::raw_sql("COMMIT").execute(&mut self.conn).await.map(|_| value),
            Err(error) => Err(error),
        };
        if result.is_err() {
            // a full disk ends the transaction by itself: then there is nothing to roll back
            let _ = sqlx::raw_sql("ROLLBACK").execute(&mut self.conn).await;
        }
        result.map_err(WriteError::from)
    }
}

fn orphan(row: &SqliteRow) -> Option<Orphan> {
    Some(Orphan {
        fence: Fence { job: row.get::<String, _>(0).parse().ok()?, claim_no: row.get(1) },
        plugin: Arc::from(row.get::<String, _>(2)),
        command: Arc::from(row.get::<String, _>(3)),
        attempt: u32::try_from(row.get::<i64, _>(4)).unwrap_or(1),
        max_attempts: u32::try_from(row.get::<i64, _>(5)).unwrap_or(1),
        boot: row.get::<Option<String>, _>(6).and_then(|b| b.parse().ok()),
        pid: row.get(7),
        pid_start: row.get(8),
    })
}

fn crashed(orphan: &Orphan, now: Timestamp) -> Finish {
    let text = "crashed: the gateway ended while the attempt ran";
    let outcome = Outcome::without_process(Cause::Crashed, text.to_owned(), now);
    let ending = decide(&outcome, orphan.attempt, orphan.max_attempts, &RetryPolicy::default(), 0.0);
    Finish { fence: orphan.fence, outcome, ending, plan: Plan::default(), is_awaited: false }
}

/// Deletes what ended before `?1`, at most `?2` rows each.
const fn deletions(kind: Deletable) -> &'static [&'static str] {
    match kind {
        Deletable::Jobs => &["DELETE FROM job_queue WHERE rowid IN (SELECT rowid FROM job_queue
                WHERE completed_at < ?1 AND +status IN ('succeeded', 'skipped', 'failed', 'dead')
                ORDER BY completed_at LIMIT ?2)"],
        Deletable::Log => &[
            "DELETE FROM job_log WHERE rowid IN (SELECT rowid FROM job_log WHERE completed_at < ?1
                ORDER BY completed_at LIMIT ?2)",
            // ids ascend with time, so the oldest rows are the first
            "DELETE FROM job_stopwatch WHERE id IN (SELECT id FROM job_stopwatch ORDER BY id LIMIT ?2)
                AND recorded_at < ?1",
        ],
        Deletable::Transitions => &["DELETE FROM job_transitions
            WHERE id IN (SELECT id FROM job_transitions ORDER BY id LIMIT ?2) AND created_at < ?1"],
        Deletable::Attempts => &["DELETE FROM job_attempts
            WHERE id IN (SELECT id FROM job_attempts ORDER BY id LIMIT ?2) AND created_at < ?1"],
        Deletable::BreakerTransitions => &["DELETE FROM circuit_breaker_transitions
            WHERE id IN (SELECT id FROM circuit_breaker_transitions ORDER BY id LIMIT ?2) AND created_at < ?1"],
        Deletable::Facts => &["DELETE FROM plugin_facts WHERE id IN (SELECT f.id FROM plugin_facts f
                WHERE f.created_at < ?1 AND f.id < (SELECT max(n.id) FROM plugin_facts n
                    WHERE n.plugin_name = f.plugin_name AND n.fact_type = f.fact_type)
                ORDER BY f.id LIMIT ?2)"],
        Deletable::Contexts => &["DELETE FROM event_context WHERE rowid IN (SELECT x.rowid FROM event_context x
                WHERE x.created_at < ?1
                    AND NOT EXISTS (SELECT 1 FROM job_queue q WHERE q.event_context_id = x.id)
                    AND NOT EXISTS (SELECT 1 FROM event_context c WHERE c.parent_id = x.id)
                ORDER BY x.created_at LIMIT ?2)"],
        Deletable::Snapshots => &["DELETE FROM config_snapshots WHERE id IN (SELECT s.id FROM config_snapshots s
                WHERE s.loaded_at < ?1 AND s.id < (SELECT max(id) FROM config_snapshots)
                    AND NOT EXISTS (SELECT 1 FROM job_queue q
                        WHERE q.enqueued_config_snapshot_id = s.id OR q.started_config_snapshot_id = s.id)
                ORDER BY s.id LIMIT ?2)"],
    }
}
