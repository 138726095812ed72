//! Facts and figures as the API shows them.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use ductile_domain::generation::Generation;
use ductile_domain::job::JobStatus;
use ductile_ledger::{FactFilter, FactRow, Readers, STOPWATCH_LIMIT};
use serde::Serialize;

use super::unreadable;
use crate::error::ApiError;

/// The newest facts of a plugin that match.
pub(crate) async fn facts(readers: &Readers, plugin: &str, filter: &FactFilter) -> Result<Vec<FactRow>, ApiError> {
    readers.facts(plugin, filter).await.map_err(unreadable)
}

/// API-40: how long attempts took from spawn to reap, in nanoseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Stopwatch {
    /// Attempts behind the figures.
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p95: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<i64>,
    unit: &'static str,
    /// Only so many of the newest attempts are looked at.
    limit: u32,
    /// True when there are that many, and perhaps more.
    limited: bool,
}

impl Stopwatch {
    /// Attempts behind the figures.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

/// The figures of a plugin's newest attempts.
pub(crate) async fn stopwatch(
    readers: &Readers,
    plugin: &str,
    command: Option<&str>,
    window: Option<TimeDelta>,
) -> Result<Stopwatch, ApiError> {
    let since = window.and_then(|window| chrono::Utc::now().checked_sub_signed(window));
    let mut durations = readers.durations(plugin, command, since).await.map_err(unreadable)?;
    durations.sort_unstable();
    let count = durations.len();
    Ok(Stopwatch {
        count,
        min: durations.first().copied(),
        p50: percentile(&durations, 50),
        p95: percentile(&durations, 95),
        p99: percentile(&durations, 99),
        max: durations.last().copied(),
        unit: "ns",
        limit: STOPWATCH_LIMIT,
        limited: count >= STOPWATCH_LIMIT as usize,
    })
}

/// The smallest value that at least so many percent of the sorted values do not exceed.
fn percentile(sorted: &[i64], percent: usize) -> Option<i64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

/// API-34: what waits, what runs, and how much room is left.
#[derive(Debug, Serialize)]
pub(crate) struct Queue {
    queued: u64,
    running: u64,
    /// Of the queued: those whose retry is not due yet.
    awaiting_retry: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_queued_at: Option<String>,
    max_workers: u32,
    /// Running jobs per worker, 0 to 1.
    utilization: f64,
    per_plugin: Vec<QueueOfPlugin>,
}

#[derive(Debug, Serialize)]
struct QueueOfPlugin {
    plugin: String,
    queued: u64,
    running: u64,
    /// Cap of its concurrent jobs; absent for a plugin that the configuration no longer has.
    #[serde(skip_serializing_if = "Option::is_none")]
    parallelism: Option<u32>,
}

/// The queue now, from rows.
pub(crate) async fn queue(readers: &Readers, generation: &Generation) -> Result<Queue, ApiError> {
    let counts = readers.counts_by_plugin().await.map_err(unreadable)?;
    let waiting = readers.waiting(chrono::Utc::now()).await.map_err(unreadable)?;
    let (queued, running) = counts.iter().fold((0, 0), |(q, r), c| (q + c.queued, r + c.running));
    let max_workers = generation.config.service.max_workers;
    // A lowered cap leaves more running than it allows, until they end.
    let busy = u32::try_from(running).unwrap_or(u32::MAX).min(max_workers);
    let per_plugin = counts.into_iter().map(|counts| QueueOfPlugin {
        parallelism: generation.catalog.get(&counts.plugin).map(|p| p.parallelism),
        plugin: counts.plugin,
        queued: counts.queued,
        running: counts.running,
    });
    Ok(Queue {
        queued,
        running,
        awaiting_retry: waiting.awaiting_retry,
        oldest_queued_at: waiting.oldest_queued_at,
        max_workers,
        utilization: f64::from(busy) / f64::from(max_workers.max(1)),
        per_plugin: per_plugin.collect(),
    })
}

/// API-35: how many jobs ended in each way within the window; ways in which none ended are 0.
pub(crate) async fn summary(readers: &Readers, window: TimeDelta) -> Result<BTreeMap<String, u64>, ApiError> {
    let mut stats: BTreeMap<_, _> =
        JobStatus::ALL.iter().filter(|s| s.is_terminal()).map(|s| (s.as_str().to_owned(), 0)).collect();
    let since = chrono::Utc::now().checked_sub_signed(window).unwrap_or(chrono::DateTime::UNIX_EPOCH);
    for found in readers.ended_since(since).await.map_err(unreadable)? {
        stats.insert(found.status, found.count);
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// API-40: exact, by nearest rank.
    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred: Vec<i64> = (1..=100).collect();
        for (percent, expected) in [(50, 50), (95, 95), (99, 99), (100, 100)] {
            assert_eq!(percentile(&hundred, percent), Some(expected));
        }
        assert_eq!(percentile(&[7], 50), Some(7));
        assert_eq!(percentile(&[1, 2], 50), Some(1));
        assert_eq!(percentile(&[1, 2, 3], 95), Some(3));
        assert_eq!(percentile(&[], 50), None);
    }
}
