//! Ordered start, reverse stop, time limits.

use std::time::{Duration, Instant};

use ductile_otp::{Backoff, ChildSpec, Exit, Intensity, Phase, Restart, Root, Shutdown, StartError, Strategy, Tree};

use crate::kit::*;

/// OTP: sup_start_normal, order_of_children, tree
#[tokio::test(start_paused = true)]
async fn children_start_left_to_right_and_stop_in_reverse() {
    let log = Log::default();
    let inner = sup("inner", Strategy::OneForOne, 1, vec![probe("b", &slot(), &log), probe("c", &slot(), &log)]);
    let spec = sup(
        "root",
        Strategy::OneForOne,
        1,
        vec![probe("a", &slot(), &log), ChildSpec::supervisor(inner), probe("d", &slot(), &log)],
    );
    let rig = start(spec).await;
    assert_eq!(log.take(), ["+a", "+b", "+c", "+d"]);
    let snapshot = rig.tree.snapshot().expect("a tree");
    let names: Vec<_> = snapshot.children.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["a", "inner", "d"]);
    assert_eq!(&*snapshot.children[1].children[0].path, "root/inner/b");
    assert!(matches!(rig.stop().await, Exit::Shutdown(why) if why == "test is over"));
    assert_eq!(log.take(), ["-d", "~d", "-c", "~c", "-b", "~b", "-a", "~a"]);
    assert_eq!(rig.node("root").phase, Phase::Down);
}

/// OTP: sup_start_fail, sup_start_child_returns_error
#[tokio::test(start_paused = true)]
async fn a_failed_start_stops_what_was_started_in_reverse() {
    let log = Log::default();
    let bad = ChildSpec::worker::<Probe>("bad", slot(), Args { refuse: Some(abnormal()), ..args("bad", &log) });
    let spec = sup(
        "root",
        Strategy::OneForOne,
        1,
        vec![probe("a", &slot(), &log), probe("b", &slot(), &log), bad, probe("c", &slot(), &log)],
    );
    let error = try_start(spec).await.err().expect("no start");
    assert!(
        matches!(&error, StartError::Failed { path, exit: Exit::Error(why) } if path == "root" && why.contains("bad")),
        "{error}"
    );
    assert_eq!(log.take(), ["+a", "+b", "-b", "~b", "-a", "~a"]);
}

/// OTP: sup_start_fail of a grandchild
#[tokio::test(start_paused = true)]
async fn a_failed_grandchild_fails_the_whole_start() {
    let log = Log::default();
    let bad = ChildSpec::worker::<Probe>("bad", slot(), Args { refuse: Some(abnormal()), ..args("bad", &log) });
    let inner = sup("inner", Strategy::OneForOne, 1, vec![probe("b", &slot(), &log), bad]);
    let spec = sup("root", Strategy::OneForOne, 1, vec![probe("a", &slot(), &log), ChildSpec::supervisor(inner)]);
    assert!(try_start(spec).await.is_err());
    assert_eq!(log.take(), ["+a", "+b", "-b", "~b", "-a", "~a"]);
}

/// OTP: sup_start_ignore, sup_start_ignore_permanent_child, sup_start_ignore_temporary_child
#[tokio::test(start_paused = true)]
async fn a_child_that_is_not_needed_stays_down_without_failing_the_start() {
    let log = Log::default();
    let idle = ChildSpec::worker::<Probe>("idle", slot(), Args { refuse: Some(Exit::Normal), ..args("idle", &log) });
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![idle, probe("a", &slot(), &log)])).await;
    assert_eq!(log.take(), ["+a"]);
    assert_eq!(rig.node("root/idle").phase, Phase::Down);
    assert_eq!(rig.node("root").intensity.expect("a supervisor").used, 0);
    rig.stop().await;
}

