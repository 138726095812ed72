//! Two hundred reloads under load, with the gateway killed in between: no accepted job is lost, none sees two
//! configurations mixed, and no generation is kept.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::gateway::{Gateway, PATIENCE, Response};

const RELOADS: usize = 200;
/// After these reloads the gateway is killed and started again.
const KILLS: [usize; 4] = [30, 61, 92, 120];
/// Jobs that a submitter gets accepted at most.
const MOST_JOBS: usize = 2_000;
/// Jobs that are accepted between two reloads at least, so that there is a load all the time.
const JOBS_PER_RELOAD: usize = 5;
/// What a gateway may grow by in eighty reloads, in KiB; one configuration held for ever would cost some 100 each.
const MOST_GROWTH: u64 = 6 * 1024;

/// Says the two words of its configuration, which always change together.
const PAIR: &str = r#"read -r request
first=${request#*'"first":"'}
second=${request#*'"second":"'}
printf '{"status":"ok","result":"%s %s"}' "${first%%'"'*}" "${second%%'"'*}"
"#;

/// A request of which nobody knows whether the gateway lives.
fn ask(socket: &Path, method: &str, path: &str) -> Option<Response> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: ductile\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Response::parse(&answer)
}

/// The configuration of one generation; every other one has a plugin more.
fn write_config(gateway: &Gateway, n: usize) {
    let entry =
        |name: &str| format!("  {name}:\n    enabled: true\n    config:\n      first: w{n}\n      second: w{n}\n");
    let extra = if n.is_multiple_of(2) { entry("extra") } else { String::new() };
    let roots = gateway.path("plugins");
    let text = format!(
        "plugin_roots:\n  - {}\nservice:\n  tick_interval: 1s\n  max_workers: {}\napi:\n  enabled: false\nstate:\n  path: ./ductile.db\nplugins:\n{}{extra}",
        roots.display(),
        2 + n % 3,
        entry("pair"),
    );
    let beside = gateway.path("config.new");
    fs::write(&beside, text).expect("the configuration");
    fs::rename(beside, gateway.path("config.yaml")).expect("the configuration");
}

/// Resident memory in KiB.
fn memory(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Submits until it is told to stop, waiting for each end or for none; answers the jobs that were accepted.
fn submit(socket: &Path, target: &str, is_over: &AtomicBool, count: &AtomicUsize) -> Vec<String> {
    let mut accepted = Vec::new();
    let path = format!("/plugin/{target}");
    while !is_over.load(Ordering::Acquire) && accepted.len() < MOST_JOBS {
        match ask(socket, "POST", &path) {
            Some(response) if matches!(response.status, 200 | 202) => {
                count.fetch_add(1, Ordering::AcqRel);
                accepted.push(response.json()["job_id"].as_str().expect("an id").to_owned());
            }
            // Removed for now, or the gateway is dead for now.
            Some(response) if matches!(response.status, 404 | 503) => {}
            Some(response) => panic!("{target}: {} {}", response.status, response.body),
            None => {}
        }
        // A pause, not a wait: the load shall not be all that the machine does.
        std::thread::sleep(Duration::from_millis(4));
    }
    accepted
}

/// SUP-11, OPS-05, OPS-06, promise 5: reloads and deaths in any order lose no accepted job and mix no configurations.
#[test]
fn two_hundred_reloads_and_four_deaths_lose_nothing() {
    let mut gateway = Gateway::new().script("pair", PAIR).script("extra", PAIR).prepare();
    write_config(&gateway, 0);
    gateway.start();
    let socket = gateway.path("ductile.sock");
    let (is_over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut growth = None;
    let mut slowest = Duration::ZERO;
    let accepted = std::thread::scope(|scope| {
        let targets = [("pair", "pair/poll"), ("extra", "extra/poll"), ("pair", "pair/poll?wait=20s")];
        let submitters = targets.map(|(plugin, target)| {
            let (socket, is_over, count) = (&socket, &is_over, &count);
            (plugin, scope.spawn(move || submit(socket, target, is_over, count)))
        });
        let _over = Over(&is_over);
        for n in 1..=RELOADS {
            write_config(&gateway, n);
            let begun = Instant::now();
            let response = gateway.request("POST", "/system/reload", None);
            slowest = slowest.max(begun.elapsed());
            assert_eq!(response.status, 200, "{}", response.body);
            if KILLS.contains(&n) {
                gateway.kill_nine();
                gateway.start();
            }
            let enough = n * JOBS_PER_RELOAD;
            gateway.until("more jobs are accepted", |_| (count.load(Ordering::Acquire) >= enough).then_some(()));
            if n == KILLS[3] + 20 {
                growth = Some(memory(&gateway));
            }
        }
        is_over.store(true, Ordering::Release);
        submitters.map(|(plugin, ids)| (plugin, ids.join().expect("no refusal that was not expected")))
    });
    let open = "SELECT count(*) FROM job_queue WHERE status IN ('queued', 'running')";
    gateway.until_some("every job has ended", |g| (g.sql_one(open) == "0").then_some(()));
    let grown = memory(&gateway).saturating_sub(growth.expect("measured"));
    gateway.until_some("the former generations are gone", |g| {
        let status = g.get("/system/status");
        (status["generations"].as_array().expect("a list").len() == 1).then_some(())
    });

    // What each job said, and what the configuration said that it ran under.
    let rows = gateway.sql(
        "SELECT q.id, q.status, q.last_error, json_extract(l.result, '$.result'),
            json_extract(s.sanitized_config, '$.plugins.' || q.plugin || '.config.first')
         FROM job_queue q LEFT JOIN job_log l ON l.id = q.id || '-' || q.attempt
            LEFT JOIN config_snapshots s ON s.id = q.started_config_snapshot_id",
    );
    let rows: HashMap<&str, &[String]> = rows.iter().map(|row| (&*row[0], &row[1..])).collect();
    let (mut succeeded, mut buried) = (0, 0);
    for (plugin, ids) in &accepted {
        assert!(ids.len() > 20, "only {} jobs of {plugin} were accepted", ids.len());
        for id in ids {
            let row = rows.get(&**id).unwrap_or_else(|| panic!("the accepted job {id} is lost"));
            match (&*row[0], &*row[1]) {
                ("succeeded", _) => {
                    succeeded += 1;
                    assert_eq!(row[2], format!("{0} {0}", row[3]), "{plugin} {id} mixed two configurations: {row:?}");
                }
                ("dead", why) if *plugin == "extra" && why.contains("removed or disabled") => buried += 1,
                _ => panic!("{plugin} {id}: {row:?}"),
            }
        }
    }
    println!("{succeeded} succeeded, {buried} lost their plugin, slowest reload {slowest:?}, grown by {grown} KiB");
    assert!(grown < MOST_GROWTH, "the gateway has grown by {grown} KiB in eighty reloads");
    assert_eq!(gateway.stop(), 0);
}

/// Ends the load however the test ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
