//! Rows of `event_context` that an operation brings with it. Each is written with the first accepted job or join that
//! names it, after the rows that it accretes to; what only duplicates name is left out.

use std::collections::HashMap;
use std::sync::Arc;

use ductile_domain::ids::ContextId;
use ductile_domain::plan::NewContext;
use rusqlite::{OptionalExtension as _, params};

use super::transaction::Transaction;

const INSERT: &str = "INSERT INTO event_context (id, parent_id, pipeline_name, step_id, accumulated_json, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const PLACE: &str = "SELECT pipeline_name, step_id FROM event_context WHERE id = ?1";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[INSERT, PLACE];

/// Pipeline and step.
type Place = (Option<Arc<str>>, Option<Arc<str>>);

/// The rows that wait to be written.
#[derive(Default)]
pub(super) struct Waiting<'a>(HashMap<ContextId, &'a NewContext>);

impl<'a> Waiting<'a> {
    pub(super) fn new(rows: &'a [NewContext]) -> Self {
        Self(rows.iter().map(|row| (row.id, row)).collect())
    }

    /// Takes the row and those above it, the highest last. What is taken can't be found again, so that a row which
    /// names itself ends the search too.
    fn take(&mut self, id: ContextId) -> Vec<&'a NewContext> {
        let mut next = Some(id);
        std::iter::from_fn(|| {
            let row = self.0.remove(&next?)?;
            next = row.parent;
            Some(row)
        })
        .collect()
    }
}

impl Transaction<'_> {
    /// Writes the row that `id` names unless it stands in the table already.
    pub(super) fn write_context(
        &self,
        id: Option<ContextId>,
        waiting: &mut Waiting<'_>,
    ) -> Result<(), rusqlite::Error> {
        let (Some(id), false) = (id, waiting.0.is_empty()) else { return Ok(()) };
        for row in waiting.take(id).into_iter().rev() {
            self.conn.prepare_cached(INSERT)?.execute(params![
                row.id.to_string(),
                row.parent.map(|id| id.to_string()),
                row.pipeline.as_deref(),
                row.step.as_deref(),
                row.accumulated.get(),
                self.at,
            ])?;
        }
        Ok(())
    }

    /// The pipeline and the step that a row names.
    pub(super) fn place_of(&self, id: Option<ContextId>) -> Result<Place, rusqlite::Error> {
        let Some(id) = id else { return Ok(Place::default()) };
        let mut place = self.conn.prepare_cached(PLACE)?;
        let place = place.query_row([id.to_string()], |row| {
            let text = |column| row.get::<_, Option<String>>(column).map(|text| text.map(Arc::from));
            Ok((text(0)?, text(1)?))
        });
        Ok(place.optional()?.unwrap_or_default())
    }
}
