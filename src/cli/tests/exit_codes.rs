//! What scripts see: the exit code of whole command lines, in a directory where no gateway runs.

use std::ffi::OsString;
use std::path::Path;

use ductile_cli::Build;
use ductile_domain::ids::{BootId, JobId};
use ductile_domain::job::NewJob;
use ductile_ledger::OpenOptions;

const BUILD: Build = Build { version: "0.0.0", commit: "unknown", built_at: "1970-01-01T00:00:00Z" };

fn run(dir: &Path, line: &str) -> i32 {
    let words = ["ductile", "--config"].map(OsString::from).into_iter().chain([dir.into()]);
    ductile_cli::run(words.chain(line.split_whitespace().map(OsString::from)), BUILD)
}

fn configured(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(dir.path().join("plugins")).expect("plugin root");
    std::fs::write(dir.path().join("config.yaml"), text).expect("configuration");
    dir
}

/// CLI-05, CLI-06: one case for each code that needs no gateway.
#[test]
fn command_lines_end_with_their_documented_codes() {
    // any free port: the usual one may be in use by a gateway of whoever runs this
    let good = configured("plugin_roots: [plugins]\napi: {listen: 127.0.0.1:0}\n");
    let bad = configured("plugin_roots: [plugins]\nservice:\n  max_workers: 0\n");
    for (dir, line, code) in [
        (&good, "version --json", 0),
        (&good, "system selfcheck", 0),
        (&bad, "system selfcheck", 1),
        (&good, "system doctor --json", 0),
        (&bad, "system doctor", 1),
        (&good, "--version", 0),
        (&good, "job --help", 0),
        (&good, "config check", 0),
        (&good, "config show service.name", 0),
        (&good, "config show no.such", 1),
        (&good, "", 2),
        (&good, "frobnicate", 2),
        (&good, "job inspect no-id", 2),
        (&good, "plugin list --api-url https://example", 2),
        (&good, "plugin list --api-url http://127.0.0.1:1", 69),
        (&good, "plugin run echo", 69),
        (&good, "system pause", 69),
        (&good, "system stop", 69),
        (&good, "job list", 69),
        (&good, "system reload", 1),
        (&good, "system reload --signal", 1),
        (&good, "system reload --api-url http://127.0.0.1:1", 69),
        (&bad, "system reload", 78),
        (&good, "job replay no-id", 2),
        (&good, "job replay 01890f3e-7c5a-7000-8000-000000000001 --payload []", 2),
        (&bad, "config check", 78),
        (&bad, "config check --json", 78),
        (&bad, "system start", 78),
        (&bad, "job list", 78),
    ] {
        assert_eq!(run(dir.path(), line), code, "{line}");
    }
}

/// A configuration with one plugin, `say`, and these pipelines.
fn wired(pipelines: &str) -> tempfile::TempDir {
    let dir = configured(&format!("plugin_roots: [plugins]\nplugins:\n  say: {{}}\npipelines:\n{pipelines}"));
    let plugin = dir.path().join("plugins/say");
    std::fs::create_dir(&plugin).expect("the plugin's directory");
    let manifest = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: say\nversion: 1.0.0\nprotocol: 2\n\
                    entrypoint: run.sh\ncommands:\n  - {name: poll, type: read}\n  - {name: handle, type: write}\n";
    std::fs::write(plugin.join("manifest.yaml"), manifest).expect("the manifest");
    std::fs::write(plugin.join("run.sh"), "#!/bin/sh\n").expect("the script");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(plugin.join("run.sh"), executable).expect("executable");
    dir
}

/// CLI-05, CLI-34, CLI-35: pipelines are shown, drawn and tried without a gateway; a wrong one is a wrong configuration.
#[test]
fn pipelines_are_looked_at_without_a_gateway() {
    let good = wired("  - name: greet\n    on: somebody.came\n    steps:\n      - uses: say.poll\n      - uses: say\n");
    let bad = wired("  - name: greet\n    on: somebody.came\n    steps:\n      - uses: sya\n");
    for (dir, line, code) in [
        (&good, "config check", 0),
        (&good, "config show pipeline:greet", 0),
        (&good, "config show pipeline:great", 1),
        (&good, "pipeline list --json", 0),
        (&good, "pipeline show greet -v", 0),
        (&good, "pipeline show great", 1),
        (&good, "pipeline visualize greet", 0),
        (&good, "pipeline visualize greet --format dot --json", 0),
        (&good, "pipeline visualize great", 1),
        (&good, "pipeline dry-run greet --payload {}", 0),
        (&good, "pipeline dry-run greet -f a=b --json", 0),
        (&good, "pipeline dry-run greet --payload []", 2),
        (&good, "pipeline dry-run great", 1),
        (&good, "pipeline run greet --dry-run", 0),
        (&good, "pipeline run greet", 69),
        (&good, "pipeline list --api-url http://127.0.0.1:1", 69),
        (&bad, "config check", 78),
        (&bad, "pipeline list", 0),
        (&bad, "pipeline show greet", 78),
        (&bad, "pipeline visualize greet", 78),
        (&bad, "pipeline dry-run greet", 78),
        (&bad, "system doctor", 1),
        (&bad, "system start", 78),
    ] {
        assert_eq!(run(dir.path(), line), code, "{line}");
    }
    assert!(!good.path().join("ductile.db").exists(), "nothing was enqueued, for there is nothing to hold it");
}

