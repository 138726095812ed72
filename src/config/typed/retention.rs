//! `service.<table>_retention`: how long rows stay that are neither the queue's nor the log's.

use std::collections::BTreeMap;
use std::time::Duration;

use ductile_domain::config::Retention;

use crate::findings::Findings;
use crate::node::Node;
use crate::section::Section;
use crate::show::{self, Shown};
use crate::units::LONGEST;

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn read(keys: &mut Section<'_>, findings: &mut Findings) -> Retention {
    let default = Retention::default();
    let mut of = |key, default| keys.duration(key, SECOND..=LONGEST, findings).unwrap_or(default);
    Retention {
        job_transitions: of("job_transitions_retention", default.job_transitions),
        job_attempts: of("job_attempts_retention", default.job_attempts),
        breaker_transitions: of("breaker_transitions_retention", default.breaker_transitions),
        schedule_ticks: of("schedule_ticks_retention", default.schedule_ticks),
        facts: of("facts_retention", default.facts),
        snapshots: of("config_snapshots_retention", default.snapshots),
        quarantine: of("quarantine_retention", default.quarantine),
    }
}

pub(crate) fn show(retention: &Retention, keys: &mut BTreeMap<String, Node>) {
    for (key, value) in [
        ("job_transitions_retention", retention.job_transitions),
        ("job_attempts_retention", retention.job_attempts),
        ("breaker_transitions_retention", retention.breaker_transitions),
        ("schedule_ticks_retention", retention.schedule_ticks),
        ("facts_retention", retention.facts),
        ("config_snapshots_retention", retention.snapshots),
        ("quarantine_retention", retention.quarantine),
    ] {
        show::fill(keys, key, Shown::duration(value));
    }
}
