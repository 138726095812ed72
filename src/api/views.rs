//! What the doors show of the ledger's rows, and the questions that they ask it. The only place that knows its readers.

pub(crate) mod contexts;
pub(crate) mod figures;
pub(crate) mod history;
pub(crate) mod pipelines;
pub(crate) mod runs;
pub mod schedules;

use std::collections::BTreeMap;
use std::str::FromStr;

use ductile_domain::ids::JobId;
use ductile_domain::job::{JobStatus, UnknownStatus};
use ductile_domain::time::{self, Timestamp};
use ductile_ledger::{JobFilter, JobRow, LogFilter, LogRow, Readers, TransitionRow};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use self::history::Parts;
use crate::call::{bad_parameter, quoted};
use crate::error::{ApiError, Code};

/// A status that callers may filter by: a job's, or `timed_out`, which is an attempt's only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatusWord {
    Job(JobStatus),
    TimedOut,
}

impl FromStr for StatusWord {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        match text {
            "timed_out" => Ok(Self::TimedOut),
            "pending" => Ok(Self::Job(JobStatus::Queued)),
            "ok" => Ok(Self::Job(JobStatus::Succeeded)),
            "error" => Ok(Self::Job(JobStatus::Failed)),
            other => other.parse().map(Self::Job),
        }
    }
}

impl StatusWord {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Job(status) => status.as_str(),
            Self::TimedOut => "timed_out",
        }
    }
}

/// A job as the API shows it.
#[derive(Debug, Serialize)]
pub(crate) struct JobView {
    pub(crate) job_id: String,
    pub(crate) status: JobStatus,
    pub(crate) plugin: String,
    pub(crate) command: String,
    pub(crate) attempt: u32,
    pub(crate) max_attempts: u32,
    pub(crate) submitted_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requested_by: Option<String>,
    pub(crate) created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) completed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_retry_at: Option<String>,
    /// A running job whose end was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cancel_requested_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent_job_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source_event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event_context_id: Option<String>,
    /// The configuration that was in force at the enqueue, and that of the present or last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enqueued_config_snapshot_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_config_snapshot_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dedupe_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stderr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Box<RawValue>>,
    /// The answer of a waiting call that found an older job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duplicate: Option<bool>,
    /// The answer of a waiting call whose time was too short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_exceeded: Option<bool>,
    /// True when the row is pruned and this is what the log still says.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) pruned: bool,
    #[serde(flatten)]
    pub(crate) parts: Parts,
    /// The input, until it is asked for.
    #[serde(skip)]
    pub(crate) recorded: Option<Box<RawValue>>,
}

impl JobView {
    /// Takes out what needs the right to see results.
    pub(crate) fn conceal(&mut self) {
        self.parts.conceal();
        self.last_error = None;
        self.stderr = None;
        self.result = None;
    }
}

/// An ended attempt as the API shows it.
#[derive(Debug, Serialize)]
pub(crate) struct LogView {
    pub(crate) job_id: String,
    pub(crate) log_id: String,
    pub(crate) plugin: String,
    pub(crate) command: String,
    pub(crate) status: String,
    pub(crate) attempt: u32,
    pub(crate) submitted_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requested_by: Option<String>,
    pub(crate) created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<String>,
    pub(crate) completed_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stderr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Box<RawValue>>,
    /// Bytes of a result that was left out because the results before it had filled the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result_omitted_bytes: Option<i64>,
}

impl LogView {
    /// Takes out what needs the right to see results.
    pub(crate) fn conceal(&mut self) {
        self.result_omitted_bytes = None;
        self.last_error = None;
        self.stderr = None;
        self.result = None;
    }
}

/// What `GET /jobs` asks.
#[derive(Debug)]
pub(crate) struct ListQuery {
    pub(crate) plugin: Option<String>,
    pub(crate) command: Option<String>,
    pub(crate) status: Option<StatusWord>,
    pub(crate) submitted_by: Option<String>,
    pub(crate) parent: Option<JobId>,
    pub(crate) from: Option<Timestamp>,
    pub(crate) to: Option<Timestamp>,
    pub(crate) page: PageQuery,
}

/// Which piece of a list is asked for.
#[derive(Debug)]
pub(crate) struct PageQuery {
    /// Items of a page, from 1.
    pub(crate) limit: u32,
    /// Items before it.
    pub(crate) offset: u32,
    /// The id of the last item of the page before.
    pub(crate) before: Option<String>,
}

