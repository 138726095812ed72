//! What a plugin remembers: facts are appended with a sequence of their own, the state is replaced or merged.

use std::collections::BTreeMap;

use ductile_domain::plan::{Plan, StateChange};
use rusqlite::{OptionalExtension as _, params};
use serde_json::value::RawValue;

use super::finish::Found;
use super::transaction::Transaction;
use crate::error::WriteError;

/// A plugin's state must not exceed this, in bytes.
const STATE_LIMIT: usize = 1 << 20;

const NEXT_SEQUENCE: &str =
    "UPDATE storage_sequences SET value = value + 1 WHERE name = 'plugin_facts' RETURNING value";
const FACT: &str = "INSERT INTO plugin_facts (seq, plugin_name, fact_type, job_id, command, fact_json, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const READ_STATE: &str = "SELECT state FROM plugin_state WHERE plugin_name = ?1";
const WRITE_STATE: &str = "INSERT INTO plugin_state (plugin_name, state, updated_at) VALUES (?1, ?2, ?3)
    ON CONFLICT (plugin_name) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[NEXT_SEQUENCE, FACT, READ_STATE, WRITE_STATE];

impl Transaction<'_> {
    /// Appends the plan's facts and changes the state. A state that would become too large is refused before anything
    /// is written.
    pub(super) fn remember(
        &self,
        plan: &Plan,
        found: &Found,
        job: &str,
    ) -> Result<Result<(), WriteError>, rusqlite::Error> {
        let plugin = &found.plugin;
        let merged;
        let state = match &plan.state {
            None => None,
            Some(StateChange::Mirror(state)) => Some(state.get()),
            Some(StateChange::Merge(update)) => {
                let before = self.conn.prepare_cached(READ_STATE)?.query_row([plugin], |row| row.get(0)).optional()?;
                let before: String = before.unwrap_or_default();
                merged = shallow_merge(&before, update);
                if merged.len() > STATE_LIMIT {
                    let (plugin, bytes) = (plugin.clone(), merged.len());
                    return Ok(Err(WriteError::StateTooLarge { plugin, bytes, limit: STATE_LIMIT }));
                }
                Some(merged.as_str())
            }
        };
        for fact in &plan.facts {
            let seq: i64 = self.conn.prepare_cached(NEXT_SEQUENCE)?.query_row([], |row| row.get(0))?;
            let text = fact.fact.get();
            self.conn.prepare_cached(FACT)?.execute(params![
                seq,
                plugin,
                fact.fact_type,
                job,
                found.command,
                text,
                self.at
            ])?;
        }
        if let Some(state) = state {
            self.conn.prepare_cached(WRITE_STATE)?.execute(params![plugin, state, self.at])?;
        }
        Ok(Ok(()))
    }
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
}
