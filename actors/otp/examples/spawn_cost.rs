//! Prints what the start, one call and the end of a short-lived child cost, and what thousands of them leave behind.

use std::time::{Duration, Instant};

use ductile_otp::{
    Backoff, ChildSpec, Cx, DynSupervisor, Exit, Intensity, Message, Reply, Restart, Root, Server, Shutdown, StartInfo,
    Strategy, SupervisorSpec, Tree,
};

struct Job;

enum Msg {
    Ask(Reply<u32>),
    Done,
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Ask(_) => "Ask",
            Self::Done => "Done",
        }
    }
}

impl Server for Job {
    type Msg = Msg;
    type Args = u32;

    async fn init(_args: u32, _cx: &Cx<Self>, _start: StartInfo) -> Result<Self, Exit> {
        Ok(Self)
    }

    async fn handle(&mut self, _cx: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::Ask(reply) => {
                reply.send(42);
                Ok(())
            }
            Msg::Done => Err(Exit::Normal),
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = std::sync::Arc::clone(&ended);
    let jobs = DynSupervisor::new(Intensity::new(0, Duration::from_secs(1)), 10_000).on_exit(move |_, _| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    let spec = SupervisorSpec {
        name: "root".into(),
        strategy: Strategy::OneForOne,
        intensity: Intensity::default(),
        backoff: Backoff::none(),
        children: vec![ChildSpec::dynamic("job_sup", jobs.clone())],
    };
    let root = Root::start(spec, Tree::new(|_| {})).await.expect("the tree starts");
    for (label, rounds, asks) in
        [("warm-up", 20_000, true), ("with a call", 50_000, true), ("without a call", 50_000, false)]
    {
        let (rss, cpu, begun) = (resident_kib(), cpu_time(), Instant::now());
        for n in 0..rounds {
            let job = jobs
                .start_child::<Job>(format!("job:{n}"), n, Restart::Temporary, Shutdown::After(Duration::from_secs(1)))
                .await
                .expect("a job starts");
            if asks {
                job.call(Msg::Ask, Duration::from_secs(1)).await.expect("a job answers");
            }
            job.try_cast(Msg::Done).expect("a job is up");
        }
        while jobs.count() > 0 {
            tokio::task::yield_now().await;
        }
        let per = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(rounds);
        println!(
            "{label}: {:.1} µs wall, {:.1} µs cpu per start+stop; {} KiB more resident after {rounds}",
            per(begun.elapsed()),
            per(cpu_time() - cpu),
            resident_kib() - rss,
        );
    }
    println!("{} ends were told", ended.load(std::sync::atomic::Ordering::Relaxed));
    root.stop("done", Duration::from_secs(5)).await;
}

fn resident_kib() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<i64>().ok()).expect("a number of pages") * 4
}

/// User and system time of this process, in ticks of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let after = stat.rsplit(')').next().expect("a command in brackets");
    let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
