//! Which operations may share a transaction, and how they are written into its sections.

use std::collections::{BTreeMap, HashMap, HashSet};

use ductile_domain::ids::JobId;
use ductile_domain::job::NewJob;
use ductile_domain::outcome::AttemptStatus;
use ductile_domain::plan::StateChange;
use ductile_domain::retry::Ending;
use ductile_domain::time::{self, Timestamp};
use serde_json::value::RawValue;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::rows::Rows;
use super::{Op, Spawn};
use crate::error::WriteError;
use crate::ops::Finish;

/// Operations in one transaction at most.
pub(super) const MOST_OPS: usize = 256;
/// Candidates and new jobs count one each.
const MOST_WEIGHT: usize = 2048;

/// The statement that runs a batch, and the temp schema that it needs.
pub(super) const RUN: &str = include_str!("sql/run.sql");
/// Sections before the trigger that uses them.
pub(super) const TEMP_SCHEMA: [&str; 5] = [
    include_str!("sql/finish.sql"),
    include_str!("sql/cancel.sql"),
    include_str!("sql/enqueue.sql"),
    include_str!("sql/claim.sql"),
    include_str!("sql/batch.sql"),
];

/// Operations that will share one transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) ops: Vec<Op>,
    touched: HashSet<JobId>,
    weight: usize,
}

impl Batch {
    /// Takes the operation, or hands it back when it must wait for the next transaction.
    pub(super) fn admit(&mut self, op: Op) -> Option<Op> {
        let weight = match &op {
            Op::Enqueue { jobs, .. } => jobs.len(),
            Op::Claim(request, _) | Op::StandingClaim(request, _) => request.candidates.len(),
            Op::Finish(finish, _) => 1 + finish.plan.children.len() + finish.plan.facts.len(),
            Op::GiveBack { .. } | Op::Cancel { .. } => 1,
        };
        if !self.ops.is_empty() && (self.ops.len() >= MOST_OPS || self.weight + weight > MOST_WEIGHT) {
            return Some(op);
        }
        // two writes about one job must see each other
        let is_free = match &op {
            Op::Finish(finish, _) => self.touched.insert(finish.fence.job),
            Op::GiveBack { fence, .. } => self.touched.insert(fence.job),
            Op::Cancel { job, .. } => self.touched.insert(*job),
            Op::Enqueue { jobs, .. } => {
                let is_free = jobs.iter().all(|j| !self.touched.contains(&j.id));
                self.touched.extend(jobs.iter().map(|j| j.id));
                is_free
            }
            Op::Claim(..) | Op::StandingClaim(..) => true,
        };
        if !is_free && !self.ops.is_empty() {
            return Some(op);
        }
        self.weight += weight;
        self.ops.push(op);
        None
    }

    /// Jobs of the attempts that it ends.
    pub(super) fn ended(&self) -> impl Iterator<Item = JobId> {
        self.ops.iter().filter_map(|op| match op {
            Op::Finish(finish, _) => Some(finish.fence.job),
            Op::GiveBack { fence, .. } => Some(fence.job),
            _ => None,
        })
    }

    /// Attempts that it ends.
    pub(super) fn ends(&self) -> usize {
        self.ended().count()
    }

    /// True when an answer leaves the gateway, so that the commit must be on disk before it.
    pub(super) fn is_awaited(&self) -> bool {
        self.ops.iter().any(|op| match op {
            Op::Enqueue { .. } | Op::Cancel { .. } => true,
            Op::Finish(finish, _) => finish.is_awaited,
            Op::GiveBack { .. } | Op::Claim(..) | Op::StandingClaim(..) => false,
        })
    }
}

/// The bound values of one run.
#[derive(Default)]
pub(super) struct Sections {
    finishes: Rows,
    spawns: Rows,
    facts: Rows,
    states: Rows,
    cancels: Rows,
    enqueues: Rows,
    claims: Rows,
}