/// CLI-04: what only says what it would do needs nobody, and changes nothing.
#[test]
fn a_dry_run_changes_nothing() {
    let dir = configured("plugin_roots: [plugins]\n");
    for line in [
        "system pause --dry-run",
        "system stop --dry-run",
        "system reload --dry-run",
        "system restart root --dry-run",
        "system migrate --dry-run",
    ] {
        assert_eq!(run(dir.path(), line), 0, "{line}");
    }
    let mut names: Vec<_> =
        std::fs::read_dir(dir.path()).expect("a directory").map(|e| e.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.yaml", "plugins"]);
}

/// CLI-37: read commands work on the database without a gateway, and leave it as it is.
#[test]
fn jobs_are_read_from_the_file_when_no_gateway_runs() {
    let dir = configured("plugin_roots: [plugins]\n");
    let path = dir.path().join("ductile.db");
    let id: JobId = "01890f3e-7c5a-7000-8000-000000000001".parse().expect("an id");
    let boot: BootId = "01890f3e-7c5a-7000-8000-000000000002".parse().expect("an id");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let ledger = ductile_ledger::open(OpenOptions::new(&path, boot)).await.expect("a new ledger");
        let job = NewJob { max_attempts: 4, ..NewJob::new(id, "echo", "poll", "cli") };
        ledger.writer.enqueue(vec![job], 1).await.expect("enqueued");
        ledger.close().await;
    });
    let before = std::fs::read(&path).expect("the database");
    for line in [
        "job list".to_owned(),
        "job list --all --json".into(),
        "queue --status pending".into(),
        "job logs --query x".into(),
        "system status".into(),
        "status --json".into(),
        "system selfcheck --json".into(),
        format!("job inspect {id}"),
        format!("inspect {id} --json"),
        format!("job tree {id}"),
        format!("job tree {id} --json"),
    ] {
        assert_eq!(run(dir.path(), &line), 0, "{line}");
    }
    assert_eq!(run(dir.path(), "job inspect 01890f3e-7c5a-7000-8000-00000000ffff"), 1);
    assert_eq!(run(dir.path(), "job list --status nonsense"), 2);
    assert_eq!(run(dir.path(), &format!("job cancel {id}")), 69, "changing something needs a gateway");
    assert_eq!(run(dir.path(), &format!("job replay {id}")), 69, "so does a replay");
    assert_eq!(std::fs::read(&path).expect("the database"), before);
}

/// CLI-21, C-96: both ways to name a value.
#[test]
fn a_value_is_read_by_path_or_by_entity() {
    let dir = configured("plugin_roots: [plugins]\nplugins:\n  echo:\n    enabled: false\n");
    for (line, code) in [
        ("config get plugins.echo.enabled", 0),
        ("config get plugin:echo.enabled --json", 0),
        ("config get plugins.echo.enabld", 1),
        ("config get nonsense:echo", 2),
    ] {
        assert_eq!(run(dir.path(), line), code, "{line}");
    }
}

/// CLI-23: what is written passes the check, a second one changes nothing, and the secret is its owner's.
#[test]
fn a_directory_that_was_initialised_is_valid() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().expect("temporary directory");
    let dir = parent.path().join("gateway");
    assert_eq!(run(&dir, "config init --dry-run"), 0);
    assert!(!dir.exists());
    std::fs::create_dir(&dir).expect("a directory");
    assert_eq!(run(&dir, "config init"), 0);
    assert_eq!(run(&dir, "config check --strict"), 0);
    let mode = std::fs::metadata(dir.join(".env")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(dir.join(".env")).expect("read");
    assert_eq!(run(&dir, "init"), 1);
    assert_eq!(std::fs::read(dir.join(".env")).expect("read"), before);
}
