//! Children that come and go.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ductile_otp::{
    Backoff, CallError, ChildSpec, DynSupervisor, Exit, Intensity, Phase, Restart, Shutdown, Slot, StartError, Strategy,
};

use crate::kit::*;

type Ends = Arc<Mutex<Vec<(String, Exit)>>>;

struct Jobs {
    rig: Rig,
    jobs: DynSupervisor,
    log: Log,
    ends: Ends,
}

async fn jobs(max_children: usize, intensity: u32) -> Jobs {
    let ends: Ends = Arc::default();
    let told = Arc::clone(&ends);
    let jobs = DynSupervisor::new(many(intensity), max_children)
        .backoff(Backoff::none())
        .on_exit(move |name, exit| told.lock().expect("ends").push((name.to_owned(), exit.clone())));
    let spec = sup("root", Strategy::OneForOne, 3, vec![ChildSpec::dynamic("jobs", jobs.clone())]);
    let rig = start(spec).await;
    Jobs { rig, jobs, log: Log::default(), ends }
}

impl Jobs {
    async fn start(&self, name: &str, restart: Restart, shutdown: Shutdown) -> Result<Slot<Msg>, StartError> {
        self.jobs.start_child::<Probe>(name.into(), args(name, &self.log), restart, shutdown).await
    }

    async fn temporary(&self, name: &str) -> Slot<Msg> {
        self.start(name, Restart::Temporary, within(1000)).await.expect("it starts")
    }

