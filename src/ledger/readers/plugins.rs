//! What plugins left behind, and the configurations that were in force.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::sqlite::Sqlite;
use sqlx::{QueryBuilder, Row as _};

use super::{Readers, json, reading};
use crate::error::Error;

/// A row of `plugin_facts`.
#[derive(Debug, Clone, Serialize)]
pub struct FactRow {
    /// Row.
    pub id: i64,
    /// Ascends over all plugins; null for rows of old.
    pub seq: Option<i64>,
    /// Plugin or alias.
    pub plugin_name: String,
    /// Type by the manifest's rule.
    pub fact_type: String,
    /// The job that observed it.
    pub job_id: Option<String>,
    /// Its command.
    pub command: Option<String>,
    /// The snapshot.
    pub fact: Option<Box<RawValue>>,
    /// RFC 3339.
    pub created_at: String,
}

/// Which facts of a plugin a list shows; empty fields match everything.
#[derive(Debug, Clone, Default)]
pub struct FactFilter {
    /// Type by the manifest's rule.
    pub fact_type: Option<String>,
    /// Only those with a lower `seq`: the next page of a list.
    pub before: Option<i64>,
    /// Rows of a page.
    pub limit: u32,
}

/// A row of `config_snapshots`, without the configuration itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotRow {
    /// Row.
    pub id: i64,
    /// Hash over the configuration.
    pub config_hash: String,
    /// `start` or `reload`.
    pub reason: String,
    /// RFC 3339.
    pub loaded_at: String,
    /// Version of the gateway.
    pub ductile_version: Option<String>,
}

impl Readers {
    /// The plugin's compatibility view, a JSON object; `None` when there is no row.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn plugin_state(&self, plugin: &str) -> Result<Option<Box<RawValue>>, Error> {
        let row = sqlx::query("SELECT state FROM plugin_state WHERE plugin_name = ?1")
            .bind(plugin)
            .fetch_optional(&self.pool)
            .await
            .map_err(reading("the plugin's state"))?;
        Ok(row.and_then(|r| json(r.get(0))))
    }

    /// The plugin's facts that match, the newest first.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn facts(&self, plugin: &str, filter: &FactFilter) -> Result<Vec<FactRow>, Error> {
        let mut query = QueryBuilder::<Sqlite>::new(
            "SELECT id, seq, plugin_name, fact_type, job_id, command, fact_json, created_at FROM plugin_facts
             WHERE plugin_name = ",
        );
        query.push_bind(plugin.to_owned());
        if let Some(fact_type) = &filter.fact_type {
            query.push(" AND fact_type = ").push_bind(fact_type.clone());
        }
        if let Some(before) = filter.before {
            query.push(" AND seq < ").push_bind(before);
        }
        // null sorts lowest, so rows without a number come last
        query.push(" ORDER BY seq DESC, id DESC LIMIT ").push_bind(i64::from(filter.limit));
        let rows = query.build().fetch_all(&self.lists).await.map_err(reading("the facts"))?;
        Ok(rows
            .iter()
            .map(|r| FactRow {
                id: r.get(0),
                seq: r.get(1),
                plugin_name: r.get(2),
                fact_type: r.get(3),
                job_id: r.get(4),
                command: r.get(5),
                fact: json(r.get(6)),
                created_at: r.get(7),
            })
            .collect())
    }

    /// Plugins whose last `init` failed, and why.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn failed_inits(&self) -> Result<BTreeMap<String, String>, Error> {
        let rows = sqlx::query(
            "SELECT substr(name, 6), json_extract(value, '$.error') FROM ledger_meta
             WHERE name >= 'init:' AND name < 'init;' AND json_extract(value, '$.error') IS NOT NULL",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(reading("the plugins' inits"))?;
        Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
    }

    /// What the plugin's last `init` said, once one has succeeded.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn init_result(&self, plugin: &str) -> Result<Option<String>, Error> {
        let row = sqlx::query("SELECT json_extract(value, '$.result') FROM ledger_meta WHERE name = 'init:' || ?1")
            .bind(plugin)
            .fetch_optional(&self.pool)
            .await
            .map_err(reading("the plugin's init"))?;
        Ok(row.and_then(|r| r.get(0)))
    }

    /// The configurations that were in force, the newest first.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn snapshots(&self, limit: u32) -> Result<Vec<SnapshotRow>, Error> {
        let rows = sqlx::query(
            "SELECT id, config_hash, reason, loaded_at, ductile_version FROM config_snapshots ORDER BY id DESC LIMIT ?1",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(reading("the configuration snapshots"))?;
        Ok(rows
            .iter()
            .map(|r| SnapshotRow {
                id: r.get(0),
                config_hash: r.get(1),
                reason: r.get(2),
                loaded_at: r.get(3),
                ductile_version: r.get(4),
            })
            .collect())
    }
}
