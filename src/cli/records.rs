//! Jobs and their history, in the API's shapes: from the gateway, or from the database's file when none answers.

use ductile_domain::ids::JobId;
use serde_json::{Value, json};

use crate::args::{Global, JobLogs, LogFilter};
use crate::client::{Client, query};
use crate::error::Error;
use crate::instance::{Instance, connect};
use crate::offline::Offline;
use crate::report::Report;

/// What the API gives at once.
const LARGEST_PAGE: u32 = 200;

/// Where answers come from. Once the gateway was found missing, the rest of the command reads the file.
#[derive(Debug)]
pub(crate) struct Records {
    client: Client,
    instance: Option<Instance>,
    file: Option<Offline>,
}

impl Records {
    /// The records of the gateway that the flags name.
    ///
    /// # Errors
    /// A bad address, or all problems of the configuration.
    pub(crate) fn new(global: &Global, report: &Report) -> Result<Self, Error> {
        if global.api_url.is_some() {
            return Ok(Self { client: connect(global, report)?, instance: None, file: None });
        }
        let instance = Instance::locate(global, report)?;
        Ok(Self { client: instance.client(), instance: Some(instance), file: None })
    }

    /// `{jobs, total}`, newest first.
    ///
    /// # Errors
    /// Neither gateway nor file could be read.
    pub(crate) async fn jobs(
        &mut self,
        status: Option<&str>,
        plugin: Option<&str>,
        limit: u32,
        report: &Report,
    ) -> Result<Value, Error> {
        let mut whole: Option<Value> = None;
        let mut before: Option<String> = None;
        let mut left = limit;
        while left > 0 {
            let most = left.min(LARGEST_PAGE).to_string();
            let asked =
                [("status", status), ("plugin", plugin), ("limit", Some(&*most)), ("before", before.as_deref())];
            let Some(mut page) = self.live(&format!("/jobs{}", query(&asked)), report).await? else {
                return self.file()?.jobs(status, plugin, limit).await;
            };
            let jobs = page["jobs"].as_array_mut().map(std::mem::take).unwrap_or_default();
            left = left.saturating_sub(u32::try_from(jobs.len()).unwrap_or(left));
            before = page["next"].as_str().filter(|_| !jobs.is_empty()).map(str::to_owned);
            let whole = whole.get_or_insert_with(|| json!({"jobs": [], "total": page["total"]}));
            whole["jobs"].as_array_mut().expect("made above").extend(jobs);
            if before.is_none() {
                break;
            }
        }
        Ok(whole.unwrap_or_default())
    }

    /// The job and its descendants, root first.
    ///
    /// # Errors
    /// There is none with that id, or neither gateway nor file could be read.
    pub(crate) async fn tree(&mut self, id: JobId, report: &Report) -> Result<Value, Error> {
        match self.live(&format!("/job/{id}/tree"), report).await? {
            Some(jobs) => Ok(jobs),
            None => self.file()?.tree(id).await,
        }
    }

    /// What was kept of a quarantined job.
    ///
    /// # Errors
    /// It is not in quarantine, or neither gateway nor file could be read.
    pub(crate) async fn quarantine(&mut self, id: JobId, report: &Report) -> Result<Value, Error> {
        match self.live(&format!("/job/{id}/quarantine"), report).await? {
            Some(kept) => Ok(kept),
            None => self.file()?.quarantine(id).await,
        }
    }

    /// `{logs, total}`, newest first.
    ///
    /// # Errors
    /// A filter makes no sense, or neither gateway nor file could be read.
    pub(crate) async fn logs(&mut self, args: &JobLogs, report: &Report) -> Result<Value, Error> {
        let filter = &args.filter;
        let most = filter.limit.to_string();
        let path = format!(
            "/job-logs{}",
            query(&[
                ("job_id", args.job.as_deref()),
                ("plugin", args.plugin.as_deref()),
                ("command", filter.command.as_deref()),
                ("status", filter.status.as_deref()),
                ("submitted_by", filter.submitted_by.as_deref()),
                ("from", filter.from.as_deref()),
                ("to", filter.to.as_deref()),
                ("query", filter.query.as_deref()),
                ("limit", Some(&most)),
                ("include_result", filter.include_result.then_some("true")),
            ])
        );
        match self.live(&path, report).await? {
            Some(page) => Ok(page),
            None => self.file()?.logs(args).await,
        }
    }

    /// One job with all that is recorded of it: `payload`, `attempts`, `transitions`, `stopwatch`, `timing`, `logs`,
    /// newest first, and `children`.
    ///
    /// # Errors
    /// There is none with that id, or neither gateway nor file could be read.
    pub(crate) async fn whole_job(&mut self, id: JobId, report: &Report) -> Result<Value, Error> {
        let mut job = match self.live(&format!("/job/{id}?include=all"), report).await? {
            Some(job) => job,
            None => self.file()?.whole_job(id).await?,
        };
        let logs = JobLogs { job: Some(id.to_string()), ..JobLogs::default() };
        let logs = JobLogs { filter: LogFilter { limit: 200, ..logs.filter }, ..logs };
        job["logs"] = self.logs(&logs, report).await?["logs"].take();
        job["children"] = match self.live(&format!("/jobs?parent_job_id={id}&limit=200"), report).await? {
            Some(mut page) => page["jobs"].take(),
            None => self.file()?.children(id).await?,
        };
        Ok(job)
    }

    /// The gateway's answer; `None` once it is known to be away and the file is open.
    async fn live(&mut self, path: &str, report: &Report) -> Result<Option<Value>, Error> {
        if self.file.is_some() {
            return Ok(None);
        }
        report.detail(format!("GET {path}"));
        match (self.client.get(path).await, &self.instance) {
            (Err(error), Some(instance)) if error.is_unreachable() => {
                self.file = Some(Offline::instead(instance, &error, report)?);
                Ok(None)
            }
            (answer, _) => answer.map(Some),
        }
    }

    fn file(&self) -> Result<&Offline, Error> {
        self.file.as_ref().ok_or_else(|| Error::Ledger("the database is not open".into()))
    }
}
