//! The supervision tree as data, one screen long: who supervises whom, how, and in which order they start.

use std::sync::Arc;
use std::time::Duration;

use ductile_otp::{Backoff, ChildSpec, Intensity, Server, Shutdown, Slot, Strategy, SupervisorSpec};

use crate::breaker::Breaker;
use crate::config::Config;
use crate::dispatcher::Dispatcher;
use crate::drainer::Drainer;
use crate::http::Http;
use crate::ledger::LedgerActor;
use crate::maintenance::Maintenance;
use crate::queue::Queue;
use crate::reaper::Reaper;
use crate::router::Router;
use crate::scheduler::Scheduler;
use crate::shared::Shared;
use crate::space::Space;

/// The numbers of the tree, apart so that chaos tests can raise them; production runs the default.
#[derive(Debug, Clone)]
pub struct Numbers {
    /// Restarts that a supervisor of workers bears.
    pub workers: Intensity,
    /// Restarts that the supervisor of execution bears.
    pub execution: Intensity,
    /// Restarts that the supervisor of the doors bears.
    pub doors: Intensity,
    /// Restarts of supervisors that the root bears.
    pub root: Intensity,
    /// Pauses between restarts.
    pub backoff: Backoff,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            workers: Intensity::new(5, Duration::from_secs(60)),
            execution: Intensity::new(3, Duration::from_secs(60)),
            doors: Intensity::new(10, Duration::from_secs(60)),
            root: Intensity::new(2, Duration::from_secs(300)),
            backoff: Backoff::default(),
        }
    }
}

/// The tree. Children start from top to bottom and stop from bottom to top; what stands lower depends on what stands
/// higher.
pub(crate) fn tree(shared: &Arc<Shared>, numbers: &Numbers) -> SupervisorSpec {
    use Strategy::{OneForOne, RestForOne};
    let a = &shared.addresses;
    let s = || shared.clone();
    let sup = |name: &str, strategy, intensity, children| SupervisorSpec {
        name: name.to_owned(),
        strategy,
        intensity,
        backoff: numbers.backoff.clone(),
        children,
    };
    let secs = Duration::from_secs;

    let control = vec![worker::<Config>("config", a.config.clone(), s(), secs(2))];
    let storage = vec![
        worker::<LedgerActor>("ledger", a.ledger.clone(), s(), secs(10)),
        worker::<Space>("space", a.space.clone(), s(), secs(1)),
        worker::<Maintenance>("maintenance", a.maintenance.clone(), s(), secs(2)),
    ];
    let policy = vec![
        worker::<Router>("router", a.router.clone(), s(), secs(2)),
        worker::<Breaker>("breaker", a.breaker.clone(), s(), secs(1)),
    ];
    let execution = vec![
        ChildSpec::dynamic("job_sup", shared.jobs.clone()),
        // Recovery runs in the reaper's start, before anything claims; ending left-over processes takes its time.
        worker::<Reaper>("reaper", a.reaper.clone(), s(), secs(2)).init_timeout(secs(60)),
        worker::<Queue>("queue", a.queue.clone(), s(), secs(2)),
        worker::<Dispatcher>("dispatcher", a.dispatcher.clone(), s(), secs(5)),
    ];
    let flow = vec![worker::<Scheduler>("scheduler", a.scheduler.clone(), s(), secs(2))];
    let doors = vec![worker::<Http>("http", a.http.clone(), s(), secs(15))];
    // It limits itself by a setting that a reload may change.
    let drainer = vec![ChildSpec::worker::<Drainer>("drainer", Slot::new(1, 10), s()).shutdown(Shutdown::Infinity)];

    sup(
        "root",
        RestForOne,
        numbers.root,
        vec![
            ChildSpec::supervisor(sup("control_sup", OneForOne, numbers.workers, control)),
            ChildSpec::supervisor(sup("storage_sup", OneForOne, numbers.workers, storage)),
            ChildSpec::supervisor(sup("policy_sup", OneForOne, numbers.workers, policy)),
            ChildSpec::supervisor(sup("exec_sup", RestForOne, numbers.execution, execution)),
            ChildSpec::supervisor(sup("flow_sup", OneForOne, numbers.workers, flow)),
            ChildSpec::supervisor(sup("api_sup", OneForOne, numbers.doors, doors)),
            ChildSpec::supervisor(sup("drain_sup", OneForOne, numbers.workers, drainer)),
        ],
    )
}

fn worker<S: Server>(name: &str, address: Slot<S::Msg>, args: S::Args, stops_within: Duration) -> ChildSpec {
    ChildSpec::worker::<S>(name, address, args).shutdown(Shutdown::After(stops_within))
}
