//! Who is started again after which end, how often, and when the supervisor gives up.

use std::time::Duration;

use ductile_otp::{Backoff, ChildSpec, Exit, Intensity, Phase, Restart, StartCause, Strategy};

use crate::kit::*;

/// One child; ends it and says whether it came back.
async fn comes_back(restart: Restart, how: Exit) -> bool {
    let log = Log::default();
    let a = slot();
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![probe("a", &a, &log).restart(restart)])).await;
    end(&a, how);
    settle().await;
    let back = rig.tree.node("root/a").is_some_and(|node| node.phase == Phase::Up && node.incarnation == 2);
    let used = rig.node("root").intensity.expect("a supervisor").used;
    assert_eq!(used, u32::from(back), "counted exactly when restarted");
    if !back && restart == Restart::Temporary {
        assert!(rig.tree.node("root/a").is_none(), "a temporary child is forgotten");
    }
    rig.stop().await;
    back
}

/// OTP: permanent_normal, permanent_shutdown, permanent_abnormal
#[tokio::test(start_paused = true)]
async fn a_permanent_child_always_comes_back() {
    for how in [Exit::Normal, shutdown(), abnormal(), panic()] {
        assert!(comes_back(Restart::Permanent, how.clone()).await, "{how}");
    }
}

/// OTP: transient_normal, transient_shutdown, transient_abnormal
#[tokio::test(start_paused = true)]
async fn a_transient_child_comes_back_after_abnormal_ends() {
    for (how, back) in [(Exit::Normal, false), (shutdown(), false), (abnormal(), true), (panic(), true)] {
        assert_eq!(comes_back(Restart::Transient, how.clone()).await, back, "{how}");
    }
}

/// OTP: temporary_normal, temporary_shutdown, temporary_abnormal
#[tokio::test(start_paused = true)]
async fn a_temporary_child_never_comes_back() {
    for how in [Exit::Normal, shutdown(), abnormal(), panic()] {
        assert!(!comes_back(Restart::Temporary, how.clone()).await, "{how}");
    }
}

/// OTP: transient_abnormal with reason `killed`; child_unlink
#[tokio::test(start_paused = true)]
async fn a_killed_transient_child_comes_back() {
    let log = Log::default();
    let a = slot();
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![transient("a", &a, &log)])).await;
    assert!(rig.tree.ctl().kill("root/a"));
    let node = rig.up("root/a", 2).await;
    assert_eq!(node.last_exit.expect("it ended").class, "killed");
    assert_eq!(log.take(), ["+a", "~a", "+a"]);
    rig.stop().await;
}

/// OTP: one_for_one
#[tokio::test(start_paused = true)]
async fn one_for_one_touches_nobody_else() {
    let log = Log::default();
    let (a, b) = (slot(), slot());
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![probe("a", &a, &log), probe("b", &b, &log)])).await;
    end(&a, panic());
    assert_eq!(who(&a).await, 2);
    assert_eq!(who(&b).await, 1);
    assert_eq!(a.call(Msg::Cause, SOON).await, Ok(StartCause::Restart(1)));
    assert_eq!(b.call(Msg::Cause, SOON).await, Ok(StartCause::Boot));
    rig.stop().await;
}

/// OTP: one_for_one_escalation, sup_stop on intensity; SUP-05: `restarts within the period <= max`, and one more ends the supervisor.
#[tokio::test(start_paused = true)]
async fn the_root_gives_up_after_one_restart_too_many() {
    let log = Log::default();
    let (a, b) = (slot(), slot());
    let rig = start(sup("root", Strategy::OneForOne, 2, vec![probe("a", &a, &log), probe("b", &b, &log)])).await;
    for incarnation in 2..=3 {
        end(&a, panic());
        assert_eq!(who(&a).await, incarnation);
    }
    log.take();
    end(&a, panic());
    assert!(matches!(rig.root.wait().await, Exit::Error(why) if why.contains("more than 2 restarts")));
    assert_eq!(log.take(), ["~a", "-b", "~b"], "the others are stopped in order");
    let meltdown = rig.find("supervisor.meltdown").expect("visible").intensity.expect("with numbers");
    assert_eq!((meltdown.used, meltdown.max), (3, 2));
    assert_eq!(a.call(Msg::Who, SOON).await, Err(ductile_otp::CallError::Down), "nobody waits for a dead tree");
}

