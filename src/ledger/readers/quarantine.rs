//! What is known of jobs that were quarantined.

use ductile_domain::ids::JobId;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::Row as _;

use super::{Readers, reading};
use crate::error::Error;

/// A row of `job_quarantine`.
#[derive(Debug, Clone, Serialize)]
pub struct QuarantineRow {
    /// The job.
    pub job_id: String,
    /// Plugin or alias.
    pub plugin: String,
    /// Command.
    pub command: String,
    /// Why it was quarantined.
    pub reason: String,
    /// JSON: `request` (payload, state, context), `fingerprint` of the plugin, `limits`, `memory_tier`, `attempts`.
    pub bundle: Box<RawValue>,
    /// RFC 3339.
    pub created_at: String,
}

impl Readers {
    /// The bundle of a quarantined job.
    ///
    /// # Errors
    /// When the row can't be read.
    pub async fn quarantine(&self, job: JobId) -> Result<Option<QuarantineRow>, Error> {
        const ROW: &str =
            "SELECT job_id, plugin, command, reason, bundle, created_at FROM job_quarantine WHERE job_id = ?1";
        let found = sqlx::query(ROW).bind(job.to_string()).fetch_optional(&self.pool).await;
        let Some(row) = found.map_err(reading("the quarantine of a job"))? else { return Ok(None) };
        let bundle: String = row.get(4);
        // what somebody else has written there is shown as text
        let bundle =
            RawValue::from_string(bundle).or_else(|_| serde_json::value::to_raw_value(&row.get::<String, _>(4)));
        Ok(Some(QuarantineRow {
            job_id: row.get(0),
            plugin: row.get(1),
            command: row.get(2),
            reason: row.get(3),
            bundle: bundle.expect("text is always JSON"),
            created_at: row.get(5),
        }))
    }

    /// Jobs that were quarantined and are not pruned yet.
    ///
    /// # Errors
    /// When the table can't be read.
    pub async fn quarantined(&self) -> Result<u64, Error> {
        let count = sqlx::query("SELECT count(*) FROM job_quarantine").fetch_one(&self.pool).await;
        Ok(count.map_err(reading("the quarantined jobs"))?.get::<i64, _>(0).unsigned_abs())
    }
}