/// A page of a list as the API shows it.
#[derive(Debug)]
pub(crate) struct Listed<T> {
    pub(crate) items: Vec<T>,
    /// Items that match, over all pages.
    pub(crate) total: u64,
    /// True when another page follows this one.
    pub(crate) has_more: bool,
}

impl<T> Listed<T> {
    /// Of a page that was read with one item more than was asked for.
    fn of(mut items: Vec<T>, total: u64, limit: u32) -> Self {
        let has_more = items.len() > limit as usize;
        items.truncate(limit as usize);
        Self { items, total, has_more }
    }
}

/// What `GET /job-logs` asks.
#[derive(Debug)]
pub(crate) struct LogQuery {
    pub(crate) job: Option<JobId>,
    pub(crate) plugin: Option<String>,
    pub(crate) command: Option<String>,
    pub(crate) status: Option<StatusWord>,
    pub(crate) submitted_by: Option<String>,
    pub(crate) from: Option<Timestamp>,
    pub(crate) to: Option<Timestamp>,
    pub(crate) text: Option<String>,
    pub(crate) page: PageQuery,
    pub(crate) include_result: bool,
}

/// A plugin's output as JSON: as it is when it is JSON, otherwise as a string.
fn output(text: String) -> Option<Box<RawValue>> {
    let is_json = serde_json::from_str::<&RawValue>(&text).is_ok();
    if is_json { RawValue::from_string(text).ok() } else { serde_json::value::to_raw_value(&text).ok() }
}

pub(crate) fn unreadable(error: ductile_ledger::Error) -> ApiError {
    if error.is_overloaded() {
        let hint = "try again; narrow filters such as plugin and from make lists faster";
        return ApiError::new(Code::Unavailable, "other long reads of the ledger are still running", hint);
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    ApiError::internal(text)
}

/// One job with its last attempt's output.
pub(crate) async fn job(readers: &Readers, id: JobId) -> Result<Option<JobView>, ApiError> {
    readers.job(id).await.map_err(unreadable)?.map(job_view).transpose()
}

/// A page of jobs.
pub(crate) async fn jobs(readers: &Readers, query: ListQuery) -> Result<Listed<JobView>, ApiError> {
    let page = query.page;
    let before = match page.before {
        None => None,
        Some(text) => {
            let job: JobId = text.parse().map_err(|_| no_such_place(&text))?;
            readers.status(job).await.map_err(unreadable)?.ok_or_else(|| no_such_place(&text))?;
            Some(job)
        }
    };
    let filter = JobFilter {
        plugin: query.plugin,
        command: query.command,
        statuses: query.status.map(|status| status.as_str().to_owned()).into_iter().collect(),
        submitted_by: query.submitted_by,
        parent: query.parent,
        from: query.from.map(time::format),
        to: query.to.map(time::format),
        before,
        limit: page.limit + 1,
        offset: page.offset,
    };
    let found = readers.jobs(&filter).await.map_err(unreadable)?;
    let jobs = found.rows.into_iter().map(job_view).collect::<Result<_, _>>()?;
    Ok(Listed::of(jobs, found.total, page.limit))
}

/// A page of ended attempts.
pub(crate) async fn logs(readers: &Readers, query: LogQuery) -> Result<Listed<LogView>, ApiError> {
    let page = query.page;
    if let Some(before) = &page.before
        && !readers.has_log(before).await.map_err(unreadable)?
    {
        return Err(no_such_place(before));
    }
    let filter = LogFilter {
        job: query.job,
        plugin: query.plugin,
        command: query.command,
        status: query.status.map(|status| status.as_str().to_owned()),
        submitted_by: query.submitted_by,
        from: query.from.map(time::format),
        to: query.to.map(time::format),
        query: query.text,
        with_output: true,
        with_result: query.include_result,
        before: page.before,
        limit: page.limit + 1,
        offset: page.offset,
    };
    let found = readers.job_log(&filter).await.map_err(unreadable)?;
    let logs = found.rows.into_iter().map(log_view).collect();
    Ok(Listed::of(logs, found.total, page.limit))
}

/// A page must not silently begin at the front, or be empty, because its place was pruned or misspelt.
fn no_such_place(before: &str) -> ApiError {
    bad_parameter(
        "before",
        format!("`before` names nothing in this list: {}", quoted(before)),
        "use `next` of the page before; when its item was pruned meanwhile, begin without `before`",
    )
}

/// Plugins whose last `init` failed, and why. A ledger that can't be read makes no plugin unhealthy: `/healthz` tells.
pub(crate) async fn failed_inits(readers: &Readers) -> BTreeMap<String, String> {
    readers.failed_inits().await.unwrap_or_default()
}

/// What the plugin's last `init` said.
pub(crate) async fn init_result(readers: &Readers, plugin: &str) -> Option<String> {
    readers.init_result(plugin).await.ok().flatten()
}

/// A row of `job_transitions` as the live event that it was announced with.
#[derive(Debug)]
pub(crate) struct Replayed {
    row: TransitionRow,
}

/// The transitions of one or of all jobs after `id`, at most `limit`.
pub(crate) async fn transitions_since(
    readers: &Readers,
    id: i64,
    job: Option<JobId>,
    limit: u32,
) -> Result<Vec<Replayed>, ApiError> {
    let rows = readers.transitions_since(id, job, limit).await.map_err(unreadable)?;
    Ok(rows.into_iter().map(|row| Replayed { row }).collect())
}

/// The oldest and the newest transition of the ledger; `None` when there is none.
pub(crate) async fn transition_bounds(readers: &Readers) -> Result<Option<(i64, i64)>, ApiError> {
    readers.transition_bounds().await.map_err(unreadable)
}

impl Replayed {
    pub(crate) fn id(&self) -> i64 {
        self.row.id
    }

    pub(crate) fn job_id(&self) -> &str {
        &self.row.job_id
    }

    /// `None` once the job's row is pruned.
    pub(crate) fn plugin(&self) -> Option<&str> {
        self.row.plugin.as_deref()
    }

    pub(crate) fn kind(&self) -> &'static str {
        ductile_domain::event::of_transition(self.row.from_status.as_deref(), &self.row.to_status)
    }

    pub(crate) fn to_json(&self) -> Value {
        let row = &self.row;
        let mut out = Map::new();
        out.insert("type".into(), self.kind().into());
        out.insert("at".into(), row.created_at.as_str().into());
        out.insert("job_id".into(), row.job_id.as_str().into());
        out.insert("transition_id".into(), row.id.into());
        let texts = [
            ("plugin", &row.plugin),
            ("command", &row.command),
            ("from_status", &row.from_status),
            ("reason", &row.reason),
        ];
        for (key, value) in texts {
            if let Some(text) = value {
                out.insert(key.into(), text.as_str().into());
            }
        }
        out.insert("to_status".into(), row.to_status.as_str().into());
        if let Some(attempt) = row.attempt {
            out.insert("attempt".into(), attempt.into());
        }
        Value::Object(out)
    }
}

