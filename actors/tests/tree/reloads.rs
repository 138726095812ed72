//! Reloads while actors die: what was committed comes into force, and whoever missed it heals by its restart.

use std::fs;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ductile_api::gateway::{Gateway as _, Refusal};

use crate::gateway::{Gateway, patient_numbers};

const CONFIG: &str = "root/control_sup/config";
const LEDGER: &str = "root/storage_sup/ledger";
const DISPATCHER: &str = "root/exec_sup/dispatcher";
const HTTP: &str = "root/api_sup/http";

fn edit(gateway: &Gateway, from: &str, to: &str) {
    let path = gateway.path("config.yaml");
    let text = fs::read_to_string(&path).expect("the configuration");
    assert!(text.contains(from), "{from:?} is not in it:\n{text}");
    fs::write(path, text.replace(from, to)).expect("the configuration");
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn is_open(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// SUP-11, SUP-13: whoever dies at whatever moment of a reload, the newest row of the ledger and the generation in force
/// agree in the end, jobs run under one generation each, and no reload hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_and_deaths_of_actors_end_in_one_generation() {
    let gateway = Gateway::start(2, patient_numbers()).await;
    let over = Arc::new(AtomicBool::new(false));
    let (handle, stop) = (gateway.handle().clone(), over.clone());
    let killer = tokio::spawn(async move {
        let mut victims =
            [CONFIG, LEDGER, DISPATCHER, HTTP, "root/policy_sup/router", "root/flow_sup/scheduler"].iter().cycle();
        while !stop.load(Ordering::Acquire) {
            handle.shared().tree.ctl().kill(victims.next().expect("endless"));
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    });
    let mut jobs = Vec::new();
    let (mut done, mut refused) = (0, 0);
    while done < 30 {
        match gateway.handle().reload("a test".to_owned()).await {
            Ok(_) => done += 1,
            Err(Refusal::Unavailable { .. }) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
        jobs.push(gateway.enqueue("work", "ok").await);
    }
    over.store(true, Ordering::Release);
    killer.await.expect("no panic");
    for job in jobs {
        assert_eq!(gateway.finished(job).await, "succeeded");
    }
    let last =
        gateway.until("a reload in peace", async || gateway.handle().reload("a test".to_owned()).await.ok()).await;
    let newest = gateway.sql_one("SELECT max(id) FROM config_snapshots").await;
    let generation = gateway.handle().generation();
    assert_eq!((generation.no, generation.snapshot), (last.generation, newest.parse().ok()), "{refused} were cut off");
    drop(generation);
    gateway.until("the others are freed", async || (gateway.handle().generations().len() == 1).then_some(())).await;
    gateway.stop().await;
}

/// OPS-07: an http actor that does not take the new address in time is restarted, and serves it then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_misses_the_change_is_restarted_into_it() {
    let (old, new) = (free_port(), free_port());
    let api = format!("  enabled: true\n  listen: 127.0.0.1:{old}\n");
    let gateway = Gateway::start_with(2, 2, &api, patient_numbers()).await;
    let before = gateway.incarnation(HTTP);
    assert!(gateway.ctl().stall(HTTP, Duration::from_secs(4)));
    edit(&gateway, &format!("127.0.0.1:{old}"), &format!("127.0.0.1:{new}"));
    gateway.handle().reload("a test".to_owned()).await.expect("reloaded");
    gateway.up_again(HTTP, before).await;
    gateway.until("the new address is served", async || is_open(new).then_some(())).await;
    gateway.until("the old one is closed", async || (!is_open(old)).then_some(())).await;
    gateway.stop().await;
}

/// SUP-11: an http actor that dies in between serves the new address from its next start on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_dies_at_the_change_starts_under_it() {
    let (old, new) = (free_port(), free_port());
    let api = format!("  enabled: true\n  listen: 127.0.0.1:{old}\n");
    let gateway = Gateway::start_with(2, 2, &api, patient_numbers()).await;
    assert!(gateway.ctl().panic_next(HTTP, Some("Listen")));
    edit(&gateway, &format!("127.0.0.1:{old}"), &format!("127.0.0.1:{new}"));
    gateway.handle().reload("a test".to_owned()).await.expect("reloaded");
    gateway.until("the new address is served", async || is_open(new).then_some(())).await;
    gateway.until("the old one is closed", async || (!is_open(old)).then_some(())).await;
    gateway.stop().await;
}

/// SUP-11: the ledger stands still: the reload waits, gives up with a reason, and has changed nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_ledger_does_not_record_does_not_come_into_force() {
    let gateway = Gateway::start(2, patient_numbers()).await;
    let mut other =
        sqlx::ConnectOptions::connect(&sqlx::sqlite::SqliteConnectOptions::new().filename(gateway.path("ductile.db")))
            .await
            .expect("the file opens");
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.expect("the write lock");
    let refused = gateway.handle().reload("a test".to_owned()).await.expect_err("nobody else may write");
    assert!(matches!(refused, Refusal::Unavailable { .. }), "{refused:?}");
    assert_eq!(gateway.handle().generation().no, 1);
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.expect("given back");
    assert_eq!(gateway.handle().reload("a test".to_owned()).await.expect("reloaded").generation, 2);
    gateway.stop().await;
}