/// OTP: one_for_one_escalation
#[tokio::test(start_paused = true)]
async fn a_supervisor_that_gives_up_is_restarted_by_its_own() {
    let log = Log::default();
    let (a, b, c) = (slot(), slot(), slot());
    let inner = sup("inner", Strategy::OneForOne, 1, vec![probe("a", &a, &log), probe("b", &b, &log)]);
    let spec = sup("root", Strategy::OneForOne, 1, vec![ChildSpec::supervisor(inner), probe("c", &c, &log)]);
    let rig = start(spec).await;
    end(&a, panic());
    assert_eq!(who(&a).await, 2);
    end(&a, panic());
    rig.up("root/inner", 2).await;
    assert_eq!((who(&a).await, who(&b).await, who(&c).await), (3, 2, 1));
    assert!(rig.find("supervisor.escalated").is_some());
    assert!(rig.find("supervisor.meltdown").is_none());
    assert_eq!(rig.node("root/inner").intensity.expect("a supervisor").used, 0, "a new incarnation counts anew");
    rig.stop().await;
}

/// OTP: multiple_restarts, intensity
#[tokio::test(start_paused = true)]
async fn restarts_outside_the_period_are_forgotten() {
    let log = Log::default();
    let a = slot();
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![probe("a", &a, &log)])).await;
    for incarnation in 2..=6 {
        end(&a, panic());
        assert_eq!(who(&a).await, incarnation);
        tokio::time::sleep(Duration::from_millis(10_100)).await;
    }
    assert_eq!(rig.node("root/a").restarts, 5);
    rig.stop().await;
}

/// OTP: restart intensity 0
#[tokio::test(start_paused = true)]
async fn intensity_zero_allows_no_restart() {
    let log = Log::default();
    let a = slot();
    let rig = start(sup("root", Strategy::OneForOne, 0, vec![probe("a", &a, &log)])).await;
    end(&a, Exit::Normal);
    assert!(matches!(rig.root.wait().await, Exit::Error(_)));
}

/// OTP: simultaneous crashes are two restarts, not four
#[tokio::test(start_paused = true)]
async fn two_children_that_crash_together_count_once_each() {
    let log = Log::default();
    let (a, b) = (slot(), slot());
    let rig = start(sup("root", Strategy::OneForOne, 2, vec![probe("a", &a, &log), probe("b", &b, &log)])).await;
    end(&a, panic());
    end(&b, panic());
    assert_eq!((who(&a).await, who(&b).await), (2, 2));
    assert_eq!(rig.node("root").intensity.expect("a supervisor").used, 2);
    rig.stop().await;
}

/// OTP: hanging_restart_loop: a restart that fails is tried again by message, and each try counts.
#[tokio::test(start_paused = true)]
async fn each_failed_restart_counts() {
    let log = Log::default();
    let a = slot();
    let rig = start(sup("root", Strategy::OneForOne, 3, vec![probe("a", &a, &log)])).await;
    rig.tree.ctl().fail_start("root/a", 2);
    end(&a, panic());
    assert_eq!(who(&a).await, 4, "two attempts failed");
    assert_eq!(rig.node("root").intensity.expect("a supervisor").used, 3);
    rig.tree.ctl().fail_start("root/a", 9);
    end(&a, panic());
    assert!(matches!(rig.root.wait().await, Exit::Error(_)));
}