/// OTP: sup_start_ignore_temporary_child_start_child (init that panics or takes too long is a failed start)
#[tokio::test(start_paused = true)]
async fn an_init_that_takes_too_long_is_a_failed_start() {
    let log = Log::default();
    let slow =
        ChildSpec::worker::<Probe>("slow", slot(), Args { slow_start: Duration::from_secs(60), ..args("slow", &log) });
    let error = try_start(sup("root", Strategy::OneForOne, 1, vec![slow])).await.err().expect("no start");
    assert!(error.to_string().contains("too long"), "{error}");
}

/// OTP: sup_stop_infinity
#[tokio::test(start_paused = true)]
async fn infinity_waits_for_a_slow_child() {
    let log = Log::default();
    let slow =
        ChildSpec::worker::<Probe>("slow", slot(), Args { slow_stop: Duration::from_secs(3600), ..args("slow", &log) })
            .shutdown(Shutdown::Infinity);
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![slow])).await;
    rig.root.stop("test is over", Duration::from_secs(7200)).await;
    assert_eq!(log.take(), ["+slow", "-slow", "~slow"]);
}

/// OTP: sup_stop_timeout
#[tokio::test(start_paused = true)]
async fn a_child_that_takes_too_long_to_stop_is_killed() {
    let log = Log::default();
    let slow =
        ChildSpec::worker::<Probe>("slow", slot(), Args { slow_stop: Duration::from_secs(60), ..args("slow", &log) })
            .shutdown(within(1000));
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![probe("a", &slot(), &log), slow])).await;
    let begun = tokio::time::Instant::now();
    rig.stop().await;
    assert_eq!(begun.elapsed().as_millis() / 100, 10, "the limit and no more");
    assert_eq!(log.take(), ["+a", "+slow", "~slow", "-a", "~a"]);
    assert_eq!(rig.node("root/slow").last_exit.expect("it ended").class, "killed");
}

/// OTP: sup_stop_brutal_kill
#[tokio::test(start_paused = true)]
async fn brutal_kill_asks_nobody() {
    let log = Log::default();
    let rig =
        start(sup("root", Strategy::OneForOne, 1, vec![probe("a", &slot(), &log).shutdown(Shutdown::Brutal)])).await;
    rig.stop().await;
    assert_eq!(log.take(), ["+a", "~a"]);
}

/// OTP: sup_stop_race, sup_stop_non_shutdown_exit_dynamic (a child that dies while it is being stopped)
#[tokio::test(start_paused = true)]
async fn a_child_that_dies_while_being_stopped_is_no_crash() {
    let log = Log::default();
    let (a, b) = (slot(), slot());
    let rig = start(sup("root", Strategy::OneForOne, 5, vec![probe("a", &a, &log), probe("b", &b, &log)])).await;
    end(&a, panic());
    let exit = rig.stop().await;
    assert!(matches!(exit, Exit::Shutdown(_)));
    assert_eq!(rig.node("root").phase, Phase::Down);
    assert_eq!(log.lines().iter().filter(|line| *line == "+b").count(), 1);
}

/// A second, shorter stop ends the patience; a child that would take an hour is killed.
#[tokio::test(start_paused = true)]
async fn the_grace_of_a_stop_is_a_limit_for_the_whole_tree() {
    let log = Log::default();
    let slow =
        ChildSpec::worker::<Probe>("slow", slot(), Args { slow_stop: Duration::from_secs(3600), ..args("slow", &log) })
            .shutdown(Shutdown::Infinity);
    let inner = sup("inner", Strategy::OneForOne, 1, vec![probe("a", &slot(), &log), slow]);
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![ChildSpec::supervisor(inner)])).await;
    let begun = tokio::time::Instant::now();
    rig.root.stop("test is over", Duration::from_secs(5)).await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(log.take(), ["+a", "+slow", "~slow", "-a", "~a"]);
}

