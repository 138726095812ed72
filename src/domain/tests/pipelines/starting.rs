//! Pipelines that a door starts.

use ductile_domain::pipeline::{Origin, StartFault};
use serde_json::json;

use crate::run::origin;
use crate::world::{counter, raw, sound, value};

/// API-06: every first job, in order, asked for by the caller; conditions and `from_plugin` are not asked.
#[test]
fn a_start_enqueues_what_the_pipeline_begins_with() {
    let generation = sound(json!([{
        "name": "p", "on": "e", "from_plugin": "c", "if": {"path": "payload.never", "op": "exists"},
        "steps": [{"split": [{"id": "l", "uses": "a"}, {"id": "r", "uses": "a"}]}, {"id": "end", "uses": "b", "join": "all"}],
    }]));
    let pipeline = generation.pipelines.get("p").expect("compiled");
    let keyed = Origin { dedupe_key: Some("once"), dedupe_in_flight: true, ..origin() };
    let start = generation.pipelines.start(pipeline, &raw(r#"{"k":1}"#), &keyed, &mut counter()).expect("it starts");
    let keys: Vec<_> = start.jobs.iter().map(|job| job.target_key.as_str()).collect();
    assert_eq!(keys, ["p/l", "p/r"], "one plugin twice, told apart by the target key");
    for job in &start.jobs {
        assert_eq!((job.submitted_by, job.requested_by.as_deref(), job.parent), ("api", Some("someone"), None));
        assert_eq!((job.dedupe_key.as_deref(), job.dedupe_in_flight, job.snapshot), (Some("once"), true, Some(3)));
        let envelope = value(job.payload.as_ref().expect("an envelope"));
        assert_eq!(
            (&envelope["type"], &envelope["payload"], &envelope["source"]),
            (&json!("e"), &json!({"k": 1}), &json!("api"))
        );
    }
    let [join] = start.joins.as_slice() else { panic!("{:?}", start.joins) };
    assert_eq!(join.branches.iter().map(|b| &**b).collect::<Vec<_>>(), ["l", "r"]);
    assert_eq!((&*join.job.plugin, join.job.target_key.as_str(), join.outer), ("core.join", "p/end__join", None));
    assert!(join.job.payload.is_none() && join.job.parent.is_none() && join.job.dedupe_key.is_none());
    let seats: Vec<_> = start.jobs.iter().map(|job| job.seat.expect("a seat")).collect();
    assert_eq!((seats[0].join, seats[0].branch, seats[1].join, seats[1].branch), (join.id, 0, join.id, 1));
    assert_eq!(start.contexts.len(), 3);
}

/// PIP-33, D-36 and the facts: what can't be claimed at the door is the caller's to mend.
#[test]
fn a_start_without_what_it_claims_is_refused() {
    let generation = sound(
        json!([{"name": "p", "on": "e", "steps": [{"id": "x", "uses": "a", "baggage": {"big": "payload.big"}}]}]),
    );
    let pipeline = generation.pipelines.get("p").expect("compiled");
    let start = |payload: &str| generation.pipelines.start(pipeline, &raw(payload), &origin(), &mut counter());
    match start("{}") {
        Err(StartFault::Baggage(text)) => assert!(text.contains("payload.big") && text.contains("\"x\""), "{text}"),
        other => panic!("{other:?}"),
    }
    match start(&json!({"big": "x".repeat(1 << 20)}).to_string()) {
        Err(StartFault::TooLarge { actual, limit }) => assert!(actual > limit && limit == 1 << 20),
        other => panic!("{other:?}"),
    }
    assert!(start(&json!({"big": "x".repeat(1 << 19)}).to_string()).is_ok());
}
