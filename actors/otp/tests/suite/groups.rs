//! rest_for_one and one_for_all.

use ductile_otp::{ChildSpec, Exit, Phase, Strategy};

use crate::kit::*;

struct Four {
    log: Log,
    slots: [ductile_otp::Slot<Msg>; 4],
    rig: Rig,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

async fn four(strategy: Strategy, max: u32) -> Four {
    let log = Log::default();
    let slots = [slot(), slot(), slot(), slot()];
    let children = NAMES.iter().zip(&slots).map(|(name, slot)| probe(name, slot, &log)).collect();
    let rig = start(sup("root", strategy, max, children)).await;
    log.take();
    Four { log, slots, rig }
}

impl Four {
    async fn incarnations(&self) -> [u64; 4] {
        let [a, b, c, d] = &self.slots;
        [who(a).await, who(b).await, who(c).await, who(d).await]
    }
}

/// OTP: rest_for_one
#[tokio::test(start_paused = true)]
async fn rest_for_one_restarts_those_that_were_started_later() {
    let four = four(Strategy::RestForOne, 1).await;
    end(&four.slots[1], abnormal());
    settle().await;
    assert_eq!(four.log.take(), ["-b", "~b", "-d", "~d", "-c", "~c", "+b", "+c", "+d"]);
    assert_eq!(four.incarnations().await, [1, 2, 2, 2]);
    four.rig.stop().await;
}

/// OTP: one_for_all
#[tokio::test(start_paused = true)]
async fn one_for_all_restarts_all() {
    let four = four(Strategy::OneForAll, 1).await;
    end(&four.slots[2], abnormal());
    settle().await;
    assert_eq!(four.log.take(), ["-c", "~c", "-d", "~d", "-b", "~b", "-a", "~a", "+a", "+b", "+c", "+d"]);
    assert_eq!(four.incarnations().await, [2, 2, 2, 2]);
    four.rig.stop().await;
}

/// OTP: rest_for_one_escalation, one_for_all_escalation
#[tokio::test(start_paused = true)]
async fn groups_give_up_as_well() {
    for strategy in [Strategy::RestForOne, Strategy::OneForAll] {
        let log = Log::default();
        let (a, b, c) = (slot(), slot(), slot());
        let inner = sup("inner", strategy, 1, vec![probe("a", &a, &log), probe("b", &b, &log)]);
        let spec = sup("root", Strategy::OneForAll, 1, vec![ChildSpec::supervisor(inner), probe("c", &c, &log)]);
        let rig = start(spec).await;
        end(&b, panic());
        assert_eq!(who(&b).await, 2);
        end(&b, panic());
        rig.up("root/inner", 2).await;
        assert_eq!(who(&c).await, 2, "the root's strategy applies to it");
        rig.stop().await;
    }
}

/// OTP: one_for_all_other_child_fails_restart, rest_for_one_other_child_fails_restart
#[tokio::test(start_paused = true)]
async fn a_bystander_that_fails_to_start_again_is_tried_again() {
    for (strategy, expected, used) in [(Strategy::RestForOne, [1, 2, 4, 2], 3), (Strategy::OneForAll, [4, 4, 4, 2], 3)]
    {
        let four = four(strategy, 5).await;
        four.rig.tree.ctl().fail_start("root/c", 2);
        end(&four.slots[1], abnormal());
        four.rig.up("root/d", 2).await;
        assert_eq!(four.incarnations().await, expected, "{strategy:?}");
        assert_eq!(four.rig.node("root").intensity.expect("a supervisor").used, used);
        four.rig.stop().await;
    }
}

/// OTP: hanging_restart_loop_rest_for_one, and its one_for_all sibling
#[tokio::test]
async fn a_stop_ends_a_group_that_never_comes_up() {
    for strategy in [Strategy::RestForOne, Strategy::OneForAll] {
        let four = four(strategy, 1_000_000_000).await;
        four.rig.tree.ctl().fail_start("root/c", u32::MAX);
        end(&four.slots[1], abnormal());
        four.rig.until("root/c", |node| node.incarnation > 50).await;
        assert_ne!(four.rig.node("root/d").phase, Phase::Up);
        assert!(matches!(four.rig.stop().await, Exit::Shutdown(_)));
    }
}

/// OTP: simultaneous crashes within a group are one restart
#[tokio::test(start_paused = true)]
async fn a_bystander_that_crashes_too_is_not_counted() {
    for (strategy, expected) in [(Strategy::RestForOne, [1, 2, 2, 2]), (Strategy::OneForAll, [2, 2, 2, 2])] {
        let four = four(strategy, 1).await;
        end(&four.slots[1], panic());
        end(&four.slots[3], panic());
        settle().await;
        assert_eq!(four.incarnations().await, expected);
        assert_eq!(four.rig.node("root").intensity.expect("a supervisor").used, 1);
        four.rig.stop().await;
    }
}

/// OTP: temporary_bystander
#[tokio::test(start_paused = true)]
async fn a_temporary_bystander_does_not_come_back() {
    for strategy in [Strategy::RestForOne, Strategy::OneForAll] {
        let log = Log::default();
        let (a, b, c) = (slot(), slot(), slot());
        let children = vec![probe("a", &a, &log), temporary("b", &b, &log), probe("c", &c, &log)];
        let rig = start(sup("root", strategy, 1, children)).await;
        end(&a, panic());
        assert_eq!((who(&a).await, who(&c).await), (2, 2));
        assert!(rig.tree.node("root/b").is_none());
        assert_eq!(b.call(Msg::Who, SOON).await, Err(ductile_otp::CallError::Down));
        assert_eq!(log.lines().iter().filter(|line| *line == "+b").count(), 1);
        rig.stop().await;
    }
}

/// OTP: a transient child that ended is started again with its group
#[tokio::test(start_paused = true)]
async fn a_finished_transient_child_comes_back_with_its_group() {
    let log = Log::default();
    let (a, b) = (slot(), slot());
    let rig = start(sup("root", Strategy::RestForOne, 1, vec![probe("a", &a, &log), transient("b", &b, &log)])).await;
    end(&b, Exit::Normal);
    rig.down("root/b").await;
    end(&a, panic());
    assert_eq!((who(&a).await, who(&b).await), (2, 2));
    rig.stop().await;
}

/// A temporary child that ends in a group restarts nobody.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_temporary_child_is_nobodys_business() {
    let log = Log::default();
    let (a, b) = (slot(), slot());
    let rig = start(sup("root", Strategy::OneForAll, 1, vec![temporary("a", &a, &log), probe("b", &b, &log)])).await;
    end(&a, panic());
    settle().await;
    assert_eq!(who(&b).await, 1);
    assert_eq!(rig.node("root").intensity.expect("a supervisor").used, 0);
    rig.stop().await;
}

/// OTP: a supervisor's restart brings its temporary children back: they are in its list
#[tokio::test(start_paused = true)]
async fn a_new_incarnation_of_a_supervisor_starts_its_whole_list() {
    let log = Log::default();
    let (a, b) = (slot(), slot());
    let inner = sup("inner", Strategy::OneForOne, 0, vec![temporary("a", &a, &log), probe("b", &b, &log)]);
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![ChildSpec::supervisor(inner)])).await;
    end(&a, Exit::Normal);
    settle().await;
    assert!(rig.tree.node("root/inner/a").is_none());
    end(&b, panic());
    rig.up("root/inner", 2).await;
    assert_eq!((who(&a).await, who(&b).await), (2, 2));
    rig.stop().await;
}
