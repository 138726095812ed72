//! `ductile system storage`: what the database is made of, how it grows, how long it keeps what, and what is free beside it.

use std::time::Duration;

use ductile_domain::config::Config;
use serde_json::{Value, json};

use crate::args::Global;
use crate::client::{Client, Target};
use crate::error::Error;
use crate::instance::Instance;
use crate::offline::Offline;
use crate::report::{Report, Style};
use crate::table::{Table, size};
use crate::tree_view::span;

/// Asks the gateway, or looks through the database when none runs.
///
/// # Errors
/// There is neither, or it can't be read.
pub(crate) async fn run(global: &Global, report: &mut Report) -> Result<(), Error> {
    if let Some(url) = &global.api_url {
        let client = Client::new(Target::parse(url)?, global.api_key.clone());
        return show(&client.get("/system/storage").await?, report);
    }
    let instance = Instance::locate(global, report)?;
    match instance.client().get("/system/storage").await {
        Ok(storage) => show(&storage, report),
        Err(error) if error.is_unreachable() => {
            let offline = Offline::instead(&instance, &error, report)?;
            let loaded = ductile_config::load(&instance.config, &|name| std::env::var(name).ok());
            // the settings in it are shown only; a broken one has defaults
            let config = loaded.map_or_else(|_| Config::default(), |loaded| loaded.config);
            let mut storage = offline.storage(&config.service).await?;
            storage["min_free_bytes"] = json!(config.state.min_free_space);
            storage["intake_stopped"] = Value::Null;
            show(&storage, report)
        }
        Err(error) => Err(error),
    }
}

fn show(storage: &Value, report: &mut Report) -> Result<(), Error> {
    if report.is_json() {
        report.document(storage);
        return Ok(());
    }
    let number = |key: &str| storage[key].as_u64().unwrap_or(0);
    report.field("file", storage["path"].as_str().unwrap_or("-"));
    report.field(
        "size",
        &format!(
            "{}, of which {} are free to be used again; the write-ahead log has {}",
            size(number("file_bytes")),
            size(number("free_bytes")),
            size(number("wal_bytes"))
        ),
    );
    let growth: Vec<String> = storage["growth"].as_array().into_iter().flatten().map(growth).collect();
    match growth.as_slice() {
        [] => report.field("growth", "not known yet: the gateway notes the size every hour"),
        known => report.field("growth", &known.join(", ")),
    }
    let free = storage["disk_free_bytes"].as_u64().map_or_else(|| "?".to_owned(), size);
    let guard = match number("min_free_bytes") {
        0 => "nothing stops intake (state.min_free_space is 0)".to_owned(),
        least => format!("intake stops below {}", size(least)),
    };
    report.field("disk", &format!("{free} free; {guard}"));
    if let Some(reason) = storage["intake_stopped"].as_str() {
        report.field_styled("", reason, Style::Red);
    }
    report.line("");
    let mut table = Table::new(&["TABLE", "ROWS", "SIZE", "INDEXES", "KEPT", "OLDEST"]);
    for entry in storage["tables"].as_array().into_iter().flatten() {
        let bytes = |key: &str| entry[key].as_u64().map_or_else(|| "?".to_owned(), size);
        let rows = entry["rows"].as_u64().map_or_else(|| "?".to_owned(), |rows| rows.to_string());
        let kept = entry["retention_seconds"].as_u64().map_or("-".to_owned(), age_of);
        table.row([
            (entry["table"].as_str().unwrap_or("-").to_owned(), Style::Plain),
            (rows, Style::Plain),
            (bytes("bytes"), Style::Plain),
            (bytes("index_bytes"), Style::Dim),
            (kept, Style::Plain),
            (entry["oldest"].as_str().unwrap_or("-").to_owned(), Style::Dim),
        ]);
    }
    report.table(&table);
    if storage["is_complete"] == false {
        report.note("note: the database is too large to be looked through at once; `?` stands for what was not seen");
    }
    Ok(())
}

fn growth(growth: &Value) -> String {
    let per_day = growth["bytes_per_day"].as_i64().unwrap_or(0);
    let sign = if per_day < 0 { '-' } else { '+' };
    let over = span(Duration::from_secs(growth["seconds"].as_u64().unwrap_or(0)));
    format!("{sign}{} a day over {over}", size(per_day.unsigned_abs()))
}

/// Whole days where they are whole.
fn age_of(seconds: u64) -> String {
    if seconds > 0 && seconds.is_multiple_of(86_400) {
        format!("{}d", seconds / 86_400)
    } else {
        span(Duration::from_secs(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_growth_are_short() {
        assert_eq!([86_400, 30 * 86_400, 90_000, 5].map(age_of), ["1d", "30d", "1d01h", "5s"]);
        assert_eq!(growth(&json!({"bytes_per_day": -2048, "seconds": 86_400})), "-2.0 kB a day over 1d00h");
    }
}