/// SUP-02: an actor that can't be killed doesn't hold up the others' stop. OTP has no such case: its processes are preemptive.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_actor_that_never_waits_is_left_behind_as_a_zombie() {
    let log = Log::default();
    let stuck = slot();
    let rig = start(sup(
        "root",
        Strategy::OneForOne,
        1,
        vec![probe("a", &slot(), &log), probe("stuck", &stuck, &log).shutdown(within(10))],
    ))
    .await;
    stuck.try_cast(Msg::Block(Duration::from_secs(3))).expect("it is up");
    rig.until("root/stuck", |node| node.handling.is_some_and(|handling| handling.kind == "Block")).await;
    let begun = Instant::now();
    rig.stop().await;
    assert!(rig.find("actor.zombie").is_some());
    assert_eq!(rig.node("root/stuck").phase, Phase::Zombie);
    assert_eq!(log.lines(), ["+a", "+stuck", "-a", "~a"], "stopped after {:?}", begun.elapsed());
}

/// OTP: sup_stop_manual_timeout (dropping the start ends what was started)
#[tokio::test(start_paused = true)]
async fn a_dropped_start_leaves_nothing_running() {
    let log = Log::default();
    let slow =
        ChildSpec::worker::<Probe>("slow", slot(), Args { slow_start: Duration::from_secs(3), ..args("slow", &log) });
    let spec = sup("root", Strategy::OneForOne, 1, vec![probe("a", &slot(), &log), slow]);
    let tree = Tree::new(|_| {});
    assert!(tokio::time::timeout(Duration::from_secs(1), Root::start(spec, tree)).await.is_err());
    settle().await;
    assert_eq!(log.take().last().map(String::as_str), Some("~a"));
}

/// Dropping the root ends the tree.
#[tokio::test(start_paused = true)]
async fn a_dropped_root_stops_its_tree() {
    let log = Log::default();
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![probe("a", &slot(), &log)])).await;
    drop(rig.root);
    settle().await;
    assert_eq!(log.take(), ["+a", "-a", "~a"]);
}

/// SUP-05: a killed root leaves no orphan.
#[tokio::test(start_paused = true)]
async fn a_killed_root_takes_its_children_with_it_in_order() {
    let log = Log::default();
    let inner = sup("inner", Strategy::OneForOne, 1, vec![probe("b", &slot(), &log)]);
    let rig =
        start(sup("root", Strategy::OneForOne, 1, vec![probe("a", &slot(), &log), ChildSpec::supervisor(inner)])).await;
    assert!(rig.tree.ctl().kill("root"));
    assert_eq!(rig.root.wait().await, Exit::Killed);
    assert_eq!(log.take(), ["+a", "+b", "-b", "~b", "-a", "~a"]);
}

/// OTP: child_specs, faulty_application (a tree that can't work is refused before anything starts)
#[tokio::test(start_paused = true)]
async fn a_tree_that_can_not_work_is_refused() {
    let log = Log::default();
    let two = sup("root", Strategy::OneForOne, 1, vec![probe("a", &slot(), &log), probe("a", &slot(), &log)]);
    let slash = sup("root", Strategy::OneForOne, 1, vec![probe("a/b", &slot(), &log)]);
    let mut endless = sup("root", Strategy::OneForOne, 5, vec![probe("a", &slot(), &log)]);
    endless.backoff = Backoff::default();
    endless.intensity = Intensity::new(5, Duration::from_secs(6));
    for (spec, what) in [(two, "two children"), (slash, "slash"), (endless, "never give up")] {
        let error = try_start(spec).await.err().expect("refused").to_string();
        assert!(error.contains(what), "{error}");
    }
    assert!(log.take().is_empty());
}

/// A failing `continue_` is a crash after the start, not a failed start.
#[tokio::test(start_paused = true)]
async fn a_failing_continue_is_a_crash() {
    let log = Log::default();
    let bad = ChildSpec::worker::<Probe>("bad", slot(), Args { bad_continue: true, ..args("bad", &log) })
        .restart(Restart::Temporary);
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![bad])).await;
    settle().await;
    assert!(rig.tree.node("root/bad").is_none(), "temporary children are forgotten");
    assert_eq!(rig.find("actor.crashed").expect("a crash").reason.as_deref(), Some("can't rebuild"));
    rig.stop().await;
}