/// OTP: hanging_restart_loop: a stop gets in between.
#[tokio::test]
async fn a_stop_ends_an_endless_restart_loop() {
    let log = Log::default();
    let a = slot();
    let rig = start(sup("root", Strategy::OneForOne, 1_000_000_000, vec![probe("a", &a, &log)])).await;
    rig.tree.ctl().fail_start("root/a", u32::MAX);
    end(&a, panic());
    rig.until("root/a", |node| node.incarnation > 50).await;
    assert!(matches!(rig.stop().await, Exit::Shutdown(_)));
}

/// Back-off: the supervisor stays responsive, and a stable child starts again from the first step.
#[tokio::test(start_paused = true)]
async fn a_child_that_keeps_crashing_waits_longer_each_time() {
    let log = Log::default();
    let (a, b) = (slot(), slot());
    let mut spec = sup("root", Strategy::OneForOne, 9, vec![probe("a", &a, &log), probe("b", &b, &log)]);
    spec.intensity = Intensity::new(9, Duration::from_secs(3600));
    spec.backoff =
        Backoff { steps: [0, 50, 1_000].map(Duration::from_millis).to_vec(), stable_after: Duration::from_secs(30) };
    let rig = start(spec).await;
    for expected in [0, 50, 1_000, 1_000] {
        let begun = tokio::time::Instant::now();
        end(&a, panic());
        who(&a).await;
        let took = begun.elapsed().as_millis();
        assert!((expected..expected + 5).contains(&took), "{took} ms instead of {expected}");
    }
    end(&a, panic());
    let waiting = rig.until("root/a", |node| matches!(node.phase, Phase::Backoff { .. })).await;
    assert_eq!(waiting.incarnation, 5);
    end(&b, panic());
    assert_eq!(who(&b).await, 2, "the supervisor did not sleep");
    assert_eq!(rig.node("root/a").incarnation, 5, "still waiting");
    rig.up("root/a", 6).await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    let begun = tokio::time::Instant::now();
    end(&a, panic());
    who(&a).await;
    assert!(begun.elapsed() < Duration::from_millis(5), "it was stable for long enough");
    assert!(rig.find("actor.backoff").is_some());
    end(&a, panic());
    rig.until("root/a", |node| matches!(node.phase, Phase::Backoff { .. })).await;
    rig.stop().await;
    assert_eq!(rig.node("root/a").phase, Phase::Down, "a stop ends the waiting");
}

/// SUP-04: a killed supervisor's children are stopped before it starts again: never two of a kind.
#[tokio::test(start_paused = true)]
async fn a_killed_supervisor_leaves_no_orphan() {
    let log = Log::default();
    let (a, b) = (slot(), slot());
    let inner = sup("inner", Strategy::OneForOne, 1, vec![probe("a", &a, &log), probe("b", &b, &log)]);
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![ChildSpec::supervisor(inner)])).await;
    assert!(rig.tree.ctl().kill("root/inner"));
    rig.up("root/inner", 2).await;
    assert_eq!(log.take(), ["+a", "+b", "-b", "~b", "-a", "~a", "+a", "+b"]);
    rig.stop().await;
}

/// A blocked grandchild doesn't take the root down: its supervisor is restarted, the zombie is left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_blocked_grandchild_costs_one_restart() {
    let log = Log::default();
    let (stuck, a) = (slot(), slot());
    let inner = sup(
        "inner",
        Strategy::OneForOne,
        0,
        vec![probe("stuck", &stuck, &log).shutdown(within(10)), probe("a", &a, &log)],
    );
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![ChildSpec::supervisor(inner)])).await;
    stuck.try_cast(Msg::Block(Duration::from_secs(3))).expect("it is up");
    rig.until("root/inner/stuck", |node| node.handling.is_some_and(|handling| handling.kind == "Block")).await;
    end(&a, panic());
    rig.up("root/inner", 2).await;
    assert_eq!(who(&stuck).await, 2, "its successor answers");
    assert!(rig.find("actor.zombie").is_some());
    rig.stop().await;
}
