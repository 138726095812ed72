//! `plugins.<name>.limits` and `plugins.<name>.circuit_breaker`.

use std::collections::BTreeMap;
use std::time::Duration;

use ductile_domain::breaker::BreakerPolicy;
use ductile_domain::config::{PluginEntry, ResourceLimits};

use crate::findings::Findings;
use crate::node::{Content, Node};
use crate::section::Section;
use crate::show::{self, Shown};
use crate::units::{self, LONGEST};

const SECOND: Duration = Duration::from_secs(1);
/// With less no interpreter starts.
const LEAST_MEMORY: u64 = 1 << 20;
const MOST_MEMORY: u64 = 1 << 40;
/// Its pipes and the files of its loader need some.
const FEWEST_FILES: u32 = 8;
const MOST_FILES: u32 = 1 << 20;
const MOST_PROCESSES: u32 = 1 << 22;
const MOST_FAILURES: u32 = 1000;

/// BRK-02.
pub(crate) fn breaker(keys: &mut Section<'_>, findings: &mut Findings) -> BreakerPolicy {
    let default = BreakerPolicy::default();
    let mut keys = keys.section("circuit_breaker", findings);
    let threshold = keys.number("threshold", 1..=MOST_FAILURES, findings);
    let reset_after = keys.duration("reset_after", Duration::ZERO..=LONGEST, findings);
    keys.close(findings);
    BreakerPolicy {
        threshold: threshold.unwrap_or(default.threshold),
        reset_after: reset_after.unwrap_or(default.reset_after),
    }
}

pub(crate) fn limits(keys: &mut Section<'_>, findings: &mut Findings) -> ResourceLimits {
    let mut keys = keys.section("limits", findings);
    let memory = keys.size("memory", LEAST_MEMORY..=MOST_MEMORY, findings);
    let limits = ResourceLimits {
        memory,
        cpu_time: keys.duration("cpu_time", SECOND..=LONGEST, findings),
        open_files: keys.number("open_files", FEWEST_FILES..=MOST_FILES, findings).map(u64::from),
        processes: keys.number("processes", 1..=MOST_PROCESSES, findings).map(u64::from),
        tiers: tiers(&mut keys, memory, findings),
    };
    keys.close(findings);
    limits
}

/// Sizes that grow: a second try with less memory than the first would end as that did.
fn tiers(keys: &mut Section<'_>, memory: Option<u64>, findings: &mut Findings) -> Vec<u64> {
    let sizes = keys.sizes("tiers", LEAST_MEMORY..=MOST_MEMORY, findings);
    let has_bad_memory = memory.is_none() && keys.get("memory").is_some();
    let mut below = match (memory, keys.get("tiers")) {
        (None, Some(node)) if !has_bad_memory && !sizes.is_empty() => {
            let problem = keys.error("tiers", "there is no `memory` above which they could begin");
            findings.add(problem.hint("set limits.memory to the size of the first try"), node.origin);
            return Vec::new();
        }
        _ => ("memory".to_owned(), memory.unwrap_or(0)),
    };
    let mut tiers = Vec::new();
    for (i, size, node) in sizes {
        let key = format!("tiers[{i}]");
        if size <= below.1 {
            let problem = keys.error(&key, format!("{} is not more than {}", node.shown(), below.0));
            findings.add(problem.hint("write the sizes in ascending order, all above memory"), node.origin);
        } else {
            below = (key, size);
            tiers.push(size);
        }
    }
    tiers
}

pub(crate) fn show(plugin: &PluginEntry, keys: &mut BTreeMap<String, Node>) {
    show::fill(keys, "max_outstanding_polls", Shown::number(plugin.max_outstanding_polls.into()));
    let breaker = show::map(keys, "circuit_breaker");
    show::fill(breaker, "threshold", Shown::number(plugin.circuit_breaker.threshold.into()));
    show::fill(breaker, "reset_after", Shown::duration(plugin.circuit_breaker.reset_after));
}

impl<'a> Section<'a> {
    /// A list of sizes within limits, each with its place in the list; what is none is reported and left out.
    fn sizes(
        &mut self,
        key: &'static str,
        limits: std::ops::RangeInclusive<u64>,
        findings: &mut Findings,
    ) -> Vec<(usize, u64, &'a Node)> {
        let Some(node) = self.get(key) else { return Vec::new() };
        let Content::List(items) = &node.content else {
            let problem = self.error(key, format!("expected a list of sizes, found {}", node.shown()));
            findings.add(problem.hint("write them as [512MB, 1GB]"), node.origin);
            return Vec::new();
        };
        let mut sizes = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let bytes = match &item.content {
                Content::Text(text) => units::size(text).ok(),
                Content::Number(number) => number.as_u64(),
                _ => None,
            };
            match bytes.filter(|bytes| limits.contains(bytes)) {
                Some(bytes) => sizes.push((i, bytes, item)),
                None => {
                    let (low, high) = (limits.start(), limits.end());
                    let text = format!("expected a size of {low} to {high} bytes, found {}", item.shown());
                    let problem = self.error(&format!("{key}[{i}]"), text);
                    findings.add(problem.hint("write a size such as 512MB or 2GB"), item.origin);
                }
            }
        }
        sizes
    }
}
