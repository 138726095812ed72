//! Restarts that somebody asked for.

use ductile_otp::{RestartError, StartCause, Strategy};

use crate::kit::*;

/// OTP: restart_child after terminate_child; not counted, since an operator asked
#[tokio::test(start_paused = true)]
async fn an_operators_restart_is_not_counted() {
    let log = Log::default();
    let a = slot();
    let rig = start(sup("root", Strategy::OneForOne, 0, vec![probe("a", &a, &log)])).await;
    for _ in 0..5 {
        rig.tree.restarts().restart("root/a").expect("known").done(SOON).await.expect("restarted");
    }
    assert_eq!(who(&a).await, 6);
    assert_eq!(a.call(Msg::Cause, SOON).await, Ok(StartCause::Operator));
    assert_eq!(rig.node("root").intensity.expect("a supervisor").used, 0);
    assert_eq!(log.lines()[..4], ["+a", "-a", "~a", "+a"]);
    rig.stop().await;
}

/// Those that depend on it are restarted with it.
#[tokio::test(start_paused = true)]
async fn an_operators_restart_follows_the_strategy() {
    let log = Log::default();
    let (a, b, c) = (slot(), slot(), slot());
    let children = vec![probe("a", &a, &log), probe("b", &b, &log), probe("c", &c, &log)];
    let rig = start(sup("root", Strategy::RestForOne, 0, children)).await;
    log.take();
    rig.tree.restarts().restart("root/b").expect("known").done(SOON).await.expect("restarted");
    assert_eq!(log.take(), ["-c", "~c", "-b", "~b", "+b", "+c"]);
    rig.stop().await;
}

/// OTP: count_restarting_children; an operator needs no patience
#[tokio::test(start_paused = true)]
async fn an_operators_restart_ends_the_back_off() {
    let log = Log::default();
    let a = slot();
    let mut spec = sup("root", Strategy::OneForOne, 1, vec![probe("a", &a, &log)]);
    spec.backoff = ductile_otp::Backoff {
        steps: vec![std::time::Duration::from_secs(9)],
        stable_after: std::time::Duration::from_secs(30),
    };
    let rig = start(spec).await;
    end(&a, panic());
    rig.until("root/a", |node| matches!(node.phase, ductile_otp::Phase::Backoff { .. })).await;
    let begun = tokio::time::Instant::now();
    rig.tree.restarts().restart("root/a").expect("known").done(SOON).await.expect("restarted");
    assert!(begun.elapsed() < std::time::Duration::from_secs(1));
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    assert_eq!(who(&a).await, 2, "the restart that was due is void");
    rig.stop().await;
}

/// Unknown and unrestartable paths say so.
#[tokio::test(start_paused = true)]
async fn not_everything_can_be_restarted() {
    let log = Log::default();
    let rig = start(sup("root", Strategy::OneForOne, 0, vec![temporary("t", &slot(), &log)])).await;
    let restarts = rig.tree.restarts();
    assert_eq!(restarts.restart("root/x").err(), Some(RestartError::Unknown));
    assert_eq!(restarts.restart("root/t").err(), Some(RestartError::NotRestartable));
    assert_eq!(restarts.restart("root").err(), Some(RestartError::NotRestartable));
    rig.stop().await;
}
