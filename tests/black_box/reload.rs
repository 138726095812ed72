//! A new configuration without a restart: what takes effect, what is left alone, and what a bad one changes (nothing).

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::gateway::{Builder, Gateway, PATIENCE, Response};

/// Says its own configuration's `word`; with `"do":"wait"` only once the file `go` is there.
const SAY: &str = r#"read -r request
case $request in
  *'"do":"wait"'*) while [ ! -e "$DUCTILE_TEST_DIR/go" ]; do sleep 0.02; done ;;
esac
word=${request#*'"word":"'}
printf '{"status":"ok","result":"%s"}' "${word%%'"'*}"
"#;

/// Keys of an entry that says `word`.
fn says(word: &str) -> String {
    format!("    env_passthrough: [DUCTILE_TEST_DIR]\n    config:\n      word: {word}\n")
}

fn builder() -> Builder {
    let builder = Gateway::new();
    let dir = builder.path().display().to_string();
    builder.env("DUCTILE_TEST_DIR", dir)
}

/// Writes the configuration anew, with one text replaced by another.
fn edit(gateway: &Gateway, from: &str, to: &str) {
    let path = gateway.path("config.yaml");
    let text = fs::read_to_string(&path).expect("the configuration");
    assert!(text.contains(from), "{from:?} is not in the configuration:\n{text}");
    fs::write(path, text.replace(from, to)).expect("the configuration");
}

fn reload(gateway: &Gateway) -> Response {
    gateway.request("POST", "/system/reload", None)
}

fn reloaded(gateway: &Gateway) -> Value {
    let response = reload(gateway);
    assert_eq!(response.status, 200, "{}", response.body);
    response.json()
}

/// What the plugin said.
fn result(gateway: &Gateway, id: &str) -> Value {
    let job = gateway.finished(id);
    assert_eq!(job["status"], "succeeded", "{job}");
    job["result"]["result"].clone()
}

/// OPS-05, SUP-12, API-33, CFG-32: what runs goes on under its configuration, what begins gets the new one, and each
/// row says which.
#[test]
fn what_runs_goes_on_and_what_begins_gets_the_new_configuration() {
    let gateway = builder()
        .script_with("say", SAY, &(says("old") + "    parallelism: 2\n"))
        .service("  max_workers: 2\n")
        .start();
    let running = gateway.enqueue("say", "poll", r#"{"do":"wait"}"#);
    gateway.until_some("it runs", |g| (g.job(&running)["status"] == "running").then_some(()));
    edit(&gateway, "word: old", "word: new");
    let answer = reloaded(&gateway);
    assert_eq!((&answer["status"], &answer["generation"]), (&json!("ok"), &json!(2)));
    assert_eq!(answer["message"], "Configuration reloaded successfully.");
    assert!(answer["reloaded_at"].is_string(), "{answer}");
    assert_eq!((&answer["changed"], &answer["added"]), (&json!(["plugins.say"]), &json!([])));
    let status = gateway.get("/system/status");
    assert_eq!((&status["generation"], &status["config_snapshot_id"]), (&json!(2), &answer["config_snapshot_id"]));
    assert_eq!(status["generations"], json!([{"no": 1, "attempts": 1}, {"no": 2, "attempts": 0}]));
    let next = gateway.enqueue("say", "poll", "{}");
    assert_eq!(result(&gateway, &next), "new");
    fs::write(gateway.path("go"), "").expect("the mark");
    assert_eq!(result(&gateway, &running), "old");
    let ran_under =
        |id: &str| gateway.sql_one(&format!("SELECT started_config_snapshot_id FROM job_queue WHERE id = '{id}'"));
    assert_eq!((ran_under(&running), ran_under(&next)), ("1".to_owned(), "2".to_owned()));
    gateway.until_some("the former generation is gone", |g| {
        (g.get("/system/status")["generations"] == json!([{"no": 2, "attempts": 0}])).then_some(())
    });
    assert_eq!(
        gateway.sql("SELECT reason FROM config_snapshots ORDER BY id"),
        [["start".to_owned()], ["reload".to_owned()]]
    );
}

/// OPS-04, API-33, D-20: a bad configuration is refused with all that is wrong, by either way, and changes nothing.
#[test]
fn a_bad_configuration_changes_nothing() {
    let mut gateway = builder().script_with("say", SAY, &says("old")).start();
    edit(&gateway, "word: old", "word: new\n    parallelism: none");
    edit(&gateway, "  tick_interval: 1s\n", "  tick_interval: soon\n");
    let response = reload(&gateway);
    assert_eq!(response.status, 422, "{}", response.body);
    let body = response.json();
    assert_eq!(body["code"], "invalid_config");
    let problems = body["context"]["problems"].as_array().expect("a list");
    let fields: Vec<_> = problems.iter().map(|p| p["field"].as_str().unwrap_or_default()).collect();
    assert!(fields.contains(&"service.tick_interval") && fields.contains(&"plugins.say.parallelism"), "{body}");
    let file = gateway.path("config.yaml").display().to_string();
    assert!(problems.iter().all(|p| p["file"] == *file && p["line"].is_number()), "{body}");
    gateway.signal(Signal::SIGHUP);
    gateway.until("the log tells of it", |g| {
        let is_told =
            |line: &str| line.contains("\"ERROR\"") && line.contains("reload refused") && line.contains("SIGHUP");
        g.logs().lines().any(is_told).then_some(())
    });
    assert_eq!(gateway.get("/system/status")["generation"], 1);
    let job = gateway.enqueue("say", "poll", "{}");
    assert_eq!(result(&gateway, &job), "old");
    assert_eq!(gateway.sql_one("SELECT count(*) FROM config_snapshots"), "1");
    // A plugin that can't be loaded any more refuses as well: its queued jobs would be lost.
    edit(&gateway, "\n    parallelism: none", "");
    edit(&gateway, "soon", "1s");
    fs::rename(gateway.path("plugins/say"), gateway.path("plugins/said")).expect("renamed");
    fs::write(gateway.path("plugins/said/manifest.yaml"), "nothing").expect("a bad manifest");
    let body = reload(&gateway).json();
    assert_eq!(body["code"], "invalid_config", "{body}");
    assert!(body.to_string().contains("plugins.say"), "{body}");
}

/// CLI-09, D-20, OPS-25: edit, check, reload, by the command line; a bad file gets 78 and its places.
#[test]
fn the_command_line_reloads_and_says_what_is_wrong() {
    let gateway = builder().script_with("say", SAY, &says("old")).start();
    edit(&gateway, "word: old", "word: new");
    assert!(gateway.cli(&["config", "check"]).status.success());
    assert_eq!(gateway.cli_json(&["system", "reload", "--json"])["changed"], json!(["plugins.say"]));
    let job = gateway.enqueue("say", "poll", "{}");
    assert_eq!(result(&gateway, &job), "new");
    edit(&gateway, "tick_interval: 1s", "tick_interval: soon");
    let refused = gateway.cli(&["system", "reload"]);
    let text = format!("{}{}", String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
    assert_eq!(refused.status.code(), Some(78), "{text}");
    assert!(text.contains("config.yaml:") && text.contains("service.tick_interval"), "{text}");
}

/// OPS-04: SIGHUP reloads.
#[test]
fn a_hangup_reloads() {
    let gateway = builder().script_with("say", SAY, &says("old")).start();
    edit(&gateway, "word: old", "word: new");
    gateway.signal(Signal::SIGHUP);
    gateway.until_some("the generation is in force", |g| (g.get("/system/status")["generation"] == 2).then_some(()));
    let job = gateway.enqueue("say", "poll", "{}");
    assert_eq!(result(&gateway, &job), "new");
}

/// OPS-06, MAN-22, C-15: queued jobs of a removed and of a disabled plugin die at once, and whoever waits is told;
/// other jobs, and one that runs, are left alone.
#[test]
fn queued_jobs_of_a_removed_plugin_die_and_are_told() {
    let gateway = builder()
        .script_with("gone", SAY, &says("gone"))
        .script_with("off", SAY, &says("off"))
        .script_with("stays", SAY, &says("stays"))
        .service("  max_workers: 1\n")
        .start();
    let running = gateway.enqueue("gone", "poll", r#"{"do":"wait"}"#);
    gateway.until_some("it runs", |g| (g.job(&running)["status"] == "running").then_some(()));
    let [gone, off, stays] = ["gone", "off", "stays"].map(|plugin| gateway.enqueue(plugin, "poll", "{}"));
    edit(&gateway, &format!("  gone:\n    enabled: true\n{}", says("gone")), "");
    edit(&gateway, "  off:\n    enabled: true\n", "  off:\n    enabled: false\n");
    let path = format!("/job/{gone}?wait=30s");
    let waited = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| gateway.request("GET", &path, None).json());
        let answer = reloaded(&gateway);
        assert_eq!((&answer["removed"], &answer["changed"]), (&json!(["plugins.gone"]), &json!(["plugins.off"])));
        waiting.join().expect("answered")
    });
    assert_eq!(waited["status"], "dead", "{waited}");
    for id in [&gone, &off] {
        let job = gateway.job(id);
        assert_eq!(job["status"], "dead");
        assert!(job["last_error"].as_str().is_some_and(|e| e.contains("was removed or disabled")), "{job}");
    }
    assert_eq!(gateway.job(&stays)["status"], "queued");
    assert_eq!(gateway.request("POST", "/plugin/off/poll", None).status, 404);
    assert_eq!(gateway.request("POST", "/plugin/gone/poll", None).status, 404);
    fs::write(gateway.path("go"), "").expect("the mark");
    assert_eq!(result(&gateway, &running), "gone");
    assert_eq!(result(&gateway, &stays), "stays");
}

/// TEL-10: `job.dead` of what a reload buried and `config.reloaded` are live events.
#[test]
fn a_reload_is_a_live_event() {
    let gateway = builder().script_with("gone", SAY, &says("gone")).start();
    assert!(gateway.cli(&["system", "pause"]).status.success());
    let gone = gateway.enqueue("gone", "poll", "{}");
    let mut stream = std::os::unix::net::UnixStream::connect(gateway.path("ductile.sock")).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: ductile\r\n\r\n").expect("sent");
    let mut seen = String::new();
    let mut read_until = |what: &str| {
        let mut buffer = [0; 4096];
        while !seen.contains(what) {
            let n = stream.read(&mut buffer).expect("an event in time");
            seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        seen.clone()
    };
    read_until("\r\n\r\n");
    let entry = format!("  gone:\n    enabled: true\n{}", says("gone"));
    edit(&gateway, &entry, "  {}\n");
    reloaded(&gateway);
    let seen = read_until("event: config.reloaded");
    assert!(seen.contains("event: job.dead") && seen.contains(&gone), "{seen}");
}

/// OPS-07, D-20: all but the ledger itself changes in the running gateway.
#[test]
fn only_the_ledger_needs_a_restart() {
    let gateway =
        builder().script_with("say", SAY, &(says("x") + "    parallelism: 1\n")).service("  max_workers: 1\n").start();
    let first = gateway.enqueue("say", "poll", r#"{"do":"wait"}"#);
    gateway.until_some("it runs", |g| (g.job(&first)["status"] == "running").then_some(()));
    let second = gateway.enqueue("say", "poll", r#"{"do":"wait"}"#);
    edit(&gateway, "max_workers: 1", "max_workers: 2");
    edit(&gateway, "parallelism: 1", "parallelism: 2");
    edit(&gateway, "path: ./ductile.db", "path: ./other.db\n  durability: full");
    let answer = reloaded(&gateway);
    assert_eq!(answer["restart_required"], json!(["state.path", "state.durability"]), "{answer}");
    let changed = answer["changed"].as_array().expect("a list");
    assert!(changed.contains(&json!("service.max_workers")), "{answer}");
    gateway.until_some("the second runs beside the first", |g| (g.job(&second)["status"] == "running").then_some(()));
    assert_eq!(gateway.job(&first)["status"], "running");
    assert!(!gateway.path("other.db").exists());
    assert_eq!(reloaded(&gateway)["restart_required"], json!(["state.path", "state.durability"]), "it is still so");
    fs::write(gateway.path("go"), "").expect("the mark");
    gateway.finished(&first);
    gateway.finished(&second);
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// `GET path` at a port of this machine; `None` when nobody listens.
fn ask(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: ductile\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// OPS-07: the new socket is bound first, then the old one is closed; a request that is on its way is answered. An
/// address that is taken refuses the reload.
#[test]
fn the_api_moves_and_no_connection_is_cut() {
    let (old, new) = (free_port(), free_port());
    let gateway = builder()
        .script_with("say", SAY, &says("x"))
        .api(&format!("  enabled: true\n  listen: 127.0.0.1:{old}\n"))
        .start();
    assert!(ask(old, "/healthz").is_some_and(|a| a.contains("200 OK")));
    let mut under_way = TcpStream::connect(("127.0.0.1", old)).expect("the old address");
    under_way.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    under_way.write_all(b"GET /plugins HTTP/1.1\r\nHost: duc").expect("half a request");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|a| (a.port(), taken)).expect("an address");
    edit(&gateway, &format!("127.0.0.1:{old}"), &format!("127.0.0.1:{}", taken.0));
    let response = reload(&gateway);
    assert_eq!(response.status, 422, "{}", response.body);
    let problem = response.json()["context"]["problems"][0].clone();
    assert_eq!(problem["field"], "api.listen", "{problem}");
    assert!(problem["hint"].is_string() && problem["file"].is_string(), "{problem}");
    assert!(ask(old, "/healthz").is_some());

    edit(&gateway, &format!("127.0.0.1:{}", taken.0), &format!("127.0.0.1:{new}"));
    let answer = reloaded(&gateway);
    assert_eq!(answer["changed"], json!(["api.listen"]));
    assert_eq!(answer["restart_required"], json!([]));
    assert!(ask(new, "/healthz").is_some_and(|a| a.contains("200 OK")));
    assert!(ask(old, "/healthz").is_none(), "the old address is closed");
    under_way.write_all(b"tile\r\nConnection: close\r\n\r\n").expect("the other half");
    let mut text = String::new();
    under_way.read_to_string(&mut text).expect("the answer");
    assert!(text.contains("200 OK") && text.contains("\"say\""), "{text}");

    edit(&gateway, "enabled: true\n  listen", "enabled: false\n  listen");
    reloaded(&gateway);
    assert!(ask(new, "/healthz").is_none(), "the API is off");
    edit(&gateway, "enabled: false\n  listen", "enabled: true\n  listen");
    reloaded(&gateway);
    assert!(ask(new, "/healthz").is_some(), "and on again");
}

/// D-20: the log changes as well.
#[test]
fn the_log_changes_its_level_and_its_format() {
    let gateway =
        builder().script_with("say", SAY, &says("x")).service("  log_level: warn\n  log_format: json\n").start();
    edit(&gateway, "log_level: warn\n  log_format: json", "log_level: info\n  log_format: text");
    reloaded(&gateway);
    let logs = gateway.until_some("it is told", |g| Some(g.logs()).filter(|l| l.contains("configuration reloaded")));
    let line = logs.lines().find(|line| line.contains("configuration reloaded")).expect("it is there");
    assert!(!line.starts_with('{') && line.contains("INFO"), "{line}");
    assert!(!logs.contains("ductile running"), "before, only warnings were: {logs}");
}

/// SUP-11: reloads that are asked for at once are done one after another, and each is answered.
#[test]
fn reloads_wait_for_each_other() {
    let gateway = builder().script_with("say", SAY, &says("x")).start();
    let mut generations: Vec<u64> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(|| reloaded(&gateway)["generation"].as_u64())).collect();
        asked.into_iter().map(|a| a.join().expect("answered").expect("a number")).collect()
    });
    generations.sort_unstable();
    assert_eq!(generations, [2, 3, 4, 5, 6, 7]);
}

/// AUT-10: a token that was taken out of the configuration opens nothing after the reload.
#[test]
fn a_rotated_token_works_at_once_and_the_old_one_no_more() {
    let port = free_port();
    let token = |secret: &str| {
        format!("  auth:\n    tokens:\n      - name: me\n        token: {secret}\n        scopes: [\"*\"]\n")
    };
    let api = format!("  enabled: true\n  listen: 127.0.0.1:{port}\n{}", token("the-first-secret-of-all"));
    let gateway = builder().script_with("say", SAY, &says("x")).api(&api).start();
    let status = |secret: &str| {
        let head = format!("/jobs HTTP/1.1\r\nAuthorization: Bearer {secret}\r\nX-Rest:");
        ask(port, &head).and_then(|a| a.split(' ').nth(1).map(str::to_owned)).expect("an answer")
    };
    assert_eq!(status("the-first-secret-of-all"), "200");
    // Whoever watches holds no generation.
    let mut watching = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    watching.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    watching
        .write_all(b"GET /events HTTP/1.1\r\nHost: ductile\r\nAuthorization: Bearer the-first-secret-of-all\r\n\r\n")
        .expect("sent");
    let mut head = [0; 15];
    watching.read_exact(&mut head).expect("the begin of an answer");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    edit(&gateway, "the-first-secret-of-all", "the-second-secret-of-all");
    assert_eq!(reloaded(&gateway)["changed"], json!(["api.auth.tokens"]));
    assert_eq!((status("the-first-secret-of-all"), status("the-second-secret-of-all")), ("401".into(), "200".into()));
    gateway.until_some("the former generation is gone", |g| {
        (g.get("/system/status")["generations"] == json!([{"no": 2, "attempts": 0}])).then_some(())
    });
}

/// What the service manager was told next, without the time.
fn told(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let n = manager.recv(&mut buffer).expect("a message in time");
    let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
    match text.split_once("MONOTONIC_USEC=") {
        Some((before, time)) => {
            assert!(time.trim().parse::<u64>().is_ok(), "{text}");
            before.to_owned()
        }
        None => text,
    }
}

/// OPS-26: a service manager is told when the gateway is ready, reloads, lives and stops.
#[test]
fn the_service_manager_is_told() {
    let builder = builder().script_with("say", SAY, &says("x"));
    let path = builder.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let mut gateway = builder.env("NOTIFY_SOCKET", path.display().to_string()).start();
    assert_eq!(told(&manager), "READY=1\n");
    gateway.signal(Signal::SIGHUP);
    assert_eq!(told(&manager), "RELOADING=1\n");
    assert_eq!(told(&manager), "READY=1\n");
    assert_eq!(gateway.stop(), 0);
    assert_eq!(told(&manager), "STOPPING=1\n");

    let mut gateway = gateway_with_watchdog(&path);
    assert_eq!(told(&manager), "READY=1\n");
    for _ in 0..3 {
        assert_eq!(told(&manager), "WATCHDOG=1\n");
    }
    gateway.stop();
}

/// OPS-26: systemd takes the unit of the documentation.
#[test]
fn the_unit_of_the_documentation_is_valid() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).expect("the page");
    let unit = page.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a unit");
    let program = env!("CARGO_BIN_EXE_ductile");
    let installed = "/usr/local/bin/ductile";
    assert!(unit.contains(installed), "{unit}");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ductile.service");
    fs::write(&path, unit.replace(installed, program)).expect("the unit");
    let verified = std::process::Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output();
    let Ok(verified) = verified else {
        println!("skipped: systemd-analyze is not there: {verified:?}");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    let about_it: Vec<_> = said.lines().filter(|line| line.contains("ductile")).collect();
    assert!(verified.status.success() && about_it.is_empty(), "{said}");
}

fn gateway_with_watchdog(socket: &std::path::Path) -> Gateway {
    let socket = socket.display().to_string();
    builder().plugin("echo").env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "200000").start()
}

