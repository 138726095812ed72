//! From one generation to the next: prepare, commit, apply. One at a time; whoever comes second waits and reads again.
//!
//! Prepare reads files and binds sockets, and changes nothing: whatever is wrong ends the reload there. The commit is
//! one transaction of the ledger. Applying can't fail any more: an actor that does not take the change in time is
//! restarted, and starts under the generation in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ductile_api::gateway::{Refusal, Reloaded};
use ductile_domain::catalog::Catalog;
use ductile_domain::config::{Config, State};
use ductile_domain::event::LiveEvent;
use ductile_domain::generation::Generation;
use ductile_domain::problem::Problem;
use ductile_domain::time;
use ductile_ledger::{Recorded, Snapshot, WriteError};
use serde_json::{Map, Value};

use crate::assembly::{self, Assembled, Prints};
use crate::http::Door;
use crate::shared::{CALL_DEADLINE, Shared};
use crate::{announce, dispatcher, http, maintenance, scheduler};

/// How long the commit is tried while the ledger is down or busy.
const COMMIT_PATIENCE: Duration = Duration::from_secs(5);

/// Between two attempts to settle what a failed commit left open.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);

/// Reads the configuration again and puts it in force, or changes nothing.
///
/// # Errors
/// Every problem of the configuration; or why the ledger could not take it.
pub(crate) async fn reload(shared: &Arc<Shared>, requested_by: String) -> Result<Reloaded, Refusal> {
    let mut prints = shared.reloads.lock().await;
    if shared.flags.is_shutting_down() || shared.flags.is_draining() {
        let reason = "the gateway is stopping and reloads nothing".to_owned();
        return Err(Refusal::Unavailable { reason, retry_after: Duration::from_secs(10) });
    }
    shared.notifier.reloading();
    let result = change(shared, &mut prints).await;
    shared.notifier.ready();
    match &result {
        Ok(reloaded) => tell(shared, reloaded, &requested_by),
        Err(refusal) => tell_refused(shared, refusal, &requested_by),
    }
    result
}

async fn change(shared: &Arc<Shared>, prints: &mut Prints) -> Result<Reloaded, Refusal> {
    let former = shared.generation();
    let Prepared { assembled, restart_required, door } = prepare(shared, &former).await?;
    let Assembled { config, catalog, pipelines, schedules, warnings, prints: new_prints, .. } = assembled;
    let differences = Differences::between(&former.config, &config, prints, &new_prints);
    let no = former.no + 1;
    let snapshot = assembly::snapshot(no, "reload", &config, &catalog, &pipelines, &new_prints);
    let recorded = match commit(shared, &snapshot).await {
        Ok(recorded) => recorded,
        Err(refusal) => {
            // one of the tries may have been committed and its answer lost
            settle_soon(shared);
            return Err(refusal);
        }
    };
    let reloaded = Reloaded {
        reloaded_at: time::format(shared.clock.now()),
        generation: no,
        config_snapshot_id: recorded.id,
        added: differences.added,
        changed: differences.changed,
        removed: differences.removed,
        restart_required,
        warnings,
    };
    *prints = new_prints;
    // A raised limit holds before the dispatcher makes use of it.
    shared.runner.set_max_threads(config.service.max_workers.max(former.config.service.max_workers) as usize);
    let generation = Generation { no, snapshot: Some(recorded.id), config, catalog, pipelines, schedules };
    put_in_force(shared, generation, door, &snapshot, recorded).await;
    Ok(reloaded)
}

/// What is recorded comes into force.
async fn put_in_force(
    shared: &Shared,
    generation: Generation,
    door: Option<Option<Arc<Door>>>,
    snapshot: &Snapshot,
    recorded: Recorded,
) {
    let generation = Arc::new(generation);
    shared.generations.add(&generation);
    shared.generation.send_replace(generation);
    if let Some(door) = door {
        shared.listeners.set_tcp(door);
    }
    announce::buried(shared, &recorded.buried);
    announce::inits(shared, &snapshot.inits, recorded.inits);
    shared.feed.push(recorded.ready);
    apply(shared).await;
}

