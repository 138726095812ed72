//! What loading does beyond messages: precedence, paths, provenance, hashes, tokens.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ductile_config::{Loaded, load};
use ductile_domain::config::Durability;
use ductile_domain::problem::Problem;
use ductile_domain::scope::Need;
use serde_json::json;
use tempfile::TempDir;

/// A configuration directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("inside the directory")).expect("directory");
        std::fs::write(path, text).expect("file");
    }
    dir
}

fn load_with(dir: &Path, variables: &[(&str, &str)]) -> Result<Loaded, Vec<Problem>> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    load(&dir.join("config.yaml"), &|name| variables.get(name).map(|v| (*v).to_owned()))
}

fn loaded(dir: &TempDir, variables: &[(&str, &str)]) -> Loaded {
    load_with(dir.path(), variables).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// CFG-11: a variable of the process wins over `.env` files; of two files the first wins.
#[test]
fn the_environment_wins_over_env_files() {
    let dir = directory(&[
        ("config.yaml", "include: [sub/more.yaml]\nplugins: {a: {config: {x: '${X}', y: '${Y}', z: '${Z}'}}}\n"),
        ("sub/more.yaml", "environment_vars: {include: [one.env, two.env]}\n"),
        ("sub/one.env", "X=file\nY=one\n"),
        ("sub/two.env", "Y=two\nexport Z='t w o'\n"),
    ]);
    let config = loaded(&dir, &[("X", "process")]).config;
    let expected = json!({"x": "process", "y": "one", "z": "t w o"});
    assert_eq!(serde_json::Value::Object(config.plugins["a"].config.clone()), expected);
    assert!(config.source.files.iter().any(|f| f.ends_with("sub/one.env")), "{:?}", config.source.files);
}

/// CFG-09: whatever a variable holds, it stays one scalar; a typed setting reads it as what it must be.
#[test]
fn interpolated_text_stays_one_scalar() {
    let text = "service: {max_workers: '${N}', strict_mode: '${B}'}\napi: {listen: '${L}', enabled: false}\nplugins:\n  a: {timeout: '${D}', config: {x: '${X}'}}\n";
    let dir = directory(&[("config.yaml", text)]);
    let nasty = "a: b\nplugins:\n  evil: {enabled: true}\n- x # \"'{[";
    let variables = [("N", "3"), ("B", "true"), ("L", "127.0.0.1:9"), ("D", "7s"), ("X", nasty)];
    let config = loaded(&dir, &variables).config;
    assert_eq!(config.service.max_workers, 3);
    assert!(config.service.strict_mode);
    assert_eq!(config.api.listen.port(), 9);
    assert_eq!(config.plugins["a"].timeout, Some(Duration::from_secs(7)));
    assert_eq!(config.plugins["a"].config["x"], nasty);
    assert_eq!(config.plugins.len(), 1);
}

/// CFG-05, CFG-24: paths begin at the directory of config.yaml, whatever file says them and wherever we stand.
#[test]
fn relative_paths_begin_at_the_directory_of_config_yaml() {
    let dir = directory(&[
        ("etc/config.yaml", "include: [sub/more.yaml]\n"),
        ("etc/sub/more.yaml", "plugin_roots: [../plugins, /opt/p, ../etc/../plugins]\nstate: {path: ../data/x.db}\n"),
    ]);
    std::fs::create_dir(dir.path().join("plugins")).expect("directory");
    let config = load_with(&dir.path().join("etc"), &[]).expect("valid").config;
    assert_eq!(config.state.path, dir.path().join("data/x.db"));
    assert_eq!(config.plugin_roots, [dir.path().join("plugins"), "/opt/p".into()]);
    let dir = directory(&[("config.yaml", "")]);
    assert_eq!(loaded(&dir, &[]).config.state.path, dir.path().join("ductile.db"));
}

/// CFG-23: the defaults.
#[test]
fn an_empty_configuration_has_every_default() {
    let config = loaded(&directory(&[("config.yaml", "")]), &[]).config;
    let service = &config.service;
    let day = Duration::from_secs(86_400);
    assert_eq!(
        (service.name.as_str(), service.log_level.as_str(), service.log_format.as_str()),
        ("ductile", "info", "json")
    );
    assert_eq!((service.tick_interval, service.drain_timeout), (Duration::from_secs(60), Duration::from_secs(30)));
    assert_eq!((service.dedupe_ttl, service.job_queue_retention, service.job_log_retention), (day, day, 30 * day));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(service.max_workers as usize, (processors - 1).max(1));
    assert!(!service.strict_mode && config.api.enabled && config.api.tokens.is_empty());
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.api.max_body_size, 1 << 20);
}

