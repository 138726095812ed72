//! `kill -9` of the gateway while a hundred runs of a pipeline are under way: each run ends with each of its steps once.
//!
//! The kills come at numbers of ended jobs that a seed decides (`CRASH_SEED` repeats one), some of them while the gateway starts;
//! and at each edge of a commit.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::gateway::{Builder, Gateway, PATIENCE, Response, plugin_processes};

const RUNS: usize = 100;
const KILLS: usize = 24;
/// Runs that are under way at a time.
const IN_FLIGHT: usize = 20;

/// Ten steps: `c` is passed over, and `called` stands for the two of the other pipeline.
const PIPELINES: &str = "pipelines:
  - name: storm
    on: storm.start
    steps:
      - { id: a, uses: first, baggage: { run.id: payload.id } }
      - { id: b, uses: step, if: { path: payload.id, op: exists } }
      - { id: c, uses: step, if: { path: payload.none, op: exists } }
      - split:
          - { id: left, uses: step }
          - steps:
              - { id: right, uses: step }
              - { id: called, call: other }
      - { id: end, uses: step, join: all }
      - { id: tail, uses: step, with: { of: '{context.run.id}' } }
      - { id: last, uses: closer }
  - name: other
    on: other.start
    steps:
      - { id: x, uses: step }
      - { id: y, uses: step }
  - name: heard
    on: closed
    steps: [{ id: hear, uses: step }]
  - name: told
    on-hook: job.completed
    from_plugin: first
    steps: [{ id: tell, uses: step }]
";

/// The jobs of a run, those of the pipeline that its last event starts, and those of its hook.
const NODES: [(&str, &[&str]); 3] = [
    ("heard", &["hear"]),
    (
        "storm",
        &[
            "a",
            "b",
            "b__switch",
            "c__switch",
            "called/x",
            "called/y",
            "end",
            "end__join",
            "last",
            "left",
            "right",
            "tail",
        ],
    ),
    ("told", &["tell"]),
];

/// Ends after a moment of another length each time, and hands the run's id on.
const STEP: &str = r#"read -r request
id=${request#*'"id":"'}
sleep 0.0$(( $$ % 4 ))
printf '{"status":"ok","result":"done","events":[{"type":"EVENT","payload":{"id":"%s"}}]}' "${id%%'"'*}"
"#;

/// A small linear congruence.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }
}

/// Starts a run; `None` when no answer came, and nobody knows whether it was accepted.
fn start_run(socket: &Path, n: usize, patience: Duration) -> Option<Response> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(patience)).expect("a socket option");
    let body = format!("{{\"payload\":{{\"id\":\"run-{n}\"}},\"dedupe_key\":\"run-{n}\"}}");
    write!(
        stream,
        "POST /pipeline/storm HTTP/1.1\r\nHost: ductile\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Response::parse(&answer)
}