/// Beside whoever asks, until there is nothing to be settled.
fn settle_soon(shared: &Arc<Shared>) {
    let shared = shared.clone();
    drop(tokio::spawn(async move {
        while let Settled::NotYet = settle(&shared).await {
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }));
}

/// What came of an attempt to settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// The ledger goes by the generation that is in force, or the gateway ends.
    Yes,
    /// A reload is under way, or the ledger can't be asked.
    NotYet,
}

/// Puts the generation in force once more, under the next number, when the ledger goes by another: it committed a reload
/// and nobody got the answer. Until then it would refuse all claims and ticks as those of a former generation.
pub(crate) async fn settle(shared: &Arc<Shared>) -> Settled {
    let Ok(prints) = shared.reloads.try_lock() else { return Settled::NotYet };
    let former = shared.generation();
    let of_ledger = shared.ledger_options.in_force.generation();
    let ends = shared.flags.is_shutting_down() || shared.flags.is_draining();
    if ends || of_ledger.is_none_or(|no| no == former.no) {
        return Settled::Yes;
    }
    let Generation { config, catalog, pipelines, schedules, .. } = &*former;
    let no = former.no + 1;
    let snapshot = assembly::snapshot(no, "reload", config, catalog, pipelines, &prints);
    let recorded = match commit(shared, &snapshot).await {
        Ok(recorded) => recorded,
        Err(refusal) => {
            tracing::error!(component = "config", reason = ?refusal, "the ledger goes by a configuration that is not in force, and can't be told so; trying again");
            return Settled::NotYet;
        }
    };
    let config_snapshot_id = recorded.id;
    let generation = Generation {
        no,
        snapshot: Some(recorded.id),
        config: config.clone(),
        catalog: catalog.clone(),
        pipelines: pipelines.clone(),
        schedules: schedules.clone(),
    };
    put_in_force(shared, generation, None, &snapshot, recorded).await;
    tracing::warn!(
        component = "config",
        generation = no,
        config_snapshot_id,
        "a reload was recorded and its answer lost: the configuration in force was recorded again"
    );
    Settled::Yes
}

/// What a commit needs, with nothing changed yet.
struct Prepared {
    assembled: Assembled,
    restart_required: Vec<String>,
    /// The API's next listener, when its address changes; bound already. The inner one is missing when it closes.
    door: Option<Option<Arc<Door>>>,
}

async fn prepare(shared: &Shared, former: &Arc<Generation>) -> Result<Prepared, Refusal> {
    let source = former.config.source.path.clone();
    let read = tokio::task::spawn_blocking(move || {
        let loaded = ductile_config::load(&source, &|name| std::env::var(name).ok())?;
        Ok::<_, Vec<Problem>>(assembly::assemble(loaded.config, loaded.warnings, &loaded.provenance))
    });
    let mut assembled = match read.await {
        Ok(Ok(assembled)) => assembled,
        Ok(Err(problems)) => return Err(Refusal::InvalidConfig(problems)),
        Err(error) => return Err(Refusal::Internal(format!("reading the configuration panicked: {error}"))),
    };
    if assembled.is_refused() || loses_a_plugin(former, &assembled) || spoils_a_schedule(former, &assembled) {
        return Err(Refusal::InvalidConfig(assembled.warnings));
    }
    let restart_required = keep_state(&former.config.state, &mut assembled.config.state);
    let door = listen(shared, &former.config, &assembled.config).map_err(|p| Refusal::InvalidConfig(vec![*p]))?;
    Ok(Prepared { assembled, restart_required, door })
}

/// A start leaves out a plugin that it can't load and goes on. A reload does not: its queued jobs would wait because
/// of somebody's slip. What the generation in force lacks already is no reason.
fn loses_a_plugin(former: &Generation, next: &Assembled) -> bool {
    let is_lacking = |config: &Config, catalog: &Catalog, name: &str| {
        config.wants(name) && !catalog.get(name).is_some_and(|plugin| plugin.is_runnable)
    };
    let mut names = next.config.plugins.keys();
    names
        .any(|name| is_lacking(&next.config, &next.catalog, name) && !is_lacking(&former.config, &former.catalog, name))
}

