//! What pipelines cost: to compile many of them, and to find out what follows one event.
//!
//! `cargo run --release -p ductile-domain --example pipelines_cost`

use std::hint::black_box;
use std::time::{Duration, Instant};

use ductile_domain::pipeline::Pipelines;
use ductile_domain::plan::plan;
use serde_json::{Value, json};

#[path = "../tests/pipelines/world.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod world;

const STEPS: usize = 20;

/// Pipelines of 20 steps, each with an event of its own, with decisions, claims and templates.
fn pipelines(count: usize) -> Value {
    let step = |i: usize| match i % 4 {
        0 => json!({"id": format!("s{i}"), "uses": "a", "baggage": {format!("k{i}"): "payload.n"}}),
        1 => json!({"uses": "b.poll", "with": {"text": "n is {payload.n} of {context.k0}", "n": "{payload.n}"}}),
        2 => {
            json!({"uses": "c", "if": {"all": [{"path": "payload.n", "op": "gt", "value": 3}, {"path": "payload.s", "op": "contains", "value": "x"}]}})
        }
        _ => json!({"uses": "d", "payload": {"literal": true}}),
    };
    let steps: Vec<Value> = (0..STEPS).map(step).collect();
    let one = |i: usize| json!({"name": format!("p{i}"), "on": format!("event.{i}"), "steps": steps});
    (0..count).map(one).collect()
}

fn best(times: usize, mut act: impl FnMut()) -> Duration {
    let once = |_| {
        let begun = Instant::now();
        act();
        begun.elapsed()
    };
    (0..times).map(once).min().unwrap_or_default()
}

fn main() {
    println!(
        "{:>10} {:>14} {:>16} {:>16} {:>18}",
        "pipelines", "compile (ms)", "1 match (us)", "no match (us)", "outside, no (us)"
    );
    for count in [10, 100, 1_000] {
        let written = pipelines(count);
        let config = world::config(written.clone(), json!([]));
        let catalog = world::catalog(&config);
        let compile = best(5, || {
            black_box(Pipelines::compile(&config, &catalog));
        });
        let (generation, problems) = world::compile(written, json!([]));
        assert!(problems.is_empty(), "{problems:?}");
        let mut fresh = world::counter();
        let mut resolve = |kind: &str, context: Option<&str>| {
            let mut job = world::job("a", "poll");
            job.context = context.map(world::raw);
            let outcome = world::success(vec![world::event(kind, r#"{"n":5,"s":"xyz","other":[1,2,3]}"#)]);
            let (rounds, now) = (2_000_u32, world::now());
            let all = best(5, || {
                for _ in 0..rounds {
                    black_box(plan(&generation, &job, &outcome, now, &mut fresh));
                }
            });
            all.as_secs_f64() * 1e6 / f64::from(rounds)
        };
        let control = r#"{"origin_plugin":"a","k":{"a":1},"ductile":{"route_depth":3,"route_max_depth":20}}"#;
        let found = resolve(&format!("event.{}", count / 2), Some(control));
        let unheard = resolve("event.none", Some(control));
        let outside = resolve("event.none", None);
        println!("{count:>10} {:>14.1} {found:>16.2} {unheard:>16.2} {outside:>18.3}", compile.as_secs_f64() * 1e3);
    }
    println!("{:>10} {:>14}", "matches", "plan (us)");
    for matches in [1, 10, 100] {
        let mut written = pipelines(matches);
        for pipeline in written.as_array_mut().into_iter().flatten() {
            pipeline["on"] = "same".into();
        }
        let generation = world::sound(written);
        let outcome = world::success(vec![world::event("same", r#"{"n":5,"s":"xyz"}"#)]);
        let (job, mut fresh) = (world::job("a", "poll"), world::counter());
        let took = best(200, || {
            black_box(plan(&generation, &job, &outcome, world::now(), &mut fresh));
        });
        println!("{matches:>10} {:>14.1}", took.as_secs_f64() * 1e6);
    }
}
