//! No two incarnations at a time, whatever way they die; a tree that heals from anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ductile_otp::{
    Backoff, ChildSpec, Cx, Exit, Intensity, Message, Phase, Server, Slot, StartInfo, Strategy, SupervisorSpec,
};

use crate::kit::*;

#[derive(Default)]
struct Census {
    alive: AtomicU32,
    most: AtomicU32,
}

/// Takes its time to drop.
struct Slow(Arc<Census>);

enum Die {
    Panic,
    Error,
    Normal,
}

impl Message for Die {
    fn kind(&self) -> &'static str {
        "Die"
    }
}

impl Server for Slow {
    type Msg = Die;
    type Args = Arc<Census>;

    async fn init(census: Arc<Census>, _cx: &Cx<Self>, _start: StartInfo) -> Result<Self, Exit> {
        let alive = census.alive.fetch_add(1, Ordering::SeqCst) + 1;
        census.most.fetch_max(alive, Ordering::SeqCst);
        Ok(Self(census))
    }

    async fn handle(&mut self, _cx: &Cx<Self>, msg: Die) -> Result<(), Exit> {
        match msg {
            Die::Panic => panic!("told to"),
            Die::Error => Err(Exit::Error("told to".into())),
            Die::Normal => Err(Exit::Normal),
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_millis(3));
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// OTP: child_unlink and the exit signals of gen_server; the successor starts after the state of its predecessor is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn never_two_incarnations_at_a_time() {
    let census = Arc::new(Census::default());
    let slot: Slot<Die> = Slot::new(4, 5);
    let spec = SupervisorSpec {
        name: "root".into(),
        strategy: Strategy::OneForOne,
        intensity: Intensity::new(1_000, Duration::from_secs(1)),
        backoff: Backoff::none(),
        children: vec![ChildSpec::worker::<Slow>("slow", slot.clone(), Arc::clone(&census))],
    };
    let rig = start(spec).await;
    for n in 1..=150_u64 {
        rig.up("root/slow", n).await;
        match n % 5 {
            0 => slot.cast(Die::Panic, SOON).await.expect("it is up"),
            1 => slot.cast(Die::Error, SOON).await.expect("it is up"),
            2 => slot.cast(Die::Normal, SOON).await.expect("it is up"),
            3 => assert!(rig.tree.ctl().kill("root/slow")),
            _ => drop(rig.tree.restarts().restart("root/slow").expect("its supervisor is up")),
        }
    }
    rig.up("root/slow", 151).await;
    assert_eq!(census.most.load(Ordering::SeqCst), 1);
    rig.stop().await;
    assert_eq!(census.alive.load(Ordering::SeqCst), 0);
}

/// SUP-04: 300 rounds of kills and panics anywhere, supervisors included: always whole again, and ordered.
#[tokio::test(start_paused = true)]
async fn a_tree_heals_from_any_fault() {
    let log = Log::default();
    let slots: Vec<_> = (0..6).map(|_| slot()).collect();
    let child = |n: usize| probe(&format!("w{n}"), &slots[n], &log);
    let unlimited = 1_000_000;
    let left = sup("left", Strategy::OneForAll, unlimited, vec![child(0), child(1)]);
    let right = sup("right", Strategy::RestForOne, unlimited, vec![child(2), child(3), child(4)]);
    let spec = sup(
        "root",
        Strategy::RestForOne,
        unlimited,
        vec![ChildSpec::supervisor(left), child(5), ChildSpec::supervisor(right)],
    );
    let rig = start(spec).await;
    let paths = [
        "root/left",
        "root/left/w0",
        "root/left/w1",
        "root/w5",
        "root/right",
        "root/right/w2",
        "root/right/w3",
        "root/right/w4",
    ];
    let ctl = rig.tree.ctl();
    let mut seed = 7_u64;
    let mut next = move |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).expect("31 bits") % n
    };
    for _ in 0..300 {
        for _ in 0..=next(3) {
            match next(3) {
                0 => drop(ctl.kill(paths[next(paths.len())])),
                1 => drop(slots[next(slots.len())].try_cast(Msg::Panic)),
                _ => drop(ctl.fail_start(paths[next(paths.len())], 2)),
            }
        }
        for slot in &slots {
            who(slot).await;
        }
        for path in paths {
            rig.until(path, |node| node.phase == Phase::Up).await;
        }
        for name in ["w0", "w1", "w2", "w3", "w4", "w5"] {
            let (mut alive, mut most) = (0, 0);
            for line in log.lines() {
                match line.strip_suffix(name) {
                    Some("+") => alive += 1,
                    Some("~") => alive -= 1,
                    _ => {}
                }
                most = most.max(alive);
            }
            assert_eq!((alive, most), (1, 1), "{name}");
        }
        log.take();
        for n in 0..6 {
            log.add(format!("+w{n}"));
        }
    }
    rig.stop().await;
}
