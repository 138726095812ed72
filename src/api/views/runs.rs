//! How a run of a pipeline ended, read from the jobs that it left.

use std::collections::{BTreeMap, BTreeSet};

use ductile_domain::builtin;
use ductile_domain::ids::JobId;
use ductile_domain::job::JobStatus;
use ductile_domain::pipeline::{Action, Pipeline, Target};
use ductile_ledger::Readers;
use serde::Serialize;
use serde_json::value::RawValue;

use super::contexts;
use super::history::{self, TreeJob};
use crate::error::ApiError;

/// API-07, API-11: a run that is over.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    job_id: String,
    /// Of the first step that failed and was not made up for, otherwise of the last.
    status: JobStatus,
    pub(crate) duration_ms: u64,
    /// Of the same step.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    tree: Vec<TreeJob>,
}

/// The run that began with `job`, and whether jobs were left out; `None` when there is no such job.
pub(crate) async fn ended(
    readers: &Readers,
    pipeline: &Pipeline,
    job: JobId,
    sees_results: bool,
) -> Result<Option<(Run, bool)>, ApiError> {
    let Some((tree, is_truncated)) = history::tree(readers, job, sees_results).await? else { return Ok(None) };
    let decisive = &tree[decisive(pipeline, &tree)];
    let run =
        Run { job_id: job.to_string(), status: decisive.status, duration_ms: 0, result: decisive.result.clone(), tree };
    Ok(Some((run, is_truncated)))
}

/// The jobs of the run that the job belongs to, or of its whole family when it belongs to none; `None` when there is no
/// such job. An ancestor that is pruned ends the way to the first.
pub(crate) async fn of(readers: &Readers, job: JobId) -> Result<Option<Vec<TreeJob>>, ApiError> {
    let way = contexts::hops(readers, job).await?;
    let Some(first) = way.first() else { return Ok(None) };
    let first = first.job_id.parse().map_err(|e| ApiError::internal(format!("job {}: {e}", first.job_id)))?;
    let Some((mut tree, _)) = history::tree(readers, first, false).await? else { return Ok(None) };
    let run = tree.iter().find(|other| other.job_id == job.to_string()).and_then(|job| job.run.clone());
    tree.retain(|other| run.is_none() || other.run == run);
    Ok(Some(tree))
}

/// The place of the job whose status and result are the run's. Only jobs of the same run of the same pipeline decide;
/// what its events started elsewhere does not.
fn decisive(pipeline: &Pipeline, tree: &[TreeJob]) -> usize {
    let run = tree.first().and_then(|root| root.run.as_deref());
    let is_own = |job: &TreeJob| run.is_none() || job.run.as_deref() == run;
    let own: Vec<(usize, &TreeJob)> = tree.iter().enumerate().filter(|(_, job)| is_own(job)).collect();
    let joined: BTreeSet<&str> = own
        .iter()
        .filter(|(_, job)| job.status == JobStatus::Succeeded)
        .filter_map(|(_, job)| job.node.as_deref())
        .collect();
    let joins = Joins::of(pipeline);
    let failed = own
        .iter()
        .filter(|(_, job)| matches!(job.status, JobStatus::Failed | JobStatus::Dead))
        .filter(|(_, job)| !joins.around(job.node.as_deref()).any(|join| joined.contains(join)));
    if let Some((place, _)) = failed.min_by_key(|(place, job)| (&job.completed_at, *place)) {
        return *place;
    }
    let parents: BTreeSet<&str> = own.iter().filter_map(|(_, job)| job.parent_job_id.as_deref()).collect();
    let last = own.iter().filter(|(_, job)| !parents.contains(&*job.job_id));
    let mut place = last.max_by_key(|(place, job)| (&job.completed_at, *place)).map_or(0, |(place, _)| *place);
    // A decision that led nowhere has nothing to say; the step before it has.
    while tree[place].plugin == builtin::SWITCH {
        let parent = own.iter().find(|(_, job)| Some(&job.job_id) == tree[place].parent_job_id.as_ref());
        let Some((parent, _)) = parent else { break };
        place = *parent;
    }
    place
}

/// Which join waits for which node.
struct Joins<'a> {
    pipeline: &'a Pipeline,
    /// The innermost join by the index of the node.
    innermost: BTreeMap<usize, Option<usize>>,
}

impl<'a> Joins<'a> {
    fn of(pipeline: &'a Pipeline) -> Self {
        let mut innermost = BTreeMap::new();
        let mut left: Vec<(&[Target], Option<usize>)> = vec![(&pipeline.entries, None)];
        while let Some((targets, join)) = left.pop() {
            for target in targets {
                let reached = match target {
                    Target::Node(node) => *node,
                    Target::Split { join: inner, branches } => {
                        left.extend(branches.iter().map(|branch| (branch.as_slice(), Some(*inner))));
                        *inner
                    }
                    Target::Arrive => continue,
                };
                if innermost.insert(reached, join).is_some() {
                    continue;
                }
                let Some(node) = pipeline.nodes.get(reached) else { continue };
                left.push((&node.next, join));
                if let Action::Switch { on_false, .. } = &node.action {
                    left.push((on_false, join));
                }
            }
        }
        Self { pipeline, innermost }
    }

    /// Keys of the joins that wait for the node with that key, the innermost first.
    fn around(&self, key: Option<&str>) -> impl Iterator<Item = &'a str> {
        let pipeline = self.pipeline;
        let node = pipeline.nodes.iter().position(|node| Some(&*node.key) == key);
        let outer = |node: Option<usize>| self.innermost.get(&node?).copied().flatten();
        std::iter::successors(outer(node), move |join| outer(Some(*join)))
            .filter_map(|join| pipeline.nodes.get(join).map(|node| &*node.key))
    }
}