/// A start goes on without a schedule that can't be read. A reload does not, unless it could not be read before.
fn spoils_a_schedule(former: &Generation, next: &Assembled) -> bool {
    let was_good = |plugin: &str, id: &str| former.schedules.get(plugin, id).is_none_or(|was| was.timing.is_ok());
    next.schedules.iter().any(|schedule| schedule.timing.is_err() && was_good(&schedule.plugin, &schedule.id))
}

/// The ledger that is open stays: names what a start would do otherwise.
fn keep_state(former: &State, next: &mut State) -> Vec<String> {
    let mut restart_required = Vec::new();
    if next.path != former.path {
        restart_required.push("state.path".to_owned());
    }
    if next.durability != former.durability {
        restart_required.push("state.durability".to_owned());
    }
    *next = former.clone();
    restart_required
}

/// Binds the next address while the former one still serves; `None` when nothing changes.
fn listen(shared: &Shared, former: &Config, next: &Config) -> Result<Option<Option<Arc<Door>>>, Box<Problem>> {
    if !next.api.enabled {
        return Ok(former.api.enabled.then_some(None));
    }
    let is_served = shared.listeners.tcp().is_some_and(|door| door.address == next.api.listen);
    if is_served {
        return Ok(None);
    }
    let door = Door::bind(&next.api).map_err(|refused| {
        let problem = Problem::error("api", refused.to_string()).in_file(&next.source.path).at_path("api.listen");
        Box::new(problem.hint(refused.hint()))
    })?;
    Ok(Some(Some(Arc::new(door))))
}