/// MAN-23, C-37: `init` runs once when a plugin is found and once when its configuration changes, not at a restart; it is
/// never retried, and its failure marks the plugin.
#[test]
fn init_runs_once_per_change_and_its_failure_marks_the_plugin() {
    let script = r#"read -r request
case $request in
  *'"command":"init"'*'"word":"bad"'*|*'"word":"bad"'*'"command":"init"'*) printf '{"status":"error","error":"no such word","retry":true}' ;;
  *) printf '{"status":"ok","result":"fine"}' ;;
esac
"#;
    let retry = "    retry:\n      max_attempts: 3\n      backoff_base: 20ms\n";
    let mut gateway = builder().script_with("say", script, &(says("good") + retry)).prepare();
    let manifest = gateway.path("plugins/say/manifest.yaml");
    let text = fs::read_to_string(&manifest).expect("the manifest");
    fs::write(&manifest, text.replace("commands:\n", "commands:\n  - {name: init, type: write}\n")).expect("written");
    gateway.start();
    let ended = |gateway: &Gateway, count: usize| {
        let query = "SELECT status, attempt, submitted_by FROM job_queue WHERE command = 'init' ORDER BY rowid";
        gateway.until_some("the inits have ended", |g| {
            let rows = g.sql(query);
            let is_over = rows.iter().all(|r| matches!(&*r[0], "succeeded" | "failed" | "dead"));
            (is_over && rows.len() == count).then_some(rows)
        })
    };
    let row = |status: &str| [status, "1", "system"].map(str::to_owned).to_vec();
    assert_eq!(ended(&gateway, 1), [row("succeeded")]);
    gateway.stop();
    gateway.start();
    reloaded(&gateway);
    assert_eq!(ended(&gateway, 1), [row("succeeded")], "nothing has changed");
    let plugin = gateway.get("/plugin/say");
    assert_eq!((&plugin["healthy"], &plugin["init_result"]), (&json!(true), &json!("fine")));

    edit(&gateway, "word: good", "word: bad");
    reloaded(&gateway);
    assert_eq!(ended(&gateway, 2), [row("succeeded"), row("dead")], "one attempt and no more");
    let plugins = gateway.get("/plugins");
    let say = plugins["plugins"].as_array().and_then(|all| all.iter().find(|p| p["name"] == "say"));
    assert_eq!(say.expect("it is listed")["healthy"], false, "{plugins}");
    let plugin = gateway.get("/plugin/say");
    assert_eq!(plugin["healthy"], false);
    assert!(plugin["unhealthy_reason"].as_str().is_some_and(|r| r.contains("no such word")), "{plugin}");
    assert_eq!(gateway.get("/system/status")["unhealthy_plugins"], json!(["say"]));
    gateway.stop();
    gateway.start();
    assert_eq!(gateway.get("/plugin/say")["healthy"], false, "a restart does not forget it");

    edit(&gateway, "word: bad", "word: better");
    reloaded(&gateway);
    assert_eq!(ended(&gateway, 3)[2], row("succeeded"));
    assert_eq!(gateway.get("/plugin/say")["healthy"], true);
}
