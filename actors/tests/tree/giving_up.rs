//! When restarting does not help: supervisors give up in the design's numbers, and with the root the gateway ends.

use std::process::{Command, Stdio};

use ductile_actors::{Numbers, Signals};
use ductile_otp::Backoff;

use crate::gateway::Gateway;

const QUEUE: &str = "root/exec_sup/queue";

/// Set for the process that shall give up.
const ROLE: &str = "DUCTILE_TEST_GIVES_UP";

/// SUP-05: three faults of an actor of execution are borne, the fourth ends its supervisor; two such ends are borne by
/// the root, the third ends the gateway with 70 and the tree on stderr, and no plugin process is left.
#[test]
fn repeated_faults_end_the_gateway_with_70() {
    let me = std::env::current_exe().expect("the test's own path");
    let child = Command::new(me)
        .args(["--exact", "giving_up::a_gateway_that_gives_up", "--ignored", "--nocapture"])
        .env(ROLE, "1")
        .stdin(Stdio::null())
        .output()
        .expect("the child runs");
    let said = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.code(), Some(70), "{said}");
    assert!(said.contains("supervision gave up"), "{said}");
    for line in ["root down", "exec_sup", "dispatcher", "ledger", "restarts"] {
        assert!(said.contains(line), "no {line:?} in the tree: {said}");
    }
    assert!(said.contains("faults borne: 11"), "{said}");
    assert!(said.contains("processes left: []"), "{said}");
}

/// The child of the test above. The intensities are production's; only the pauses between restarts are left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "ends its process: runs as the child of repeated_faults_end_the_gateway_with_70"]
async fn a_gateway_that_gives_up() {
    assert!(std::env::var_os(ROLE).is_some(), "only as a child");
    let mut gateway = Gateway::start(2, Numbers { backoff: Backoff::none(), ..Numbers::default() }).await;
    let job = gateway.enqueue("work", "hang").await;
    gateway.process_of(job).await;
    let running = gateway.take_running();
    let signals = Signals::listen().expect("signals");
    let run = tokio::spawn(running.run(signals));
    let mut borne = 0;
    loop {
        let before = gateway.incarnation(QUEUE);
        gateway.ctl().kill(QUEUE);
        // The last kill is not followed by another start.
        while gateway.incarnation(QUEUE) == before
            || gateway.shared().tree.node(QUEUE).is_none_or(|n| n.phase.as_str() != "up")
        {
            if run.is_finished() {
                let code = run.await.expect("no panic");
                eprintln!("faults borne: {borne}");
                eprintln!("processes left: {:?}", gateway.plugin_processes());
                std::process::exit(code);
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        borne += 1;
    }
}
