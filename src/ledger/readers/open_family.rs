//! Whether all that followed from a job has ended.

use ductile_domain::ids::JobId;
use sqlx::Row as _;

use super::{Readers, reading};
use crate::error::Error;

const OPEN: &str = "WITH RECURSIVE family (id) AS (
        SELECT ?1
        UNION ALL
        SELECT q.id FROM family f JOIN job_queue q ON q.parent_job_id = f.id AND q.submitted_by <> 'hook')
    SELECT q.id FROM family f JOIN job_queue q ON q.id = f.id WHERE q.status IN ('queued', 'running')";

impl Readers {
    /// The job and its descendants, without those that have ended: what an ended job causes is there before its end.
    /// What hooks started is not waited for.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn open_in_family(&self, job: JobId) -> Result<Vec<JobId>, Error> {
        let rows = sqlx::query(OPEN)
            .bind(job.to_string())
            .fetch_all(&self.lists)
            .await
            .map_err(reading("what followed from a job"))?;
        Ok(rows.iter().filter_map(|row| row.get::<String, _>(0).parse().ok()).collect())
    }
}