impl Sections {
    /// Writes every operation into its section; the number of an operation is its place in `ops`.
    pub(super) fn write(ops: &[Op], spawns: &[Spawn], merged: &MergedStates, now: Timestamp) -> Self {
        let mut sections = Self::default();
        let mut candidates = HashSet::new();
        for (no, op) in ops.iter().enumerate() {
            match op {
                Op::Finish(finish, _) => sections.finish(no, finish, merged, now),
                Op::GiveBack { fence, reason, due, .. } => {
                    let mut row = sections.finishes.row();
                    row.put(no).put(fence.job).put(fence.claim_no).put(()).put("queued").put(due.map(time::format));
                    row.put(()).put(format!("given back: {reason}")).put(());
                    row.put(()).put(()).put(()).put(()).put(()).put(time::format(now));
                }
                Op::Cancel { job, why, requested_by, .. } => {
                    sections.cancels.row().put(no).put(job).put(why).put(requested_by);
                }
                Op::Enqueue { jobs, .. } => {
                    for (index, job) in jobs.iter().enumerate() {
                        sections.enqueue(no, index, None, job, now);
                    }
                }
                Op::Claim(request, _) | Op::StandingClaim(request, _) => {
                    for (candidate, cap) in &request.candidates {
                        // the first stands; the second is answered with neither a claim nor a refusal
                        if !candidates.insert((candidate.row, candidate.job)) {
                            continue;
                        }
                        let mut row = sections.claims.row();
                        row.put(no).put(candidate.row).put(candidate.job).put(cap).put(request.max_running);
                        row.put(request.boot).put(request.snapshot);
                    }
                }
            }
        }
        for spawn in spawns {
            let mut row = sections.spawns.row();
            row.put(spawn.fence.job).put(spawn.fence.claim_no).put(spawn.pid).put(spawn.pid_start);
        }
        sections
    }

    /// The eight values of [`RUN`].
    pub(super) fn bind(self, now: Timestamp) -> [Option<String>; 8] {
        [
            Some(time::format(now)),
            self.finishes.finish(),
            self.spawns.finish(),
            self.facts.finish(),
            self.states.finish(),
            self.cancels.finish(),
            self.enqueues.finish(),
            self.claims.finish(),
        ]
    }

    fn finish(&mut self, no: usize, finish: &Finish, merged: &MergedStates, now: Timestamp) {
        let outcome = &finish.outcome;
        let cause = outcome.cause.map(ductile_domain::outcome::Cause::as_str);
        let (status, due, second) = match &finish.ending {
            Ending::Succeeded => ("succeeded", None, None),
            Ending::Skipped => ("skipped", None, None),
            Ending::Failed => ("failed", None, None),
            Ending::Dead => ("dead", None, Some(dead_reason(finish))),
            Ending::Retry { due } => {
                let due = time::format(*due);
                ("queued", Some(due.clone()), Some(format!("retrying: due {due}")))
            }
        };
        let first = match (cause, &outcome.error) {
            (None, None) => None,
            (None, Some(error)) => Some(shorten(error).to_owned()),
            (Some(cause), None) => Some(cause.to_owned()),
            // a text that begins with the cause's word needs it only once
            (Some(cause), Some(error)) if error.starts_with(cause) => Some(shorten(error).to_owned()),
            (Some(cause), Some(error)) => Some(format!("{cause}: {}", shorten(error))),
        };
        let error = match outcome.status {
            AttemptStatus::Succeeded => None,
            _ => outcome.error.as_deref(),
        };
        let mut row = self.finishes.row();
        row.put(no).put(finish.fence.job).put(finish.fence.claim_no).put(outcome.status.as_str()).put(status);
        row.put(due).put(error).put(first).put(second).put(&outcome.result).put(&outcome.stderr).put(cause);
        row.put(outcome.exit_code).put(outcome.signal).put(time::format(outcome.ended_at));
        let timing = &outcome.timing;
        if timing.enter_wall_ns > 0 {
            row.put(timing.enter_wall_ns).put(timing.exit_wall_ns).put(timing.dur_ns);
            row.put(timing.runtime_pre_ns).put(timing.runtime_post_ns).put(&outcome.subs);
        }
        drop(row);
        for (index, child) in finish.plan.children.iter().enumerate() {
            self.enqueue(no, index, Some(no), child, now);
        }
        for fact in &finish.plan.facts {
            self.facts.row().put(no).put(&fact.fact_type).put(fact.fact.get());
        }
        let state = match &finish.plan.state {
            Some(StateChange::Mirror(state)) => Some(state.get()),
            Some(StateChange::Merge(_)) => merged.get(&no).map(String::as_str),
            None => None,
        };
        if let Some(state) = state {
            self.states.row().put(no).put(state);
        }
    }

