//! The database's file, read without a gateway, in the shapes that the API answers.

mod way;

use std::time::Duration;

use ductile_api::schedules;
use ductile_domain::config::Service;
use ductile_domain::generation::Generation;
use ductile_domain::ids::JobId;
use ductile_domain::job::JobStatus;
use ductile_domain::time;
use ductile_ledger::{JobFilter, JobRow, LogFilter, LogRow, Readers};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::JobLogs;
use crate::error::Error;
use crate::instance::Instance;
use crate::report::Report;

/// How long a read waits for a lock that another process holds.
const PATIENCE: Duration = Duration::from_secs(5);

/// As many changes of breakers as the API shows.
const TRANSITIONS: u32 = 50;

/// An open database.
#[derive(Debug)]
pub(crate) struct Offline {
    readers: Readers,
}

impl Offline {
    /// Opens the database of the instance; nothing is ever written to it.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn open(instance: &Instance) -> Result<Self, Error> {
        // Readers connect when they are asked first, and would only then say that there is nothing.
        std::fs::metadata(&instance.state)
            .map_err(|source| Error::ReadFile { path: instance.state.clone(), source })?;
        Ok(Self { readers: Readers::connect(&instance.state, PATIENCE) })
    }

    /// Opens it because no gateway answers, and says so on stderr.
    ///
    /// # Errors
    /// There is no database either: then the gateway's absence is the trouble.
    pub(crate) fn instead(instance: &Instance, why: &Error, report: &Report) -> Result<Self, Error> {
        let Error::Unreachable { tried, reason, advice } = why else { return Self::open(instance) };
        let Ok(offline) = Self::open(instance) else {
            let mut advice = advice.clone();
            advice.push(format!("there is no database {} either", instance.state.display()));
            return Err(Error::Unreachable { tried: tried.clone(), reason: reason.clone(), advice });
        };
        report.note(format!("note: no gateway answers at {tried}; reading {}", instance.state.display()));
        Ok(offline)
    }

    /// What the file is made of, as `GET /system/storage` answers it.
    ///
    /// # Errors
    /// The file can't be read.
    pub(crate) async fn storage(&self, service: &Service) -> Result<Value, Error> {
        let storage = self.readers.storage(service, chrono::Utc::now(), PATIENCE).await;
        to_value(&storage.map_err(Error::ledger)?)
    }

    /// `{queued, running}`.
    ///
    /// # Errors
    /// The file can't be read.
    pub(crate) async fn counts(&self) -> Result<Value, Error> {
        to_value(&self.readers.counts().await.map_err(Error::ledger)?)
    }

    /// `{jobs, total}`, newest first.
    ///
    /// # Errors
    /// No such status, or the file can't be read.
    pub(crate) async fn jobs(&self, status: Option<&str>, plugin: Option<&str>, limit: u32) -> Result<Value, Error> {
        let filter = JobFilter {
            statuses: status.map(stored).transpose()?.into_iter().map(str::to_owned).collect(),
            plugin: plugin.map(str::to_owned),
            limit,
            ..JobFilter::default()
        };
        let page = self.readers.jobs(&filter).await.map_err(Error::ledger)?;
        let jobs = page.rows.into_iter().map(job).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({"jobs": jobs, "total": page.total}))
    }

    /// One job.
    ///
    /// # Errors
    /// There is none with that id, or the file can't be read.
    pub(crate) async fn job(&self, id: JobId) -> Result<Value, Error> {
        match self.readers.job(id).await.map_err(Error::ledger)? {
            Some(row) => job(row),
            None => Err(unknown(id)),
        }
    }

    /// One job with its payload, attempts, transitions, stopwatch and timing.
    ///
    /// # Errors
    /// There is none with that id, or the file can't be read.
    pub(crate) async fn whole_job(&self, id: JobId) -> Result<Value, Error> {
        let mut job = self.job(id).await?;
        job["attempts"] = to_value(&self.readers.attempts(id).await.map_err(Error::ledger)?)?;
        job["transitions"] = to_value(&self.readers.transitions(id).await.map_err(Error::ledger)?)?;
        job["stopwatch"] = to_value(&self.readers.stopwatch(id).await.map_err(Error::ledger)?)?;
        if let Some(timing) = self.readers.family_timing(id).await.map_err(Error::ledger)? {
            job["timing"] = to_value(&timing)?;
        }
        way::add(&self.readers, id, &mut job).await?;
        Ok(job)
    }

    /// What was kept of a quarantined job.
    ///
    /// # Errors
    /// It is not in quarantine, or the file can't be read.
    pub(crate) async fn quarantine(&self, id: JobId) -> Result<Value, Error> {
        if let Some(row) = self.readers.quarantine(id).await.map_err(Error::ledger)? {
            return to_value(&row);
        }
        let job = self.job(id).await?;
        Err(Error::Failed(format!("job {id} is not in quarantine: it is {}", job["status"].as_str().unwrap_or("?"))))
    }

    /// The jobs that it caused itself, newest first.
    ///
    /// # Errors
    /// The file can't be read.
    pub(crate) async fn children(&self, id: JobId) -> Result<Value, Error> {
        let filter = JobFilter { parent: Some(id), limit: 200, ..JobFilter::default() };
        let page = self.readers.jobs(&filter).await.map_err(Error::ledger)?;
        Ok(Value::from(page.rows.into_iter().map(job).collect::<Result<Vec<_>, _>>()?))
    }

    /// The job and its descendants, root first, level by level.
    ///
    /// # Errors
    /// There is no job with that id, or the file can't be read.
    pub(crate) async fn tree(&self, id: JobId) -> Result<Value, Error> {
        let family = self.readers.family(id).await.map_err(Error::ledger)?.ok_or_else(|| unknown(id))?;
        let jobs = family.jobs.into_iter().map(|row| {
            json!({
                "job_id": row.job_id, "parent_job_id": row.parent_job_id, "plugin": row.plugin,
                "command": row.command, "status": row.status, "attempt": row.attempt,
                "submitted_by": row.submitted_by, "pipeline": row.pipeline, "step_id": row.step_id,
                "created_at": row.created_at, "started_at": row.started_at, "completed_at": row.completed_at,
                "last_error": row.last_error, "result": row.result.as_deref().map(output),
            })
        });
        Ok(jobs.map(with_known_fields).collect())
    }

    /// `{logs, total}`, newest first.
    ///
    /// # Errors
    /// A filter makes no sense, or the file can't be read.
    pub(crate) async fn logs(&self, args: &JobLogs) -> Result<Value, Error> {
        let asked = &args.filter;
        let filter = LogFilter {
            job: args
                .job
                .as_deref()
                .map(|id| id.parse().map_err(|e| Error::Usage(format!("--job {id}: {e}"))))
                .transpose()?,
            plugin: args.plugin.clone(),
            command: asked.command.clone(),
            status: asked.status.as_deref().map(stored).transpose()?.map(str::to_owned),
            submitted_by: asked.submitted_by.clone(),
            query: asked.query.clone(),
            from: instant("--from", asked.from.as_deref())?,
            to: instant("--to", asked.to.as_deref())?,
            with_output: true,
            with_result: asked.include_result,
            limit: asked.limit,
            ..LogFilter::default()
        };
        let page = self.readers.job_log(&filter).await.map_err(Error::ledger)?;
        let logs = page.rows.into_iter().map(|row| log(row, asked.include_result)).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({"logs": logs, "total": page.total}))
    }

    /// `{jobs}`: the schedules of the configuration on disk, with what the last gateway left of them.
    ///
    /// # Errors
    /// The file can't be read.
    pub(crate) async fn schedules(&self, generation: &Generation, plugin: Option<&str>) -> Result<Value, Error> {
        let jobs = schedules::schedules(&self.readers, generation, plugin).await.map_err(Error::ledger)?;
        Ok(json!({"jobs": to_value(&jobs)?}))
    }

    /// One of them with its ticks.
    ///
    /// # Errors
    /// There is none of that name, or the file can't be read.
    pub(crate) async fn explanation(&self, generation: &Generation, plugin: &str, id: &str) -> Result<Value, Error> {
        let Some(schedule) = generation.schedule(plugin, id) else {
            let hint = "`ductile schedule list` lists the schedules of the configuration on disk";
            return Err(Error::Failed(format!("plugin {plugin:?} has no schedule {id:?}\n  {hint}")));
        };
        let told = schedules::explain(&self.readers, generation, schedule, chrono::Utc::now()).await;
        to_value(&told.map_err(Error::ledger)?)
    }

    /// `{breakers, transitions}`.
    ///
    /// # Errors
    /// The file can't be read.
    pub(crate) async fn breakers(&self, generation: &Generation, plugin: Option<&str>) -> Result<Value, Error> {
        let told = schedules::breakers(&self.readers, generation, plugin, TRANSITIONS).await;
        to_value(&told.map_err(Error::ledger)?)
    }

    /// The configuration that was put in force last: its row of `config_snapshots`.
    ///
    /// # Errors
    /// The file can't be read.
    pub(crate) async fn newest_snapshot(&self) -> Result<Option<i64>, Error> {
        Ok(self.readers.snapshots(1).await.map_err(Error::ledger)?.first().map(|row| row.id))
    }
}