    async fn empty(&self) {
        let until = tokio::time::Instant::now() + SOON;
        while self.jobs.count() > 0 {
            assert!(tokio::time::Instant::now() < until, "left: {:?}", self.jobs.which());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// OTP: start_child, simple_one_for_one, which_children, count_children
#[tokio::test(start_paused = true)]
async fn a_child_is_in_the_tree_while_it_lives() {
    let jobs = jobs(10, 0).await;
    let a = jobs.temporary("job:1").await;
    assert_eq!(who(&a).await, 1);
    assert_eq!(jobs.jobs.which(), ["job:1"]);
    let node = jobs.rig.node("root/jobs/job:1");
    assert_eq!((node.phase, node.restart), (Phase::Up, Restart::Temporary));
    assert_eq!(jobs.rig.node("root").children[0].children.len(), 1);
    let same = jobs.jobs.get::<Msg>("job:1").expect("it lives");
    assert_eq!(who(&same).await, 1);
    end(&a, Exit::Normal);
    jobs.empty().await;
    assert!(jobs.rig.tree.node("root/jobs/job:1").is_none());
    assert!(jobs.jobs.get::<Msg>("job:1").is_none());
    assert_eq!(a.call(Msg::Who, SOON).await, Err(CallError::Down));
    assert_eq!(jobs.ends.lock().expect("ends").as_slice(), [("job:1".to_owned(), Exit::Normal)]);
    jobs.rig.stop().await;
}

/// OTP: temporary_abnormal for dynamic children; SUP-08: the end of a child is told whatever its kind.
#[tokio::test(start_paused = true)]
async fn every_end_is_told_after_the_state_is_gone() {
    let jobs = jobs(10, 0).await;
    for how in [Exit::Normal, shutdown(), abnormal(), panic()] {
        let a = jobs.temporary("job").await;
        end(&a, how.clone());
        jobs.empty().await;
        let (_, told) = jobs.ends.lock().expect("ends").pop().expect("told");
        assert_eq!(told.class(), how.class());
        assert_eq!(jobs.log.take().last().map(String::as_str), Some("~job"));
    }
    jobs.temporary("job").await;
    assert!(jobs.rig.tree.ctl().kill("root/jobs/job"));
    jobs.empty().await;
    assert_eq!(jobs.ends.lock().expect("ends").pop().expect("told").1, Exit::Killed);
    jobs.rig.stop().await;
}

/// OTP: sup_start_fail for dynamic children, DynamicSupervisor: errors go to the caller, nothing is stored
#[tokio::test(start_paused = true)]
async fn a_child_that_can_not_start_leaves_nothing() {
    let jobs = jobs(1, 0).await;
    let refuse = Args { refuse: Some(abnormal()), ..args("bad", &jobs.log) };
    let started = jobs.jobs.start_child::<Probe>("bad".into(), refuse, Restart::Permanent, within(1)).await;
    assert!(matches!(started, Err(StartError::Failed { exit: Exit::Error(_), .. })));
    assert_eq!(jobs.jobs.count(), 0);
    jobs.temporary("a").await;
    assert_eq!(jobs.start("b", Restart::Temporary, within(1)).await.err(), Some(StartError::Full { max: 1 }));
    jobs.jobs.terminate_child("a").await;
    jobs.temporary("b").await;
    jobs.rig.stop().await;
    assert_eq!(jobs.start("c", Restart::Temporary, within(1)).await.err(), Some(StartError::Down));
}

/// OTP: duplicate ids
#[tokio::test(start_paused = true)]
async fn a_name_is_free_again_when_its_child_is_gone() {
    let jobs = jobs(10, 0).await;
    jobs.temporary("a").await;
    assert!(matches!(jobs.start("a", Restart::Temporary, within(1)).await, Err(StartError::NameTaken(_))));
    assert!(jobs.jobs.terminate_child("a").await);
    assert!(!jobs.jobs.terminate_child("a").await);
    jobs.temporary("a").await;
    assert_eq!(jobs.log.take(), ["+a", "-a", "~a", "+a"]);
    jobs.rig.stop().await;
}

/// OTP: dropping the starter in the middle of `init`
#[tokio::test(start_paused = true)]
async fn a_dropped_start_gives_the_name_back() {
    let jobs = jobs(1, 0).await;
    let slow = Args { slow_start: Duration::from_secs(4), ..args("a", &jobs.log) };
    let start = jobs.jobs.start_child::<Probe>("a".into(), slow, Restart::Temporary, within(1));
    assert!(tokio::time::timeout(Duration::from_secs(1), start).await.is_err());
    assert_eq!(jobs.jobs.count(), 0);
    jobs.temporary("a").await;
    jobs.rig.stop().await;
}

/// OTP: sup_stop_timeout_dynamic, sup_stop_brutal_kill_dynamic, sup_stop_infinity_dynamic: in parallel, with one timer
#[tokio::test(start_paused = true)]
async fn all_children_are_stopped_at_once() {
    let jobs = jobs(100, 0).await;
    for n in 0..20 {
        let name = format!("slow:{n}");
        let slow = Args { slow_stop: Duration::from_secs(3), ..args(&name, &jobs.log) };
        jobs.jobs.start_child::<Probe>(name, slow, Restart::Temporary, within(5_000)).await.expect("it starts");
    }
    let hang = Args { slow_stop: Duration::from_secs(3600), ..args("hang", &jobs.log) };
    jobs.jobs.start_child::<Probe>("hang".into(), hang, Restart::Temporary, within(5_000)).await.expect("it starts");
    jobs.start("brutal", Restart::Temporary, Shutdown::Brutal).await.expect("it starts");
    let begun = tokio::time::Instant::now();
    jobs.rig.stop().await;
    assert_eq!(begun.elapsed().as_secs(), 5, "one limit for all");
    let log = jobs.log.take();
    assert_eq!(log.iter().filter(|line| line.starts_with("-slow")).count(), 20);
    assert!(!log.contains(&"-hang".to_owned()) && !log.contains(&"-brutal".to_owned()));
    assert_eq!(log.iter().filter(|line| line.starts_with('~')).count(), 22);
    assert_eq!(jobs.jobs.count(), 0);
}

/// OTP: simple_one_for_one_escalation, permanent and transient dynamic children
#[tokio::test(start_paused = true)]
async fn dynamic_children_that_come_back_count() {
    let jobs = jobs(10, 2).await;
    let a = jobs.start("a", Restart::Permanent, within(1)).await.expect("it starts");
    let t = jobs.start("t", Restart::Transient, within(1)).await.expect("it starts");
    end(&a, Exit::Normal);
    assert_eq!(who(&a).await, 2, "the address is the same");
    end(&t, panic());
    assert_eq!(who(&t).await, 2);
    end(&t, Exit::Normal);
    settle().await;
    assert_eq!(jobs.jobs.which(), ["a"]);
    assert_eq!(jobs.rig.node("root/jobs").intensity.expect("a supervisor").used, 2);
    end(&a, panic());
    jobs.rig.up("root/jobs", 2).await;
    assert_eq!(jobs.jobs.count(), 0, "a new incarnation begins empty");
    assert!(jobs.rig.find("supervisor.escalated").is_some());
    jobs.temporary("b").await;
    jobs.rig.stop().await;
}

/// OTP: hanging_restart_loop_simple
#[tokio::test(start_paused = true)]
async fn a_dynamic_child_that_fails_to_come_back_is_tried_again() {
    let jobs = jobs(10, 5).await;
    let a = jobs.start("a", Restart::Permanent, within(1)).await.expect("it starts");
    jobs.rig.tree.ctl().fail_start("root/jobs/a", 3);
    end(&a, panic());
    assert_eq!(who(&a).await, 5);
    assert_eq!(jobs.rig.node("root/jobs").intensity.expect("a supervisor").used, 4);
    jobs.rig.stop().await;
}

/// A child in its back-off is a child: it can be ended, and it ends with its supervisor.
#[tokio::test(start_paused = true)]
async fn a_child_in_its_back_off_can_be_ended() {
    let jobs = DynSupervisor::new(Intensity::new(1, Duration::from_secs(60)), 5)
        .backoff(Backoff { steps: vec![Duration::from_secs(9)], stable_after: Duration::from_secs(30) });
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![ChildSpec::dynamic("jobs", jobs.clone())])).await;
    let log = Log::default();
    let a =
        jobs.start_child::<Probe>("a".into(), args("a", &log), Restart::Permanent, within(1)).await.expect("starts");
    end(&a, panic());
    rig.until("root/jobs/a", |node| matches!(node.phase, Phase::Backoff { .. })).await;
    assert!(jobs.terminate_child("a").await);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((jobs.count(), log.take()), (0, vec!["+a".to_owned(), "~a".to_owned()]));
    rig.stop().await;
}

/// OTP: the supervisor is killed: its children are stopped before it starts again
#[tokio::test(start_paused = true)]
async fn a_killed_dynamic_supervisor_leaves_no_orphan() {
    let jobs = jobs(10, 0).await;
    jobs.temporary("a").await;
    jobs.temporary("b").await;
    assert!(jobs.rig.tree.ctl().kill("root/jobs"));
    jobs.rig.up("root/jobs", 2).await;
    assert_eq!(jobs.jobs.count(), 0);
    let log = jobs.log.take();
    assert_eq!(log.iter().filter(|line| line.starts_with('-')).count(), 2, "asked to stop, not killed: {log:?}");
    jobs.temporary("a").await;
    jobs.rig.stop().await;
}

/// Two that end the same child both return when it is gone.
#[tokio::test(start_paused = true)]
async fn a_child_ended_twice_is_ended_once() {
    let jobs = jobs(10, 0).await;
    let slow = Args { slow_stop: Duration::from_secs(3), ..args("a", &jobs.log) };
    jobs.jobs.start_child::<Probe>("a".into(), slow, Restart::Permanent, within(9_000)).await.expect("it starts");
    let (first, second) = tokio::join!(jobs.jobs.terminate_child("a"), jobs.jobs.terminate_child("a"));
    assert!(first && second);
    assert_eq!(jobs.log.take(), ["+a", "-a", "~a"]);
    jobs.rig.stop().await;
}

/// OTP: scale_start_stop_many_children
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_jobs_leave_nothing_behind() {
    let jobs = jobs(50_000, 0).await;
    for n in 0..20_000 {
        let args = args("job", &Log::default());
        let slot = jobs
            .jobs
            .start_child::<Probe>(format!("job:{n}"), args, Restart::Temporary, within(1000))
            .await
            .expect("it starts");
        end(&slot, if n % 100 == 0 { panic() } else { Exit::Normal });
    }
    jobs.empty().await;
    assert_eq!(jobs.ends.lock().expect("ends").len(), 20_000);
    assert!(jobs.rig.node("root/jobs").children.is_empty());
    jobs.rig.stop().await;
}