    fn enqueue(&mut self, no: usize, index: usize, gate: Option<usize>, job: &NewJob, now: Timestamp) {
        let since = (!job.dedupe_window.is_zero()).then(|| {
            let window = chrono::TimeDelta::from_std(job.dedupe_window).unwrap_or(chrono::TimeDelta::MAX);
            now.checked_sub_signed(window).map_or_else(String::new, time::format)
        });
        let mut row = self.enqueues.row();
        row.put(no).put(index).put(gate).put(job.id).put(&*job.plugin).put(&*job.command);
        row.put(job.payload.as_ref().map(|p| p.get())).put(job.max_attempts).put(job.submitted_by);
        row.put(&job.requested_by).put(&job.dedupe_key).put(since).put(u8::from(job.dedupe_in_flight));
        row.put(job.parent).put(job.source_event).put(&job.target_key).put(job.context).put(job.snapshot);
    }
}

fn dead_reason(finish: &Finish) -> String {
    match finish.outcome.cause {
        Some(cause) if !cause.is_retryable() => match &finish.outcome.error {
            Some(error) => shorten(error).to_owned(),
            None => cause.to_string(),
        },
        _ => "attempts exhausted".to_owned(),
    }
}

/// Reasons are for reading; the whole text stands in `last_error`.
fn shorten(text: &str) -> &str {
    const MOST: usize = 300;
    if text.len() <= MOST {
        return text;
    }
    &text[..(0..=MOST).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)]
}

/// The state after a merge, by the number of the operation.
pub(super) type MergedStates = HashMap<usize, String>;

/// A plugin's state must not exceed this, in bytes.
pub(super) const STATE_LIMIT: usize = 1 << 20;

/// Merges the top-level keys of every `StateChange::Merge` into the state that it will find.
///
/// SQL has no shallow merge that keeps numbers as they were written, so the states are read before the batch. Nobody
/// else writes, so that what is read here is what the batch finds. Also answers which operations would make a state
/// too large.
pub(super) async fn merge_states(
    conn: &mut SqliteConnection,
    ops: &[Op],
) -> Result<(MergedStates, Vec<(usize, WriteError)>), sqlx::Error> {
    let changes: Vec<(usize, &Finish, &StateChange)> = ops
        .iter()
        .enumerate()
        .filter_map(|(no, op)| match op {
            Op::Finish(finish, _) => finish.plan.state.as_ref().map(|change| (no, &**finish, change)),
            _ => None,
        })
        .collect();
    let mut merged = MergedStates::new();
    let mut refused = Vec::new();
    if !changes.iter().any(|(_, _, change)| matches!(change, StateChange::Merge(_))) {
        return Ok((merged, refused));
    }
    let mut wanted = Rows::default();
    for (no, finish, _) in &changes {
        wanted.row().put(no).put(finish.fence.job).put(finish.fence.claim_no);
    }
    // a fenced finish will change nothing, so the next merge must not build on it
    let rows = sqlx::query(
        "SELECT j.value ->> 0, q.plugin, s.state
         FROM jsonb_each(?1) j CROSS JOIN job_queue q ON q.id = j.value ->> 1 AND q.claim_no = j.value ->> 2
         LEFT JOIN plugin_state s ON s.plugin_name = q.plugin WHERE q.status = 'running'",
    )
    .bind(wanted.finish())
    .fetch_all(conn)
    .await?;
    let mut found: HashMap<usize, (String, Option<String>)> = HashMap::new();
    for row in &rows {
        let no = usize::try_from(row.get::<i64, _>(0)).unwrap_or(usize::MAX);
        found.insert(no, (row.get(1), row.get(2)));
    }
    let mut states: HashMap<String, String> = HashMap::new();
    for (no, _, change) in changes {
        let Some((plugin, stored)) = found.remove(&no) else { continue };
        match change {
            StateChange::Mirror(state) => {
                states.insert(plugin, state.get().to_owned());
            }
            StateChange::Merge(update) => {
                let before = states.get(&plugin).map_or(stored.as_deref().unwrap_or("{}"), String::as_str);
                let after = shallow_merge(before, update);
                if after.len() > STATE_LIMIT {
                    refused.push((no, WriteError::StateTooLarge { plugin, bytes: after.len(), limit: STATE_LIMIT }));
                    continue;
                }
                merged.insert(no, after.clone());
                states.insert(plugin, after);
            }
        }
    }
    Ok((merged, refused))
}