fn unknown(id: JobId) -> Error {
    Error::Failed(format!("unknown job {id}\n  one that ended long ago is in `ductile job logs --job {id}` only"))
}

/// The API leaves out what is not known, but for the parent.
fn with_known_fields(mut job: Value) -> Value {
    let parent = job["parent_job_id"].take();
    without_nulls(&mut job);
    job["parent_job_id"] = parent;
    job
}

fn to_value(value: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|e| Error::Ledger(format!("a row is no JSON: {e}")))
}

fn job(row: JobRow) -> Result<Value, Error> {
    let result = row.result.as_deref().map(output);
    let mut value = to_value(&row)?;
    value["result"] = result.unwrap_or_default();
    without_nulls(&mut value);
    Ok(value)
}

fn log(row: LogRow, include_result: bool) -> Result<Value, Error> {
    let result = row.result.as_deref().filter(|_| include_result).map(output);
    let mut value = to_value(&row)?;
    value["result"] = result.unwrap_or_default();
    without_nulls(&mut value);
    Ok(value)
}

/// What a plugin printed: as JSON when it is, else as text.
fn output(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

fn without_nulls(value: &mut Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
}

/// The stored word of a status that a user may write.
fn stored(word: &str) -> Result<&'static str, Error> {
    match word {
        "timed_out" => Ok("timed_out"),
        "pending" => Ok("queued"),
        "ok" => Ok("succeeded"),
        "error" => Ok("failed"),
        other => other.parse().map(JobStatus::as_str).map_err(|e| Error::Usage(e.to_string())),
    }
}

/// A time as the ledger stores it, so that texts compare as instants do.
fn instant(flag: &str, text: Option<&str>) -> Result<Option<String>, Error> {
    let Some(text) = text else { return Ok(None) };
    match time::parse(text) {
        Some(at) => Ok(Some(time::format(at))),
        None => Err(Error::Usage(format!("{flag} {text}: write a time like 2026-02-21T10:00:00Z"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_as_the_api_reads_them() {
        assert_eq!(stored("pending").expect("an alias"), "queued");
        assert_eq!(stored("timed_out").expect("an attempt's"), "timed_out");
        assert_eq!(stored("done").expect_err("unknown").exit_code(), 2);
        let at = instant("--from", Some("2026-02-08T12:00:00+02:00")).expect("valid");
        assert_eq!(at.as_deref(), Some("2026-02-08T10:00:00.000Z"));
        assert_eq!(instant("--from", Some("yesterday")).expect_err("no time").exit_code(), 2);
    }
}
