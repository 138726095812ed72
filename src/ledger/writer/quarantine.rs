//! Quarantine: a job whose attempts kept ending abnormally, with what is needed to look into it, in the transaction of its
//! last end.

use ductile_domain::ids::JobId;
use ductile_domain::outcome::{Cause, Outcome};
use ductile_domain::retry;
use rusqlite::params;

use super::transaction::Transaction;

/// The words are those of [`Cause::ABNORMAL`].
const COUNT: &str = "SELECT count(*) FROM job_attempts
    WHERE job_id = ?1 AND cause IN ('signal', 'out_of_memory', 'crashed')";
/// What can't be read as JSON is kept as text. The plugin's configuration is not here: whoever runs the request again has
/// one of his own.
const BUNDLE: &str = "INSERT OR REPLACE INTO job_quarantine (job_id, plugin, command, reason, bundle, created_at)
    SELECT q.id, q.plugin, q.command, ?2, json_object(
        'version', 1,
        'request', json_object('plugin', q.plugin, 'command', q.command, 'attempt', q.attempt,
            'payload', iif(json_valid(q.payload), json(q.payload), q.payload),
            'state', (SELECT iif(json_valid(s.state), json(s.state), s.state)
                FROM plugin_state s WHERE s.plugin_name = q.plugin),
            'context_id', q.event_context_id,
            'context', (SELECT iif(json_valid(c.accumulated_json), json(c.accumulated_json), c.accumulated_json)
                FROM event_context c WHERE c.id = q.event_context_id)),
        'config_snapshot_id', q.started_config_snapshot_id,
        'fingerprint', (SELECT json(json_extract(n.plugin_fingerprints, '$.' || json_quote(q.plugin)))
            FROM config_snapshots n WHERE n.id = q.started_config_snapshot_id),
        'limits', (SELECT json(json_extract(n.sanitized_config, '$.plugins.' || json_quote(q.plugin) || '.limits'))
            FROM config_snapshots n WHERE n.id = q.started_config_snapshot_id),
        'memory_tier', q.memory_tier,
        'attempts', (SELECT json_group_array(json_object('attempt', a.attempt, 'status', a.status, 'cause', a.cause,
                'exit_code', a.exit_code, 'signal', a.signal, 'error', a.error, 'started_at', a.started_at,
                'completed_at', a.completed_at, 'cpu_ms', a.cpu_ms, 'peak_memory', a.peak_memory,
                'stderr_tail', (SELECT substr(l.stderr, -8192) FROM job_log l
                    WHERE l.id = a.job_id || '-' || a.attempt)))
            FROM job_attempts a WHERE a.job_id = q.id AND a.attempt > q.attempt - 20))
        , ?3
    FROM job_queue q WHERE q.rowid = ?1";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[COUNT, BUNDLE];

impl Transaction<'_> {
    /// Why the job is quarantined with this end; `None` when it is not. Nothing is read for an end that is not abnormal.
    pub(super) fn quarantine_reason(
        &self,
        job: JobId,
        id: &str,
        outcome: &Outcome,
    ) -> Result<Option<String>, rusqlite::Error> {
        let Some(cause) = outcome.cause.filter(|cause: &Cause| cause.is_abnormal()) else { return Ok(None) };
        let before: u32 = self.conn.prepare_cached(COUNT)?.query_row([id], |row| row.get(0))?;
        if !retry::is_quarantined(cause, before + 1) {
            return Ok(None);
        }
        let last = outcome.error.as_deref().unwrap_or(cause.as_str());
        let ends = before + 1;
        Ok(Some(format!(
            "quarantined: {ends} attempts ended abnormally, the last: {last}; `ductile job reproduce {job}` runs it again alone"
        )))
    }

    /// Writes the bundle, when the row of the last attempt is written and the job has not ended yet.
    pub(super) fn quarantine(&self, row: i64, reason: &str) -> Result<(), rusqlite::Error> {
        self.conn.prepare_cached(BUNDLE)?.execute(params![row, reason, self.at])?;
        Ok(())
    }
}