/// CFG-25, C-12, C-66, C-106: the newer of two names wins, the older one counts where it stands alone.
#[test]
fn of_two_names_for_one_setting_the_documented_one_wins() {
    let both = "log_level: debug\nservice: {log_level: warn, api_port: 1}\napi: {listen: '127.0.0.1:2'}\nstate: {path: new.db}\ndatabase: {path: old.db, durability: full}\nplugins: {a: {max_attempts: 2, retry: {max_attempts: 5}}}\n";
    let dir = directory(&[("config.yaml", both)]);
    let config = loaded(&dir, &[]).config;
    assert_eq!((config.service.log_level.as_str(), config.api.listen.port()), ("warn", 2));
    assert_eq!(config.plugins["a"].retry.max_attempts, 5);
    assert_eq!((config.state.path, config.state.durability), (dir.path().join("new.db"), Durability::Full));
    let alone = "log_level: debug\nservice: {api_port: 1}\ndatabase: {path: old.db}\nplugins: {a: {max_attempts: 2}}\n";
    let dir = directory(&[("config.yaml", alone)]);
    let config = loaded(&dir, &[]).config;
    assert_eq!((config.service.log_level.as_str(), config.api.listen.port()), ("debug", 1));
    assert_eq!(config.plugins["a"].retry.max_attempts, 2);
    assert_eq!(config.state.path, dir.path().join("old.db"));
}

/// CLI-20, D-46: each value names the file and line that it came from, also after merging and appending.
#[test]
fn every_value_names_its_file_and_line() {
    let dir = directory(&[
        ("config.yaml", "include: [b.yaml]\nservice:\n  name: one\n  log_level: warn\npipelines:\n  - name: p\n"),
        ("b.yaml", "# later\nservice:\n  name: two\npipelines:\n  - name: q\n"),
    ]);
    let loaded = loaded(&dir, &[]);
    let at = |path: &str| {
        let place = loaded.provenance.get(path).unwrap_or_else(|| panic!("{path} has no place"));
        format!("{}:{}", place.file.file_name().expect("a file").to_string_lossy(), place.line)
    };
    assert_eq!(at("service.name"), "b.yaml:3");
    assert_eq!(at("service.log_level"), "config.yaml:4");
    assert_eq!(at("pipelines[0].name"), "config.yaml:6");
    assert_eq!(at("pipelines[1].name"), "b.yaml:5");
    assert_eq!(loaded.provenance.get("service.tick_interval"), None);
}

/// C-68: a list of webhooks means its endpoints, and merges with the other shape.
#[test]
fn a_list_of_webhooks_joins_a_map_of_them() {
    let dir = directory(&[
        ("config.yaml", "include: [b.yaml]\nwebhooks:\n  listen: 127.0.0.1:8091\n  endpoints: [{name: one}]\n"),
        ("b.yaml", "webhooks: [{name: two}]\n"),
    ]);
    let sanitized = loaded(&dir, &[]).config.source.sanitized;
    let expected = json!({"listen": "127.0.0.1:8091", "endpoints": [{"name": "one"}, {"name": "two"}]});
    assert_eq!(sanitized["webhooks"], expected);
}

/// A block whose entries were commented out does not remove the block of an earlier file.
#[test]
fn an_empty_block_removes_nothing() {
    let dir = directory(&[
        ("config.yaml", "include: [b.yaml]\nplugins: {a: {enabled: true}}\n"),
        ("b.yaml", "plugins:\n#  b: {}\n"),
    ]);
    assert!(loaded(&dir, &[]).config.plugins.contains_key("a"));
}

/// CFG-03: included files may include; each file is loaded once, so a circle ends.
#[test]
fn a_circle_of_includes_ends_with_a_warning() {
    let dir = directory(&[
        ("config.yaml", "include: [a.yaml]\n"),
        ("a.yaml", "include: [b.yaml]\nservice: {name: a}\n"),
        ("b.yaml", "include: [a.yaml, config.yaml]\nservice: {name: b}\n"),
    ]);
    let loaded = loaded(&dir, &[]);
    assert_eq!(loaded.config.service.name, "b");
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert_eq!(loaded.config.source.files.len(), 3);
}

/// CFG-32: the hash is that of all bytes in order, so any change shows and a variable's value does not.
#[test]
fn the_hash_covers_the_bytes_of_all_files() {
    let (root, more) = ("include: [b.yaml]\n", "service: {name: '${N:-x}'}\n");
    let dir = directory(&[("config.yaml", root), ("b.yaml", more)]);
    let before = loaded(&dir, &[]).config.source;
    assert_eq!(before.hash, blake3::hash(format!("{root}{more}").as_bytes()).to_hex().to_string());
    assert_eq!(before.path, dir.path().join("config.yaml"));
    assert_eq!(before.files, [dir.path().join("config.yaml"), dir.path().join("b.yaml")]);
    assert_eq!(loaded(&dir, &[("N", "y")]).config.source.hash, before.hash);
    std::fs::write(dir.path().join("b.yaml"), "service: {name: y}\n").expect("writable");
    assert_ne!(loaded(&dir, &[]).config.source.hash, before.hash);
}

