//! The pages are true: their commands run, their links lead somewhere, the tests that they name exist, and their tables
//! are those of the code.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::gateway::Gateway;

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");
const PATIENCE: Duration = Duration::from_secs(60);

/// What starts the gateway that the other commands talk to.
const START: &str = "cargo run --release -- system start --config config";
/// Commands that are not run here, and why not.
const ELSEWHERE: &[(&str, &str)] = &[
    ("cargo run --release -- system demo", "the release step of .ci/run runs it, with the release binary"),
    ("cargo test", "it is what runs this test"),
];
/// Marks a command that goes on until it is stopped.
const ENDLESS: &str = "Ctrl-C ends it";

/// Every command of the README runs as it is printed, in a copy of the checkout.
#[test]
fn the_readmes_commands_run_as_printed() {
    run_page("README.md");
}

/// The pipeline that the README runs is the one that it shows; only the file's comments are left out.
#[test]
fn the_readmes_pipeline_is_the_shipped_one() {
    let page = read("README.md");
    let shown = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a pipeline");
    let file = read("config/pipelines.yaml");
    let lines = file.lines().map(|line| line.split(" #").next().unwrap_or_default().trim_end());
    let shipped: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(shown.lines().collect::<Vec<_>>(), shipped);
}

#[test]
fn the_operators_commands_run_as_printed() {
    run_page("docs/operations.md");
}

#[test]
fn no_link_in_the_pages_is_broken() {
    let mut checked = 0;
    for page in files(Path::new(REPOSITORY), "md") {
        let text = fs::read_to_string(&page).expect("a page");
        for target in prose(&text).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            let to = page.parent().expect("a directory").join(path);
            assert!(to.exists(), "{}: the link to {target} leads nowhere", page.display());
            checked += 1;
        }
    }
    assert!(checked > 10, "only {checked} links were found: are they still found?");
}

/// A name in code type with three underscores or more is a test's, unless the schema has it, and `cargo test ...` ends with
/// one.
#[test]
fn every_test_that_a_page_names_exists() {
    let schema = read("src/ledger/schema.sql");
    let columns: BTreeSet<&str> = schema.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let code: Vec<String> =
        files(Path::new(REPOSITORY), "rs").iter().filter_map(|f| fs::read_to_string(f).ok()).collect();
    let mut checked = 0;
    for page in files(Path::new(REPOSITORY), "md") {
        let text = fs::read_to_string(&page).expect("a page");
        for span in prose(&text).split('`').skip(1).step_by(2) {
            let name = span.strip_prefix("cargo test ").and_then(|rest| rest.split(' ').next_back()).unwrap_or(span);
            let is_word = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if !is_word || name.matches('_').count() < 3 || columns.contains(name) {
                continue;
            }
            let wanted = format!("fn {name}(");
            assert!(code.iter().any(|c| c.contains(&wanted)), "{}: there is no test {name}", page.display());
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} names were found: are they still found?");
}

/// The domain's table, the diagram of the documentation; the ledger's own tests compare the table with the trigger.
#[test]
fn the_diagram_of_a_jobs_life_is_the_domains_table() {
    let page = read("docs/ARCHITECTURE.md");
    let diagram = page.split("stateDiagram-v2").nth(1).and_then(|rest| rest.split("```").next()).expect("a diagram");
    let drawn: BTreeSet<(Option<String>, String)> = diagram
        .lines()
        .filter_map(|line| line.split(':').next()?.split_once("-->"))
        .map(|(from, to)| (from.trim(), to.trim()))
        .filter(|(_, to)| *to != "[*]")
        .map(|(from, to)| ((from != "[*]").then(|| from.to_owned()), to.to_owned()))
        .collect();
    let legal: BTreeSet<(Option<String>, String)> = ductile_domain::job::LEGAL_TRANSITIONS
        .iter()
        .map(|(from, to)| (from.map(|f| f.to_string()), to.to_string()))
        .collect();
    assert_eq!(drawn, legal);
    let ends: BTreeSet<&str> = diagram
        .lines()
        .filter_map(|line| line.split_once("-->").filter(|(_, to)| to.trim() == "[*]"))
        .map(|(from, _)| from.trim())
        .collect();
    let terminal: BTreeSet<&str> =
        ductile_domain::job::JobStatus::ALL.iter().filter(|s| s.is_terminal()).map(|s| s.as_str()).collect();
    assert_eq!(ends, terminal);
}

#[test]
fn the_table_of_actors_is_the_running_tree() {
    let gateway = Gateway::new().start();
    let tree = gateway.get("/system/tree");
    let mut workers = BTreeSet::new();
    collect_workers(&tree["root"], &mut workers);
    let page = read("docs/ARCHITECTURE.md");
    let table = section(&page, "## The tree");
    let mut told: BTreeSet<String> = first_cells(table).into_iter().filter(|name| name != "actor").collect();
    // It lives as long as its attempt, so an idle gateway shows none.
    assert!(told.remove("job"), "the table says nothing about attempts");
    assert_eq!(told, workers);
}

#[test]
fn the_table_of_error_codes_is_the_doors() {
    let page = read("docs/errors.md");
    let told: Vec<(String, String)> = section(&page, "## Refusals")
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.to_owned()))
        })
        .collect();
    let served: Vec<(String, String)> =
        ductile_api::CODES.iter().map(|c| (c.word.to_owned(), c.status.as_u16().to_string())).collect();
    assert_eq!(told, served);
}