fn job_view(row: JobRow) -> Result<JobView, ApiError> {
    let status = row.status.parse().map_err(|e| ApiError::internal(format!("job {}: {e}", row.id)))?;
    Ok(JobView {
        job_id: row.id,
        status,
        plugin: row.plugin,
        command: row.command,
        attempt: row.attempt,
        max_attempts: row.max_attempts,
        submitted_by: row.submitted_by,
        requested_by: row.requested_by,
        created_at: row.created_at,
        started_at: row.started_at,
        completed_at: row.completed_at,
        next_retry_at: row.next_retry_at,
        cancel_requested_at: row.cancel_requested_at,
        parent_job_id: row.parent_job_id,
        source_event_id: row.source_event_id,
        event_context_id: row.event_context_id,
        enqueued_config_snapshot_id: row.enqueued_config_snapshot_id,
        started_config_snapshot_id: row.started_config_snapshot_id,
        dedupe_key: row.dedupe_key,
        last_error: row.last_error,
        stderr: row.stderr,
        result: row.result.and_then(output),
        duplicate: None,
        timeout_exceeded: None,
        pruned: row.is_pruned,
        parts: Parts::default(),
        recorded: row.payload,
    })
}

fn log_view(row: LogRow) -> LogView {
    let is_omitted = row.result.is_none();
    LogView {
        job_id: row.job_id,
        log_id: row.id,
        plugin: row.plugin,
        command: row.command,
        status: row.status,
        attempt: row.attempt,
        submitted_by: row.submitted_by,
        requested_by: row.requested_by,
        created_at: row.created_at,
        started_at: row.started_at,
        completed_at: row.completed_at,
        last_error: row.last_error,
        stderr: row.stderr,
        result: row.result.and_then(output),
        result_omitted_bytes: row.result_bytes.filter(|_| is_omitted),
    }
}
