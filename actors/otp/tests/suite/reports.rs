//! What is seen from outside: events, crash reports, the tree while actors are stuck.

use std::time::Duration;

use ductile_otp::{InspectError, Kind, Root, Strategy, Tree};

use crate::kit::*;

/// SUP-04: a panic is reported with path, message in hand, file and line; the actor comes back, the sibling is untouched.
#[tokio::test(start_paused = true)]
async fn a_panic_is_reported_with_all_that_is_known() {
    let log = Log::default();
    let (a, b) = (slot(), slot());
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![probe("a", &a, &log), probe("b", &b, &log)])).await;
    end(&a, panic());
    assert_eq!(who(&a).await, 2);
    assert_eq!(who(&b).await, 1);
    let event = rig.find("actor.crashed").expect("a crash");
    let report = event.report.expect("a report");
    assert_eq!((&*report.path, report.incarnation, report.message), ("root/a", 1, Some("Panic")));
    assert_eq!(report.reason, "told to");
    assert!(report.location.expect("a place").contains("kit.rs:"));
    assert_eq!(report.mailbox.map(|(_, cap)| cap), Some(64));
    let last = rig.node("root/a").last_exit.expect("it ended");
    assert_eq!((last.class, last.reason.as_str()), ("panic", "told to"));
    assert_eq!(
        rig.kinds("root/a"),
        ["actor.starting", "actor.started", "actor.crashed", "actor.starting", "actor.started"]
    );
    rig.stop().await;
    assert_eq!(rig.kinds("root/b"), ["actor.starting", "actor.started", "actor.exited"]);
}

/// SUP-09: the events of start and stop are in order.
#[tokio::test(start_paused = true)]
async fn events_follow_the_order_of_start_and_stop() {
    let log = Log::default();
    let rig =
        start(sup("root", Strategy::OneForOne, 1, vec![probe("a", &slot(), &log), probe("b", &slot(), &log)])).await;
    rig.stop().await;
    let seen: Vec<_> = rig
        .events
        .lock()
        .expect("events")
        .iter()
        .filter(|event| event.kind != "actor.starting")
        .map(|event| format!("{} {}", &event.kind["actor.".len()..], event.path))
        .collect();
    let expected =
        ["started root/a", "started root/b", "started root", "exited root/b", "exited root/a", "exited root"];
    assert_eq!(seen, expected);
}

/// A panic in an owned task is the actor's own.
#[tokio::test(start_paused = true)]
async fn the_panic_of_an_owned_task_ends_its_actor() {
    let log = Log::default();
    let a = slot();
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![probe("a", &a, &log)])).await;
    a.try_cast(Msg::CrashTask).expect("room");
    rig.up("root/a", 2).await;
    let report = rig.find("actor.crashed").expect("a crash").report.expect("a report");
    assert_eq!(report.reason, "in a task");
    assert!(report.location.is_some());
    rig.stop().await;
}

/// Pitfall 21: a listener that panics takes nobody down.
#[tokio::test(start_paused = true)]
async fn a_listener_that_panics_harms_nobody() {
    let log = Log::default();
    let a = slot();
    let tree = Tree::new(|_| panic!("bad listener"));
    let root =
        Root::start(sup("root", Strategy::OneForOne, 1, vec![probe("a", &a, &log)]), tree).await.expect("starts");
    end(&a, panic());
    assert_eq!(who(&a).await, 2);
    root.stop("over", SOON).await;
}

/// SUP-14: the tree is readable while an actor is stuck, and says in what.
#[tokio::test(start_paused = true)]
async fn the_tree_shows_what_a_stuck_actor_does() {
    let log = Log::default();
    let a = slot();
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![probe("a", &a, &log)])).await;
    assert_eq!(rig.tree.inspect("root/a", SOON).await, Ok(serde_json::json!({"name": "a"})));
    a.try_cast(Msg::Nap(Duration::from_secs(100))).expect("room");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let node = rig.node("root/a");
    let handling = node.handling.expect("it naps");
    assert_eq!((handling.kind, handling.time.as_secs()), ("Nap", 30));
    assert_eq!(node.kind, Kind::Worker);
    let answer = rig.tree.inspect("root/a", Duration::from_millis(500)).await;
    assert_eq!(answer, Err(InspectError::Unresponsive));
    assert_eq!(rig.tree.inspect("root/x", SOON).await, Err(InspectError::Unknown));
    rig.tree.ctl().kill("root/a");
    rig.up("root/a", 2).await;
    assert_eq!(rig.find("actor.killed").expect("a kill").report.expect("a report").message, Some("Nap"));
    rig.stop().await;
}

/// The faults for tests do what they say.
#[tokio::test(start_paused = true)]
async fn faults_on_demand_hit_the_message_they_name() {
    let log = Log::default();
    let a = slot();
    let rig = start(sup("root", Strategy::OneForOne, 9, vec![probe("a", &a, &log)])).await;
    let ctl = rig.tree.ctl();
    assert!(ctl.panic_next("root/a", Some("Note")));
    assert_eq!(who(&a).await, 1);
    a.try_cast(Msg::Note("never logged")).expect("room");
    assert_eq!(who(&a).await, 2);
    assert!(ctl.panic_next("root/a", None));
    assert!(a.call(Msg::Who, SOON).await.is_err());
    assert_eq!(who(&a).await, 3);
    let begun = tokio::time::Instant::now();
    assert!(ctl.stall("root/a", Duration::from_secs(7)));
    who(&a).await;
    assert_eq!(begun.elapsed().as_secs(), 7);
    assert!(!log.lines().contains(&"never logged".to_owned()));
    rig.stop().await;
}