/// Starts all runs, never more than are allowed so far; asks again with the same key when no answer came.
fn start_runs(socket: &Path, allowed: &AtomicUsize, is_over: &AtomicBool) -> (usize, usize) {
    let (mut repeated, mut duplicates) = (0, 0);
    let mut n = 0;
    while n < RUNS && !is_over.load(Ordering::Acquire) {
        let answer = (n < allowed.load(Ordering::Acquire)).then(|| start_run(socket, n, PATIENCE));
        match answer {
            Some(Some(answer)) if matches!(answer.status, 200 | 202) => {
                duplicates += usize::from(answer.body.contains("\"duplicate\":true"));
                n += 1;
                continue;
            }
            Some(Some(answer)) => assert_eq!(answer.status, 503, "{}", answer.body),
            Some(None) => repeated += 1,
            None => {}
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    (repeated, duplicates)
}

/// Lets the starts end however the test ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn prepared() -> Builder {
    let keys = "    env_passthrough: [DUCTILE_TEST_DIR]\n    retry: {max_attempts: 60, backoff_base: 10ms}\n";
    let builder = Gateway::new()
        .script_with("step", &STEP.replace("EVENT", "stepped"), keys)
        .script_with("closer", &STEP.replace("EVENT", "closed"), keys)
        .plugin_with("first", &format!("    uses: step\n    notify_on_complete: true\n{keys}"))
        .service("  max_workers: 8\n")
        .wiring(PIPELINES);
    let dir = builder.path().display().to_string();
    builder.env("DUCTILE_TEST_DIR", dir)
}

fn jobs_of_a_run() -> usize {
    NODES.iter().map(|(_, nodes)| nodes.len()).sum()
}

fn ended(gateway: &Gateway) -> usize {
    let ended = "SELECT count(*) FROM job_queue WHERE status NOT IN ('queued', 'running')";
    gateway.sql_one(ended).parse().expect("a number")
}

/// SUP-10, QUE-10, DIS-20, PIP-45, API-06, promise 5: whenever the gateway dies, no run loses a step and none has a step, a hook or a
/// join twice.
#[test]
fn every_run_has_exactly_its_steps_while_the_gateway_dies() {
    let seed =
        std::env::var("CRASH_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(u64::from(std::process::id()));
    println!("CRASH_SEED={seed}");
    let mut chance = Chance(seed);
    let all = RUNS * jobs_of_a_run();
    let mut moments: Vec<usize> = (0..KILLS).map(|_| 5 + chance.below(all - all / 10)).collect();
    moments.sort_unstable();

    let mut gateway = prepared().start();

    let begun = Instant::now();
    let (is_over, allowed) = (AtomicBool::new(false), AtomicUsize::new(IN_FLIGHT));
    let socket = gateway.path("ductile.sock");
    let (mut kills, mut cut_attempts) = (0, 0);
    let (repeated, duplicates) = std::thread::scope(|scope| {
        let starter = scope.spawn(|| start_runs(&socket, &allowed, &is_over));
        let _over = Over(&is_over);
        let allow = |gateway: &Gateway| {
            let ended = ended(gateway);
            allowed.store(IN_FLIGHT + ended / jobs_of_a_run(), Ordering::Release);
            ended
        };
        for moment in moments {
            gateway.until("enough jobs have ended for the next kill", |g| (allow(g) >= moment).then_some(()));
            // A job that was cut off three times would be quarantined, and its run with it.
            let cut_off = "SELECT count(*) FROM job_queue WHERE attempt > 1 AND status IN ('queued', 'running')";
            gateway.until("what was cut off has ended", |g| {
                allow(g);
                (g.sql_one(cut_off) == "0").then_some(())
            });
            std::thread::sleep(Duration::from_millis(chance.below(40) as u64));
            gateway.kill_nine();
            kills += 1;
            let running = gateway.sql_one("SELECT count(*) FROM job_queue WHERE status = 'running'");
            cut_attempts += running.parse::<usize>().expect("a number");
            if chance.below(3) == 0 {
                // Once more, at some point of the start that has to mend the first.
                gateway.spawn();
                std::thread::sleep(Duration::from_millis(chance.below(250) as u64));
                gateway.kill_nine();
                kills += 1;
            }
            gateway.start();
        }
        let finish = Instant::now();
        while allow(&gateway) < all {
            assert!(finish.elapsed() < PATIENCE * 2, "{} of {all} jobs have ended", ended(&gateway));
            std::thread::sleep(Duration::from_millis(20));
        }
        starter.join().expect("the starts are accepted")
    });
    let took = begun.elapsed();
    let attempts = gateway.sql_one("SELECT count(*) FROM job_attempts");
    println!(
        "{RUNS} runs, {kills} kills in {took:?}, {all} jobs, {attempts} attempts, {cut_attempts} cut off; {repeated} starts without an answer, \
         {duplicates} of them accepted before"
    );
    every_run_is_whole(&gateway, RUNS);
    joins_fired_once(&gateway, RUNS);
    gateway.until("no process is left", |g| plugin_processes(g.dir.path()).is_empty().then_some(()));
    assert_eq!(gateway.stop(), 0);
}

/// QUE-10, DIS-20, promise 5: the writer stops at every edge of a commit, early and late, and dies there; the ends of jobs and all
/// that follows them are there together or not at all.
#[test]
fn a_kill_at_every_commit_edge_keeps_every_run_whole() {
    let cases: Vec<_> =
        ductile_ledger::failpoints().iter().flat_map(|point| [20, 70, 150].map(|passes| (*point, passes))).collect();
    assert!(cases.len() >= 12, "{cases:?}");
    // The cases have nothing to do with each other, and each mostly waits.
    std::thread::scope(|scope| {
        for cases in cases.chunks(cases.len().div_ceil(3)) {
            scope.spawn(|| cases.iter().for_each(|(point, passes)| kill_at(point, *passes)));
        }
    });
}

fn kill_at(point: &str, passes: u32) {
    let mut gateway = prepared().env("FAILPOINTS", format!("{point}={passes}*off->pause")).start();
    let socket = gateway.path("ductile.sock");
    let mut n = 0;
    // Without an answer the writer stands still at that edge; a machine that is only slow is killed elsewhere, which is as good.
    while start_run(&socket, n, Duration::from_millis(500)).is_some_and(|answer| answer.status == 202) {
        n += 1;
        assert!(n < 100, "{point} was never reached:\n{}", gateway.logs());
        std::thread::sleep(Duration::from_millis(20));
    }
    gateway.kill_nine();
    gateway.forget_env("FAILPOINTS");
    let (before, runs) = (ended(&gateway), n + 1);
    gateway.start();
    let answer = start_run(&socket, n, PATIENCE).expect("an answer");
    assert!(matches!(answer.status, 200 | 202), "{point}: {}", answer.body);
    let all = runs * jobs_of_a_run();
    gateway.until("every run has ended", |g| (ended(g) >= all).then_some(()));
    println!("{point} {passes}: {runs} runs, {before} of {all} jobs had ended");
    every_run_is_whole(&gateway, runs);
    joins_fired_once(&gateway, runs);
}

/// What every run is made of, whose baggage it carries, and that nothing of it is there twice.
fn every_run_is_whole(gateway: &Gateway, runs: usize) {
    let rows = gateway.sql(
        "SELECT json_extract(c.accumulated_json, '$.ductile.root'), json_extract(c.accumulated_json, '$.ductile.pipeline_instance_id'),
            json_extract(c.accumulated_json, '$.ductile.node'), q.status, coalesce(json_extract(c.accumulated_json, '$.run.id'), 'hook')
         FROM job_queue q LEFT JOIN event_context c ON c.id = q.event_context_id",
    );
    let mut nodes_of: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    let mut baggage: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for row in &rows {
        assert_eq!(row[3], "succeeded", "{row:?}");
        nodes_of.entry((&row[0], &row[1])).or_default().push(&row[2]);
        baggage.entry((&row[0], &row[1])).or_default().insert(&row[4]);
    }
    for ((pipeline, run), nodes) in &mut nodes_of {
        nodes.sort_unstable();
        let (_, whole) = NODES.iter().find(|(name, _)| name == pipeline).expect("a known pipeline");
        assert_eq!(nodes, whole, "run {run} of {pipeline}");
    }
    let open = gateway.sql_one("SELECT count(*) FROM job_queue WHERE status IN ('queued', 'running')");
    assert_eq!(open, "0", "jobs more than there may be");
    for (pipeline, _) in NODES {
        let of_it: Vec<_> = baggage.iter().filter(|((name, _), _)| *name == pipeline).map(|(_, ids)| ids).collect();
        assert_eq!(of_it.len(), runs, "runs of {pipeline}");
        assert!(of_it.iter().all(|ids| ids.len() == 1), "a run of {pipeline} carries another one's baggage");
        let different = of_it.iter().flat_map(|ids| ids.iter()).collect::<BTreeSet<_>>().len();
        assert_eq!(different, if pipeline == "told" { 1 } else { runs }, "runs of {pipeline} by their baggage");
    }
    for (what, query) in [
        (
            "a step that followed one job twice",
            "SELECT parent_job_id, target_key FROM job_queue WHERE parent_job_id IS NOT NULL GROUP BY 1, 2 HAVING count(*) > 1",
        ),
        (
            "a job that followed one event twice",
            "SELECT parent_job_id, source_event_id, plugin, command, target_key FROM job_queue WHERE source_event_id IS NOT NULL
             GROUP BY 1, 2, 3, 4, 5 HAVING count(*) > 1",
        ),
        (
            "a job whose parent is unknown",
            "SELECT id FROM job_queue WHERE parent_job_id IS NOT NULL AND parent_job_id NOT IN (SELECT id FROM job_queue)",
        ),
        (
            "a job that succeeded twice",
            "SELECT job_id FROM job_transitions WHERE to_status = 'succeeded' GROUP BY job_id HAVING count(*) > 1",
        ),
        ("a context that no job has", "SELECT id FROM event_context WHERE id NOT IN (SELECT event_context_id FROM job_queue)"),
    ] {
        let found = gateway.sql(query);
        assert!(found.is_empty(), "{what}: {found:?}");
    }
    assert_eq!(gateway.sql_one("PRAGMA integrity_check"), "ok");
}

fn joins_fired_once(gateway: &Gateway, runs: usize) {
    let joins = gateway.sql_one(
        "SELECT count(*) || ' joins, ' || count(DISTINCT fired_job_id) || ' jobs' FROM pipeline_joins j
         WHERE open = 0 AND fired_at IS NOT NULL AND (SELECT plugin FROM job_queue q WHERE q.id = j.fired_job_id) = 'core.join'",
    );
    assert_eq!(joins, format!("{runs} joins, {runs} jobs"));
    assert_eq!(gateway.sql_one("SELECT count(*) FROM pipeline_joins"), runs.to_string());
    let branches = gateway.sql(
        "SELECT branch, group_concat(DISTINCT step), group_concat(DISTINCT status), count(*), count(DISTINCT job_id)
         FROM pipeline_join_branches GROUP BY branch",
    );
    let runs = runs.to_string();
    assert_eq!(branches, [["0", "left", "succeeded", &runs, &runs], ["1", "right", "succeeded", &runs, &runs]]);
}