/// AUT-04, AUT-06, C-79: a token of each source grants its scopes; an entry that a `secret_ref` names is no token.
#[test]
fn tokens_come_from_both_places_as_hashes() {
    let scopes = r#"{"scopes": ["read:jobs", "withings:ro"]}"#;
    let pin = blake3::hash(scopes.as_bytes()).to_hex();
    let tokens = format!(
        "tokens:\n  - {{name: cli, key: '${{CLI}}', scopes_file: scopes/cli.json, scopes_hash: 'blake3:{pin}'}}\n  - {{name: hook, key: '${{HOOK}}'}}\n"
    );
    let config = "include: [tokens.yaml]\napi: {auth: {tokens: [{token: '${ADMIN}', scopes: ['*']}]}}\nwebhooks: [{name: w, secret_ref: hook}]\n";
    let dir = directory(&[("config.yaml", config), ("tokens.yaml", &tokens), ("scopes/cli.json", scopes)]);
    let loaded = loaded(&dir, &[("CLI", "cli-secret"), ("HOOK", "hook-secret"), ("ADMIN", "admin-secret")]);
    let tokens = &loaded.config.api.tokens;
    assert_eq!(tokens.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["api-token-1", "cli"]);
    assert_eq!(tokens[0].hash, *blake3::hash(b"admin-secret").as_bytes());
    assert!(tokens[0].grants.allow(&Need::Admin));
    assert_eq!(tokens[1].hash, *blake3::hash(b"cli-secret").as_bytes());
    assert!(tokens[1].grants.allow(&Need::Jobs) && !tokens[1].grants.allow(&Need::Admin));
    assert!(loaded.warnings.iter().all(|w| w.category == "unused"), "{:?}", loaded.warnings);
    let shown = format!("{loaded:?}{}", loaded.config.source.sanitized);
    for secret in ["cli-secret", "hook-secret", "admin-secret"] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
    // A change of the approved scopes is refused.
    std::fs::write(dir.path().join("scopes/cli.json"), r#"{"scopes": ["*"]}"#).expect("writable");
    let variables = [("CLI", "cli-secret"), ("HOOK", "hook-secret"), ("ADMIN", "admin-secret")];
    let problems = load_with(dir.path(), &variables).expect_err("another hash");
    assert_eq!(problems.iter().filter(|p| p.is_error()).count(), 1, "{problems:?}");
    assert!(problems.iter().any(|p| p.path.as_deref() == Some("tokens[0].scopes_hash")), "{problems:?}");
}

/// D-24: a symlinked file warns, and is refused in strict mode unless allowed.
#[test]
fn a_symlinked_file_warns_or_is_refused() {
    let dir = directory(&[("config.yaml", "include: [link.yaml]\napi: {enabled: false}\n"), ("real.yaml", "")]);
    std::os::unix::fs::symlink("real.yaml", dir.path().join("link.yaml")).expect("symlink");
    assert_eq!(loaded(&dir, &[]).warnings.len(), 1);
    std::fs::write(dir.path().join("real.yaml"), "service: {strict_mode: true}\n").expect("writable");
    assert_eq!(load_with(dir.path(), &[]).expect_err("strict").len(), 1);
    std::fs::write(dir.path().join("real.yaml"), "service: {strict_mode: true, allow_symlinks: true}\n")
        .expect("writable");
    assert_eq!(loaded(&dir, &[]).warnings.len(), 1);
}

/// CFG-01: what is not there, or no file, is a problem that names it.
#[test]
fn a_missing_or_odd_config_yaml_is_one_problem() {
    let dir = directory(&[]);
    let problems = load_with(dir.path(), &[]).expect_err("nothing there");
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].file.as_deref(), Some(dir.path().join("config.yaml").as_path()));
    std::fs::create_dir(dir.path().join("config.yaml")).expect("directory");
    assert_eq!(load_with(dir.path(), &[]).expect_err("a directory").len(), 1);
    std::fs::remove_dir(dir.path().join("config.yaml")).expect("removable");
    std::fs::write(dir.path().join("config.yaml"), b"a: 1\nb: \xff\n").expect("writable");
    let problems = load_with(dir.path(), &[]).expect_err("not UTF-8");
    assert_eq!((problems.len(), problems[0].line), (1, Some(2)));
    std::fs::write(dir.path().join("config.yaml"), vec![b' '; 5 << 20]).expect("writable");
    assert_eq!(load_with(dir.path(), &[]).expect_err("too large").len(), 1);
}

/// Schedules with large payloads may fill a file; what helps then is another file, not another directory.
#[test]
fn a_file_that_is_too_large_is_to_be_spread() {
    let large = format!("plugins: {{a: {{config: {{x: {}}}}}}}\n", "x".repeat(4 << 20));
    for files in [&[("config.yaml", &*large)][..], &[("config.yaml", "include: [more.yaml]\n"), ("more.yaml", &*large)]]
    {
        let dir = directory(files);
        let problems = load_with(dir.path(), &[]).expect_err("too large");
        let text = problems[0].to_string();
        assert!(text.contains("larger than 4 MiB") && text.contains("under `include`"), "{text}");
    }
}
