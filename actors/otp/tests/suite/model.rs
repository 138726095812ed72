//! Random operations against a pure model of `supervisor.erl`: the same children run, with the same number of starts.

use ductile_otp::{ChildSpec, Exit, Phase, Restart, Strategy};
use proptest::prelude::{Just, ProptestConfig, prop_oneof, proptest};
use proptest::strategy::Strategy as Gen;

use crate::kit::*;

#[derive(Debug, Clone)]
enum Op {
    Crash(usize),
    Kill(usize),
    Finish(usize),
    FailStarts(usize, u32),
    Operator(usize),
    Advance(u64),
}

/// One child as OTP sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Child {
    restart: Restart,
    up: bool,
    forgotten: bool,
    starts: u64,
    fails: u32,
}

/// A supervisor as OTP describes it.
struct Model {
    strategy: Strategy,
    max: usize,
    now: u64,
    restarts: Vec<u64>,
    children: Vec<Child>,
    gave_up: bool,
}

const PERIOD_MS: u64 = 10_000;

impl Model {
    fn new(strategy: Strategy, max: usize, restarts: &[Restart]) -> Self {
        let child = |restart: &Restart| Child { restart: *restart, up: true, forgotten: false, starts: 1, fails: 0 };
        Self {
            strategy,
            max,
            now: 0,
            restarts: Vec::new(),
            children: restarts.iter().map(child).collect(),
            gave_up: false,
        }
    }

    fn end(&mut self, at: usize, is_abnormal: bool) {
        let child = &mut self.children[at];
        if !child.up {
            return;
        }
        child.up = false;
        match child.restart {
            Restart::Temporary => child.forgotten = true,
            Restart::Transient if !is_abnormal => {}
            Restart::Transient | Restart::Permanent => self.restart(at),
        }
    }

    /// `add_restart`, `terminate_children`, `start_children`, and `try_again_restart` after a failure.
    fn restart(&mut self, at: usize) {
        let mut at = at;
        loop {
            let (now, max) = (self.now, self.max);
            self.restarts.retain(|then| now - then <= PERIOD_MS);
            self.restarts.push(now);
            if self.restarts.len() > max {
                self.gave_up = true;
                return;
            }
            match self.group(at) {
                None => return,
                Some(failed) => at = failed,
            }
        }
    }

    fn group(&mut self, at: usize) -> Option<usize> {
        let range = match self.strategy {
            Strategy::OneForOne => at..at + 1,
            Strategy::RestForOne => at..self.children.len(),
            Strategy::OneForAll => 0..self.children.len(),
        };
        for n in range.clone() {
            let child = &mut self.children[n];
            child.up = false;
            child.forgotten |= child.restart == Restart::Temporary;
        }
        for n in range {
            let child = &mut self.children[n];
            if child.forgotten {
                continue;
            }
            child.starts += 1;
            if child.fails > 0 {
                child.fails -= 1;
                return Some(n);
            }
            child.up = true;
        }
        None
    }

    fn operator(&mut self, at: usize) {
        if self.children[at].restart == Restart::Temporary {
            return;
        }
        if let Some(failed) = self.group(at) {
            self.restart(failed);
        }
    }
}

fn ops() -> impl Gen<Value = Vec<Op>> {
    let child = 0..4_usize;
    let op = prop_oneof![
        4 => child.clone().prop_map(Op::Crash),
        2 => child.clone().prop_map(Op::Kill),
        2 => child.clone().prop_map(Op::Finish),
        1 => (child.clone(), 1..3_u32).prop_map(|(at, n)| Op::FailStarts(at, n)),
        1 => child.prop_map(Op::Operator),
        2 => (1..9_000_u64).prop_map(Op::Advance),
    ];
    proptest::collection::vec(op, 1..25)
}

fn restart() -> impl Gen<Value = Restart> {
    prop_oneof![3 => Just(Restart::Permanent), 2 => Just(Restart::Transient), 1 => Just(Restart::Temporary)]
}

fn strategy() -> impl Gen<Value = Strategy> {
    prop_oneof![Just(Strategy::OneForOne), Just(Strategy::RestForOne), Just(Strategy::OneForAll)]
}

async fn compare(strategy: Strategy, max: usize, restarts: &[Restart], ops: &[Op]) {
    let log = Log::default();
    let names = ["w0", "w1", "w2", "w3"];
    let slots: Vec<_> = names.iter().map(|_| slot()).collect();
    let children: Vec<ChildSpec> = (0..4).map(|n| probe(names[n], &slots[n], &log).restart(restarts[n])).collect();
    let rig = start(sup("root", strategy, u32::try_from(max).expect("small"), children)).await;
    let begun = tokio::time::Instant::now();
    let mut model = Model::new(strategy, max, restarts);
    for op in ops {
        model.now = u64::try_from(begun.elapsed().as_millis()).expect("soon");
        match op {
            Op::Crash(at) => {
                model.end(*at, true);
                let _ = slots[*at].try_cast(Msg::Panic);
            }
            Op::Kill(at) => {
                model.end(*at, true);
                rig.tree.ctl().kill(&format!("root/{}", names[*at]));
            }
            Op::Finish(at) => {
                model.end(*at, false);
                let _ = slots[*at].try_cast(Msg::End(Exit::Normal));
            }
            Op::FailStarts(at, n) => {
                model.children[*at].fails = *n;
                rig.tree.ctl().fail_start(&format!("root/{}", names[*at]), *n);
            }
            Op::Operator(at) => {
                model.operator(*at);
                let _ = rig.tree.restarts().restart(&format!("root/{}", names[*at]));
            }
            Op::Advance(time) => tokio::time::sleep(std::time::Duration::from_millis(*time)).await,
        }
        settle().await;
        if model.gave_up {
            assert!(matches!(rig.root.wait().await, Exit::Error(_)), "the model gave up after {op:?}");
            break;
        }
        for (name, child) in names.iter().zip(&model.children) {
            let node = rig.tree.node(&format!("root/{name}"));
            assert_eq!(node.is_none(), child.forgotten, "{name} after {op:?}");
            if let Some(node) = node {
                assert_eq!(node.phase == Phase::Up, child.up, "{name} after {op:?}: {node:?}");
                assert_eq!(node.incarnation, child.starts, "{name} after {op:?}");
            }
        }
        check_life(&log, &names);
    }
    log.take();
    if !model.gave_up {
        rig.stop().await;
        let stopped: Vec<String> = log.take().into_iter().filter(|line| line.starts_with('-')).collect();
        let expected: Vec<String> =
            (0..4).rev().filter(|n| model.children[*n].up).map(|n| format!("-{}", names[n])).collect();
        assert_eq!(stopped, expected, "stopped in reverse");
    }
}

/// Never two of a kind, and each start is followed by an end before the next.
fn check_life(log: &Log, names: &[&str]) {
    for name in names {
        let mut alive = 0;
        for line in log.lines() {
            match line.strip_suffix(name) {
                Some("+") => alive += 1,
                Some("~") => alive -= 1,
                _ => {}
            }
            assert!((0..=1).contains(&alive), "{name} twice");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// OTP: the whole of one_for_one, rest_for_one and one_for_all
    #[test]
    fn a_supervisor_does_what_otp_does(
        strategy in strategy(),
        max in 0..6_usize,
        restarts in proptest::collection::vec(restart(), 4),
        ops in ops(),
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime")
            .block_on(compare(strategy, max, &restarts, &ops));
    }
}