#[test]
fn the_table_of_routes_is_the_doors() {
    use ductile_api::Access;
    let page = read("docs/api.md");
    let told: Vec<&str> = section(&page, "## Routes").lines().filter(|line| line.starts_with("| `")).collect();
    let served: Vec<String> = ductile_api::routes()
        .iter()
        .map(|route| {
            let scope = match route.access {
                Access::Public => "none",
                Access::Invoke => "`plugin:invoke:ro` to read, `plugin:rw` to write",
                Access::Plugin => "`plugin:catalog:ro`",
                Access::RunSchedule => "as for its command",
                Access::RunPipeline => "`plugin:rw`",
                Access::Wiring => "`plugin:catalog:ro`",
                Access::Facts => "`plugin:ro`",
                Access::Jobs => "`jobs:status:ro`",
                Access::JobTree => "`jobs:tree:ro`",
                Access::JobLogs => "`jobs:logs:ro`",
                Access::JobsWrite => "`jobs:rw`",
                Access::Events => "`events:meta:ro`",
                Access::Admin => "`*`",
            };
            format!("| `{} {}` | {scope} | {} |", route.method, route.path, route.summary)
        })
        .collect();
    assert_eq!(told, served);
}

#[test]
fn the_table_of_exit_codes_is_the_helps() {
    let help = Command::new(env!("CARGO_BIN_EXE_ductile")).arg("--help").output().expect("the binary runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let listed = help.split("Exit codes:").nth(1).expect("the help lists the exit codes");
    let listed: BTreeSet<i32> =
        listed.split([',', '\n']).filter_map(|part| part.trim().split(' ').next()?.parse().ok()).collect();
    let page = read("docs/errors.md");
    let told: BTreeSet<i32> =
        first_cells(section(&page, "## Exit codes")).iter().filter_map(|c| c.parse().ok()).collect();
    assert_eq!(told, listed);
}

/// Runs a page's blocks in order, in one shell, beside a gateway that runs in a copy of the checkout.
fn run_page(page: &str) {
    let commands = commands(&read(page));
    let copy = Checkout::new();
    let mut gateway = copy.start();
    let mut script = String::from("set -eu\ntrap 'echo \"failed: $BASH_COMMAND\" >&2' ERR\n");
    let mut run = 0;
    for command in &commands {
        if command == START || ELSEWHERE.iter().any(|(heavy, _)| command == heavy) {
            continue;
        }
        if command.starts_with("curl ") && !has("curl") {
            println!("skipped: there is no curl for {command}");
            continue;
        }
        script.push_str(&format!("cat <<'SHOWN'\n$ {command}\nSHOWN\n"));
        if command.contains(ENDLESS) {
            // It has shown something and is stopped then.
            let command = command.split('#').next().unwrap_or_default();
            script.push_str(&format!(
                "{command} > shown & endless=$!\nuntil [ -s shown ]; do kill -0 $endless; sleep 0.05; done\n\
                 kill $endless; wait $endless || true\nrm shown\n"
            ));
        } else {
            script.push_str(&format!("{command}\n"));
        }
        run += 1;
    }
    assert!(run > 5, "only {run} commands were found in {page}: are they still found?");
    let output = Command::new("timeout")
        .args([PATIENCE.as_secs().to_string().as_str(), "bash", "-c", &script])
        .current_dir(copy.path())
        .env("PATH", copy.search_path())
        .env_remove("DUCTILE_CONFIG_DIR")
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{page}: {}\n{said}\n{problem}\n{}", output.status, copy.log());
    for (heavy, _) in ELSEWHERE {
        assert!(page != "README.md" || commands.iter().any(|c| c == heavy), "{heavy} is not in the README any more");
    }
    if commands.iter().any(|c| c == "ductile system stop") {
        let deadline = Instant::now() + PATIENCE;
        while gateway.0.try_wait().expect("a child of ours").is_none() {
            assert!(Instant::now() < deadline, "the gateway did not stop:\n{}", copy.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The commands in blocks marked `sh` (each line) and `console` (each line that begins with `$ `).
fn commands(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block = "";
    for line in page.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            block = if block.is_empty() && !kind.is_empty() { kind } else { "" };
            continue;
        }
        match block {
            "sh" if !line.trim().is_empty() && !line.starts_with('#') => found.push(line.to_owned()),
            "console" => found.extend(line.strip_prefix("$ ").map(str::to_owned)),
            _ => {}
        }
    }
    found
}

/// What a reader has after `git clone` and a build, without the sources.
struct Checkout(tempfile::TempDir);

impl Checkout {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("ductile-docs-").tempdir().expect("a temporary directory");
        let top = Path::new(REPOSITORY);
        let copied =
            Command::new("cp").arg("-R").args([top.join("config"), top.join("plugins")]).arg(dir.path()).status();
        assert!(copied.expect("cp runs").success());
        // Tests run side by side, and beside whatever uses the port of the shipped configuration.
        let config = dir.path().join("config/config.yaml");
        let text = fs::read_to_string(&config).expect("the shipped configuration");
        assert!(text.contains("127.0.0.1:8080"));
        fs::write(&config, text.replace("127.0.0.1:8080", "127.0.0.1:0")).expect("written");
        let built = dir.path().join("target/release");
        fs::create_dir_all(&built).expect("a directory");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ductile"), built.join("ductile")).expect("a link");
        // Stands for Cargo: the binary under test is the one that was built for the tests.
        let cargo = dir.path().join("stands_for/cargo");
        fs::create_dir(dir.path().join("stands_for")).expect("a directory");
        let text = "#!/bin/sh\n[ \"$1 $2 $3\" = 'run --release --' ] || { echo \"not for here: cargo $*\" >&2; exit 1; }\n\
                    shift 3\nexec target/release/ductile \"$@\"\n";
        fs::write(&cargo, text).expect("written");
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("executable");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn search_path(&self) -> String {
        format!("{}:{}", self.path().join("stands_for").display(), std::env::var("PATH").unwrap_or_default())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path().join("gateway.log")).unwrap_or_default()
    }

    /// Starts the gateway as the README does and waits for its socket.
    fn start(&self) -> Started {
        let log = fs::File::create(self.path().join("gateway.log")).expect("the log");
        let child = Command::new("bash")
            .args(["-c", &format!("exec {START}")])
            .current_dir(self.path())
            .env("PATH", self.search_path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("bash runs");
        let mut started = Started(child);
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(self.path().join("data/ductile.sock")).is_err() {
            assert!(started.0.try_wait().expect("a child of ours").is_none(), "it ended:\n{}", self.log());
            assert!(Instant::now() < deadline, "it did not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        started
    }
}

/// Ended with the test, whatever way that ends.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(page: &str) -> String {
    fs::read_to_string(Path::new(REPOSITORY).join(page)).expect("a page")
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
}

/// All files with that ending, but what was built or written by a gateway.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if !["target", ".git", "data", "tmp"].iter().any(|left_out| name == *left_out) {
                found.extend(files(&path, ending));
            }
        } else if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
    found
}

/// A page without its fenced blocks.
fn prose(page: &str) -> String {
    page.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// A heading's text up to the next heading of its level.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let rest = page.split(&format!("\n{heading}\n")).nth(1).unwrap_or_else(|| panic!("no section {heading:?}"));
    rest.split("\n## ").next().unwrap_or(rest)
}

/// The first cells of a section's table rows that stand in code type.
fn first_cells(section: &str) -> Vec<String> {
    section.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned())).collect()
}

fn collect_workers(node: &serde_json::Value, into: &mut BTreeSet<String>) {
    if node["kind"] == "worker" {
        into.insert(node["name"].as_str().expect("a name").to_owned());
    }
    for child in node["children"].as_array().into_iter().flatten() {
        collect_workers(child, into);
    }
}
