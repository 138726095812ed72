//! Frames of the live screen, without a terminal.

use serde_json::json;

use super::*;
use crate::client::Target;

fn tree(boot: &str, incarnation: u64) -> Tree {
    let worker = json!({
        "path": "root/router", "name": "router", "kind": "worker", "restart": "permanent", "phase": "up",
        "incarnation": incarnation, "restarts": incarnation - 1, "started_at": "2026-01-01T00:00:00Z", "children": []
    });
    let root = json!({
        "path": "root", "name": "root", "kind": "supervisor", "strategy": "rest_for_one", "restart": "permanent",
        "phase": "up", "incarnation": 1, "restarts": 0, "started_at": "2026-01-01T00:00:00Z", "children": [worker]
    });
    Tree {
        boot_id: boot.into(),
        generation: 1,
        root: serde_json::from_value(root).expect("a tree"),
        document: serde_json::Value::Null,
    }
}

fn live() -> Live {
    let client = Client::new(Target::Socket("/run/ductile.sock".into()), None);
    Live::new(&client, tree("b1", 1), true)
}

fn event(kind: &str, data: serde_json::Value) -> Update {
    Update::Event(Frame { id: "b1-1".into(), kind: kind.into(), data })
}

const SIZE: Size = Size { columns: 60, rows: 12 };

#[test]
fn a_restarted_actor_stands_out_and_its_event_is_listed() {
    let mut live = live();
    live.take(event("actor.crashed", json!({"path": "root/router", "reason": "panic: boom\nhere"})));
    live.take(Update::Tree(Box::new(tree("b1", 2))));
    let lines = live.lines(SIZE);
    assert_eq!(lines.len(), SIZE.rows);
    assert!(lines[4].starts_with("\x1b[1;7m└─ router"), "{lines:#?}");
    assert!(lines.iter().any(|l| l.contains("actor.crashed") && l.contains("root/router")), "{lines:#?}");
}

#[test]
fn the_screen_says_that_the_gateway_is_away_and_when_it_is_back() {
    let mut live = live();
    live.take(Update::Lost("the connection broke\nbadly".into()));
    live.take(Update::Lost("no such socket".into()));
    let lines = live.lines(SIZE);
    assert!(lines[0].contains("AWAY for") && lines[0].contains("no such socket"), "{lines:#?}");
    assert_eq!(lines.iter().filter(|l| l.contains("the gateway is away")).count(), 1);
    live.take(Update::Tree(Box::new(tree("b2", 1))));
    let lines = live.lines(SIZE);
    assert!(lines[0].contains("boot b2"), "{lines:#?}");
    assert!(lines.iter().any(|l| l.contains("was started again")), "{lines:#?}");
    assert!(live.changed.is_empty(), "a new boot is no restart of its actors");
}

#[test]
fn a_small_terminal_gets_as_many_lines_as_it_has() {
    let mut live = live();
    for n in 0..RECENT + 5 {
        live.take(event("job.completed", json!({"job_id": n, "plugin": "echo", "status": "succeeded"})));
    }
    assert_eq!(live.recent.len(), RECENT);
    for rows in 1..40 {
        assert_eq!(live.lines(Size { columns: 30, rows }).len(), rows);
    }
    let last = live.lines(SIZE);
    assert!(last.iter().any(|l| l.contains("204")), "the newest event is shown: {last:#?}");
}

#[test]
fn nothing_in_an_event_reaches_the_terminal_unfiltered() {
    let frame = Frame { id: String::new(), kind: "actor.exited".into(), data: json!({"reason": "\x1b[2J"}) };
    assert!(!event_text(&frame).contains('\x1b'));
}
