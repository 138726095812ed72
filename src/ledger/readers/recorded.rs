//! The recorded input of a job, for a replay: from its row, or from the log once the row is pruned.

use ductile_domain::ids::JobId;
use sqlx::Row as _;

use super::{Readers, reading};
use crate::error::Error;

/// What a replay needs to know of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedJob {
    /// Plugin or alias.
    pub plugin: String,
    /// Command.
    pub command: String,
    /// Stored status of its row; `None` when the row is pruned, which only ended jobs' rows are.
    pub status: Option<String>,
    /// Input as it was stored; `None` when the trigger sent none.
    pub payload: Option<String>,
    /// The baggage of its hop.
    pub event_context_id: Option<String>,
    /// True when that baggage is still in the ledger, or there was none.
    pub has_its_context: bool,
    /// False: what it emitted started no pipeline and followed no route. True when the row is pruned.
    pub is_routed: bool,
}

impl Readers {
    /// The recorded input of a job; `None` when neither its row nor its log is left.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn recorded(&self, job: JobId) -> Result<Option<RecordedJob>, Error> {
        // ids of the log are `<job>-<attempt>`; the input stands with the last attempt
        let row = sqlx::query(
            "SELECT j.plugin, j.command, j.status, j.payload, j.event_context_id,
                j.event_context_id IS NULL OR EXISTS (SELECT 1 FROM event_context c WHERE c.id = j.event_context_id),
                j.is_routed
             FROM (
                SELECT 0 AS source, plugin, command, status, payload, event_context_id, 0 AS attempt, is_routed
                FROM job_queue WHERE id = ?1
                UNION ALL
                SELECT 1, plugin, command, NULL, payload, event_context_id, attempt, 1
                FROM job_log WHERE id >= ?1 || '-' AND id < ?1 || '.') j
             ORDER BY j.source, j.attempt DESC LIMIT 1",
        )
        .bind(job.to_string())
        .fetch_optional(&self.pool)
        .await
        .map_err(reading("a job's input"))?;
        Ok(row.map(|row| RecordedJob {
            plugin: row.get(0),
            command: row.get(1),
            status: row.get(2),
            payload: row.get(3),
            event_context_id: row.get(4),
            has_its_context: row.get(5),
            is_routed: row.get(6),
        }))
    }
}