/// Puts the generation in force in one transaction of the ledger. Trying again is harmless: it may only leave one more
/// row in `config_snapshots`.
async fn commit(shared: &Shared, snapshot: &Snapshot) -> Result<Recorded, Refusal> {
    let deadline = tokio::time::Instant::now() + COMMIT_PATIENCE;
    loop {
        let error = match shared.record_snapshot(snapshot.clone()).await {
            Ok(recorded) => return Ok(recorded),
            Err(error) => error,
        };
        let may_pass = error.is_transient() || matches!(error, WriteError::Closed);
        if !may_pass {
            return Err(Refusal::Internal(format!("the ledger refused the configuration: {error}")));
        }
        if tokio::time::Instant::now() >= deadline {
            let reason = format!("the configuration could not be recorded, nothing was changed: {error}");
            return Err(Refusal::Unavailable { reason, retry_after: Duration::from_secs(5) });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Tells those who hold something that was made under the former generation. Whoever reads the generation in force at
/// each use (router, breaker, queue, the doors' routes) needs no word.
async fn apply(shared: &Shared) {
    let addresses = &shared.addresses;
    let generation = shared.generation();
    shared.flags.tell_lacking(&generation);
    shared.on_reload.call(&generation.config);
    shared.runner.set_max_threads(generation.config.service.max_workers as usize);
    addresses.scheduler.wake(|| scheduler::Msg::Look);
    addresses.maintenance.wake(|| maintenance::Msg::Retime);
    // Claims that stand were asked for under the former generation: they are withdrawn and asked for again.
    addresses.dispatcher.wake(|| dispatcher::Msg::Recheck);
    if let Err(error) = addresses.http.call(http::Msg::Listen, CALL_DEADLINE).await {
        tracing::warn!(component = "config", %error, "the http actor did not take the new listener; restarting it");
        // A supervisor that is down starts it again anyway.
        let _ = shared.tree.restarts().restart("root/api_sup/http");
    }
}

fn tell(shared: &Shared, reloaded: &Reloaded, requested_by: &str) {
    let Reloaded { generation, config_snapshot_id, added, changed, removed, restart_required, .. } = reloaded;
    tracing::info!(
        component = "config",
        requested_by,
        generation,
        config_snapshot_id,
        added = added.join(" "),
        changed = changed.join(" "),
        removed = removed.join(" "),
        "configuration reloaded"
    );
    assembly::log(&reloaded.warnings);
    if !restart_required.is_empty() {
        tracing::warn!(
            component = "config",
            keys = restart_required.join(" "),
            "changed on disk and needs a restart to take effect"
        );
    }
    let fields = Map::from_iter([
        ("generation".to_owned(), Value::from(*generation)),
        ("config_snapshot_id".to_owned(), Value::from(*config_snapshot_id)),
        ("requested_by".to_owned(), Value::from(requested_by)),
        ("added".to_owned(), Value::from(added.clone())),
        ("changed".to_owned(), Value::from(changed.clone())),
        ("removed".to_owned(), Value::from(removed.clone())),
        ("restart_required".to_owned(), Value::from(restart_required.clone())),
    ]);
    shared.ring.emit(LiveEvent::other("config.reloaded", shared.clock.now(), fields));
}

fn tell_refused(shared: &Shared, refusal: &Refusal, requested_by: &str) {
    let generation = shared.generation().no;
    let mut fields = Map::from_iter([
        ("generation".to_owned(), Value::from(generation)),
        ("requested_by".to_owned(), Value::from(requested_by)),
    ]);
    match refusal {
        Refusal::InvalidConfig(problems) => {
            assembly::log(problems);
            let errors = problems.iter().filter(|p| p.is_error()).count();
            tracing::error!(
                component = "config",
                requested_by,
                generation,
                errors,
                "reload refused: the configuration on disk has errors; the one in force stays"
            );
            fields.insert("errors".to_owned(), Value::from(errors));
        }
        other => {
            tracing::error!(component = "config", requested_by, generation, reason = ?other, "reload failed; the configuration in force stays")
        }
    }
    shared.ring.emit(LiveEvent::other("config.reload_refused", shared.clock.now(), fields));
}

/// What is different between two configurations, as dotted paths.
#[derive(Debug, Default, PartialEq, Eq)]
struct Differences {
    added: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
}

impl Differences {
    fn between(former: &Config, next: &Config, former_prints: &Prints, next_prints: &Prints) -> Self {
        let mut differences = Self::default();
        differences.compare(&former.source.sanitized, &next.source.sanitized, "");
        // Secrets look alike once they are replaced.
        let hashes = |config: &Config| config.api.tokens.iter().map(|t| t.hash).collect::<Vec<_>>();
        if hashes(former) != hashes(next) && !differences.all().any(|path| path.starts_with("api.auth")) {
            differences.changed.push("api.auth.tokens".to_owned());
        }
        differences.compare_named("plugins", former_prints, next_prints);
        differences.compare_named("pipelines", &by_name(&former.pipelines), &by_name(&next.pipelines));
        for paths in [&mut differences.added, &mut differences.changed, &mut differences.removed] {
            paths.sort();
        }
        differences
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.added.iter().chain(&self.changed).chain(&self.removed)
    }

    fn compare_named<T: PartialEq>(&mut self, section: &str, former: &BTreeMap<String, T>, next: &BTreeMap<String, T>) {
        let path = |name: &str| format!("{section}.{name}");
        let names: BTreeSet<&String> = former.keys().chain(next.keys()).collect();
        for name in names {
            match (former.get(name), next.get(name)) {
                (None, Some(_)) => self.added.push(path(name)),
                (Some(_), None) => self.removed.push(path(name)),
                (Some(one), Some(other)) if one != other => self.changed.push(path(name)),
                _ => {}
            }
        }
    }

    /// Lists are compared as a whole; plugins elsewhere, by what they are made of, and pipelines by their names.
    fn compare(&mut self, former: &Value, next: &Value, path: &str) {
        let (Some(one), Some(other)) = (former.as_object(), next.as_object()) else {
            if former != next {
                self.changed.push(path.to_owned());
            }
            return;
        };
        let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
        for key in keys {
            let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            if below == "plugins" || below == "pipelines" {
                continue;
            }
            match (one.get(key), other.get(key)) {
                (Some(one), Some(other)) => self.compare(one, other, &below),
                (None, _) => self.added.push(below),
                (_, None) => self.removed.push(below),
            }
        }
    }
}

/// Pipelines as they are written.
fn by_name(pipelines: &[Value]) -> BTreeMap<String, &Value> {
    pipelines.iter().filter_map(|pipeline| Some((pipeline["name"].as_str()?.to_owned(), pipeline))).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use ductile_domain::version::Build;
    use ductile_ledger::Clock;
    use serde_json::json;

    use super::*;
    use crate::boot::{BootOptions, OnReload, boot};
    use crate::tree::Numbers;

    /// The writer may die when it has committed a reload and not said so: then it goes by a generation that nobody has,
    /// and refuses all claims and ticks.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_reload_whose_answer_was_lost_holds_nothing_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.yaml");
        let text = "service:\n  tick_interval: 1s\napi:\n  enabled: false\nstate:\n  path: ./ductile.db\n";
        fs::write(&path, text).expect("written");
        let loaded = ductile_config::load(&path, &|_| None).expect("it loads");
        let options = BootOptions {
            config: loaded.config,
            build: Build { version: "0", commit: "test", built_at: "" },
            warnings: loaded.warnings,
            provenance: loaded.provenance,
            numbers: Numbers::default(),
            on_reload: OnReload::default(),
            clock: Clock::default(),
        };
        let running = boot(options).await.expect("it starts");
        let shared = running.handle().shared().clone();
        // what is on disk is no matter
        fs::write(&path, "service: [").expect("written");
        let lost = {
            let prints = shared.reloads.lock().await;
            let Generation { no, config, catalog, pipelines, .. } = &*shared.generation();
            let snapshot = assembly::snapshot(no + 1, "reload", config, catalog, pipelines, &prints);
            shared.record_snapshot(snapshot).await.expect("recorded").id
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        let is_settled = || {
            let generation = shared.generation();
            shared.ledger_options.in_force.generation() == Some(generation.no) && generation.snapshot > Some(lost)
        };
        while !is_settled() {
            assert!(Instant::now() < deadline, "{:?}", shared.ledger_options.in_force);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(settle(&shared).await, Settled::Yes);
        drop(shared);
        running.stop("a test").await;
    }

    #[test]
    fn differences_are_named_by_their_paths() {
        let mut found = Differences::default();
        let former =
            json!({"service": {"max_workers": 1, "name": "a"}, "plugins": {"x": {"enabled": true}}, "old": [1]});
        let next = json!({"service": {"max_workers": 2, "name": "a", "new": true}, "plugins": {"y": {}}});
        found.compare(&former, &next, "");
        let paths = |paths: &[&str]| paths.iter().map(|&p| p.to_owned()).collect::<Vec<_>>();
        assert_eq!(found.added, paths(&["service.new"]));
        assert_eq!(found.changed, paths(&["service.max_workers"]));
        assert_eq!(found.removed, paths(&["old"]));
    }

    #[test]
    fn pipelines_are_compared_by_their_names() {
        let mut found = Differences::default();
        let former = [json!({"name": "a", "on": "x"}), json!({"name": "b", "on": "x"}), json!({"name": "c"})];
        let next = [json!({"name": "c"}), json!({"name": "b", "on": "y"}), json!({"name": "d"})];
        found.compare_named("pipelines", &by_name(&former), &by_name(&next));
        let paths = |paths: &[&str]| paths.iter().map(|&p| p.to_owned()).collect::<Vec<_>>();
        assert_eq!(found.added, paths(&["pipelines.d"]));
        assert_eq!(found.changed, paths(&["pipelines.b"]));
        assert_eq!(found.removed, paths(&["pipelines.a"]));
    }
}
