//! Addresses: through restarts, with bounds, with deadlines.

use std::time::Duration;

use ductile_otp::{
    CallError, CastError, ChildSpec, Cx, Exit, Message, Reply, Server, Slot, StartInfo, Strategy, Timer,
};

use crate::kit::*;

async fn one() -> (Rig, Slot<Msg>, Log) {
    let log = Log::default();
    let a = Slot::new(2, 5);
    let rig = start(sup("root", Strategy::OneForOne, 9, vec![probe("a", &a, &log)])).await;
    (rig, a, log)
}

#[tokio::test(start_paused = true)]
async fn an_address_is_the_same_after_a_restart() {
    let (rig, a, _) = one().await;
    for incarnation in 1..5 {
        assert_eq!(who(&a).await, incarnation);
        end(&a, panic());
    }
    assert_eq!(who(&a).await, 5, "the call waited through the restart");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_never_started_is_down_after_the_deadline() {
    let a: Slot<Msg> = slot();
    assert_eq!(a.try_cast(Msg::Panic), Err(CastError::Down));
    assert_eq!(a.call(Msg::Who, Duration::from_secs(1)).await, Err(CallError::Down));
}

/// SUP-13: mailboxes are bounded.
#[tokio::test(start_paused = true)]
async fn a_full_mailbox_refuses() {
    let (rig, a, _) = one().await;
    a.try_cast(Msg::Nap(Duration::from_secs(60))).expect("room");
    a.try_cast(Msg::Note("queued")).expect("room");
    assert_eq!(a.try_cast(Msg::Note("too many")), Err(CastError::Overloaded));
    assert_eq!(a.call(Msg::Who, Duration::from_secs(1)).await, Err(CallError::Overloaded));
    assert_eq!(rig.node("root/a").mailbox.map(|mailbox| (mailbox.len, mailbox.cap)), Some((2, 2)));
    assert_eq!(a.call(Msg::Who, SOON * 10).await, Ok(1), "a longer deadline gets through");
    assert_eq!((a.len(), a.capacity()), (0, 2));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_kept_keeps_its_place() {
    let (rig, a, _) = one().await;
    let (x, y) = (a.clone(), a.clone());
    let first = tokio::spawn(async move { x.call(Msg::Keep, SOON).await });
    let second = tokio::spawn(async move { y.call(Msg::Keep, SOON).await });
    settle().await;
    assert_eq!(a.len(), 2);
    assert_eq!(a.try_cast(Msg::AnswerKept), Err(CastError::Overloaded));
    a.wake(|| Msg::AnswerKept);
    assert_eq!((first.await.expect("task"), second.await.expect("task")), (Ok(1), Ok(1)));
    assert_eq!(a.len(), 0);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn wake_ups_are_coalesced() {
    let (rig, a, log) = one().await;
    a.try_cast(Msg::Nap(Duration::from_secs(1))).expect("room");
    for _ in 0..100 {
        a.wake(|| Msg::Note("woken"));
    }
    who(&a).await;
    assert_eq!(log.take(), ["+a", "woken"]);
    a.wake(|| Msg::Note("again"));
    who(&a).await;
    assert_eq!(log.take(), ["again"]);
    end(&a, panic());
    assert_eq!(who(&a).await, 2);
    a.wake(|| Msg::Note("after a restart"));
    who(&a).await;
    assert_eq!(log.take().last().map(String::as_str), Some("after a restart"));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_in_hand_at_a_crash_gets_crashed_and_a_queued_one_down() {
    let (rig, a, _) = one().await;
    let x = a.clone();
    let in_hand = tokio::spawn(async move { x.call(Msg::Keep, SOON).await });
    settle().await;
    // The only free place: the mailbox holds two.
    a.try_cast(Msg::Panic).expect("room");
    assert_eq!(in_hand.await.expect("task"), Err(CallError::Crashed));
    rig.up("root/a", 2).await;
    a.try_cast(Msg::Nap(Duration::from_secs(600))).expect("room");
    let y = a.clone();
    let queued = tokio::spawn(async move { y.call(Msg::Who, SOON * 10).await });
    settle().await;
    rig.tree.ctl().kill("root/a");
    assert_eq!(queued.await.expect("task"), Err(CallError::Down));
    rig.stop().await;
}

/// Pitfall 16: a stop overtakes the queue; whoever waits there hears of it before the long `terminate` is over.
#[tokio::test(start_paused = true)]
async fn queued_calls_hear_of_a_stop_at_once() {
    let log = Log::default();
    let a = slot();
    let slow =
        ChildSpec::worker::<Probe>("a", a.clone(), Args { slow_stop: Duration::from_secs(100), ..args("a", &log) })
            .shutdown(within(200_000));
    let rig = start(sup("root", Strategy::OneForOne, 1, vec![slow])).await;
    a.try_cast(Msg::Nap(Duration::from_secs(1))).expect("room");
    let x = a.clone();
    let begun = tokio::time::Instant::now();
    let queued = tokio::spawn(async move { (x.call(Msg::Who, Duration::from_secs(1000)).await, begun.elapsed()) });
    settle().await;
    let stopping = tokio::spawn(async move { rig.root.stop("over", Duration::from_secs(1000)).await });
    let (answer, took) = queued.await.expect("task");
    assert_eq!(answer, Err(CallError::Down));
    assert!(took < Duration::from_secs(2), "{took:?}");
    stopping.await.expect("task");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_times_out_and_a_question_taken_back_is_not_begun() {
    let (rig, a, log) = one().await;
    a.try_cast(Msg::Nap(Duration::from_secs(10))).expect("room");
    assert_eq!(a.call(Msg::Keep, Duration::from_secs(1)).await, Err(CallError::Timeout));
    assert_eq!(who(&a).await, 1);
    assert_eq!(a.len(), 0, "the abandoned question was dropped, not kept");
    assert_eq!(a.call(Msg::Keep, Duration::from_secs(1)).await, Err(CallError::Timeout));
    assert_eq!(a.len(), 1, "this one was begun");
    assert_eq!(log.take(), ["+a"]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cast_waits_for_room() {
    let (rig, a, log) = one().await;
    a.try_cast(Msg::Nap(Duration::from_secs(1))).expect("room");
    a.try_cast(Msg::Note("second")).expect("room");
    a.cast(Msg::Note("third"), SOON).await.expect("room in time");
    who(&a).await;
    assert_eq!(log.take(), ["+a", "second", "third"]);
    rig.stop().await;
}

/// Calls another actor when told to, and sets timers.
struct Caller {
    target: Slot<Msg>,
    timer: Option<Timer>,
    ticks: u32,
}

enum Order {
    CallTarget(Reply<Result<u64, CallError>>),
    Arm(Duration),
    ArmThenDrop,
    Tick,
    Ticks(Reply<u32>),
    Die,
}

impl Message for Order {
    fn kind(&self) -> &'static str {
        "Order"
    }
}

impl Server for Caller {
    type Msg = Order;
    type Args = Slot<Msg>;

    async fn init(target: Slot<Msg>, _cx: &Cx<Self>, _start: StartInfo) -> Result<Self, Exit> {
        Ok(Self { target, timer: None, ticks: 0 })
    }

    async fn handle(&mut self, cx: &Cx<Self>, msg: Order) -> Result<(), Exit> {
        match msg {
            Order::CallTarget(reply) => reply.send(self.target.call(Msg::Who, SOON).await),
            Order::Arm(time) => self.timer = Some(cx.send_after(time, Order::Tick)),
            Order::ArmThenDrop => {
                self.timer = Some(cx.send_after(Duration::ZERO, Order::Tick));
                // Long enough for the tick to be in the mailbox.
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.timer = None;
            }
            Order::Tick => self.ticks += 1,
            Order::Ticks(reply) => reply.send(self.ticks),
            Order::Die => return Err(Exit::Error("told to".into())),
        }
        Ok(())
    }
}

async fn caller(rank: u8) -> (Rig, Slot<Order>) {
    let log = Log::default();
    let (target, orders) = (slot(), Slot::new(8, rank));
    let children =
        vec![probe("target", &target, &log), ChildSpec::worker::<Caller>("caller", orders.clone(), target.clone())];
    (start(sup("root", Strategy::OneForOne, 9, children)).await, orders)
}

/// SUP-13: no circle of waiting actors.
#[tokio::test(start_paused = true)]
async fn calls_go_towards_lower_ranks_only() {
    let (rig, orders) = caller(6).await;
    assert_eq!(orders.call(Order::CallTarget, SOON).await, Ok(Ok(1)));
    rig.stop().await;
    for rank in [5, 4] {
        let (rig, orders) = caller(rank).await;
        assert_eq!(orders.call(Order::CallTarget, SOON).await, Err(CallError::Crashed));
        let report = rig.find("actor.crashed").expect("a crash").report.expect("a report");
        assert!(report.reason.contains("may not call root/target (rank 5)"), "{}", report.reason);
        assert_eq!(rig.tree.rank_violations(), 1);
        rig.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_timer_takes_its_message_back_even_from_the_mailbox() {
    let (rig, orders) = caller(6).await;
    orders.try_cast(Order::ArmThenDrop).expect("room");
    assert_eq!(orders.call(Order::Ticks, SOON).await, Ok(0));
    orders.try_cast(Order::Arm(Duration::from_secs(1))).expect("room");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(orders.call(Order::Ticks, SOON).await, Ok(1));
    rig.stop().await;
}

/// Pitfall 15: timers of a former incarnation.
#[tokio::test(start_paused = true)]
async fn a_timer_dies_with_its_incarnation() {
    let (rig, orders) = caller(6).await;
    orders.try_cast(Order::Arm(Duration::from_secs(5))).expect("room");
    orders.try_cast(Order::Die).expect("room");
    rig.up("root/caller", 2).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(orders.call(Order::Ticks, SOON).await, Ok(0));
    rig.stop().await;
}