/// The keys of `update` over those of `before`, values verbatim. Something that is no object counts as empty.
fn shallow_merge(before: &str, update: &RawValue) -> String {
    type Object<'a> = BTreeMap<std::borrow::Cow<'a, str>, &'a RawValue>;
    let mut state: Object<'_> = serde_json::from_str(before).unwrap_or_default();
    let update: Object<'_> = serde_json::from_str(update.get()).unwrap_or_default();
    state.extend(update);
    serde_json::to_string(&state).expect("raw values serialize into memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FCT-06: top-level keys are merged, values are neither merged nor rewritten.
    #[test]
    fn a_merge_is_shallow_and_keeps_numbers_as_they_were_written() {
        let update = RawValue::from_string(r#"{"b":{"y":12345678901234567890123},"c":1.10}"#.into()).expect("JSON");
        assert_eq!(
            shallow_merge(r#"{"a":1e400,"b":{"x":1}}"#, &update),
            r#"{"a":1e400,"b":{"y":12345678901234567890123},"c":1.10}"#
        );
        assert_eq!(shallow_merge("[1]", &update), update.get());
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(shorten(&"é".repeat(200)).len(), 300);
        assert_eq!(shorten(&format!("x{}", "é".repeat(200))).len(), 299);
    }

    /// The writer's cost must not grow with history: no statement of a batch walks over a table of the file.
    #[tokio::test]
    async fn no_statement_of_a_batch_walks_over_a_table() {
        use sqlx::ConnectOptions as _;
        let options = sqlx::sqlite::SqliteConnectOptions::new().in_memory(true);
        let mut conn = options.connect().await.expect("a database in memory");
        for script in std::iter::once(crate::schema::BASELINE).chain(TEMP_SCHEMA) {
            sqlx::raw_sql(script).execute(&mut conn).await.expect("the schema is valid");
        }
        let bodies = TEMP_SCHEMA.iter().flat_map(|script| script.split("BEGIN\n").skip(1));
        let statements = bodies.flat_map(|body| body.split("END;\n").next().unwrap_or_default().split(";\n"));
        let mut seen = 0;
        for statement in statements.chain(RUN.split(";\n")).filter(|s| !s.trim().is_empty()) {
            // EXPLAIN does not look into triggers, so that their statements are explained alone
            let mut sql = format!("EXPLAIN QUERY PLAN {statement}");
            for section in
                ["ops", "facts", "states", "finishes", "spawns", "cancels", "enqueues", "claims", "running", "at"]
            {
                sql = sql.replace(&format!("NEW.{section}"), "'[]'");
            }
            let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&mut conn).await;
            for row in rows.unwrap_or_else(|e| panic!("{statement}: {e}")) {
                let step: String = row.get("detail");
                let table = step.strip_prefix("SCAN ").and_then(|s| s.split(' ').next()).unwrap_or_default();
                let is_ours = matches!(table, "" | "j" | "x" | "f" | "c" | "e" | "t" | "p" | "w" | "CONSTANT")
                    || table.starts_with("batch_")
                    || table.starts_with('(');
                assert!(is_ours, "{statement}: {step}");
                // an index without a constraint is a walk as well; all rows of one status are counted at most
                let is_walk = step.starts_with("SEARCH") && !step.contains('(');
                let is_long = step.contains("(status=?)") && !statement.contains("count(*)");
                let is_newest = statement.contains("max(id) FROM job_transitions");
                assert!((!is_walk || is_newest) && !is_long, "{statement}: {step}");
                seen += 1;
            }
        }
        assert!(seen > 60, "only {seen} steps were looked at");
    }
}
