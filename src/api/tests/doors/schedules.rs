//! Schedules, ticks and breakers: what is due, what became of it, why, and an operator's hand on them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use chrono::TimeDelta;
use chrono_tz::Tz;
use ductile_api::gateway::Gateway;
use ductile_domain::job::NewJob;
use ductile_domain::schedule::{
    CatchUp, Cron, EntryStatus, Expected, IfRunning, Rule, Schedule, TickReason, TickStatus, Timing, Weekdays, Window,
};
use ductile_domain::time::{self, Timestamp};
use ductile_ledger::{Arrangement, Due, Ended, Ticked};
use serde_json::json;

use crate::harness::{Door, Fake, job, request};
use crate::jobs::new_job;

const SYDNEY: Tz = Tz::Australia__Sydney;

/// The schedules of the fake's `echo`. Two are called like routes.
pub(crate) fn schedules() -> Vec<Arc<Schedule>> {
    let timing = |rule| Timing::new(rule, Duration::ZERO, SYDNEY, None, Weekdays::default());
    let cron = Cron::parse("30 2 * * *").expect("an expression");
    let at = time::parse("2030-01-01T00:00:00Z").expect("a time");
    let all = [
        ("default", "poll", timing(Rule::Every(Duration::from_secs(300)))),
        ("pause", "poll", timing(Rule::Cron(cron))),
        ("resume", "poll", timing(Rule::At(at))),
        ("write", "handle", timing(Rule::After(Duration::from_secs(30)))),
        ("broken", "poll", Err("nothing says when it is due".to_owned())),
    ];
    let schedules = all.into_iter().enumerate().map(|(index, (id, command, timing))| Schedule {
        plugin: "echo".into(),
        index,
        id: id.into(),
        command: command.into(),
        payload: None,
        timing,
        catch_up: CatchUp::default(),
        if_running: IfRunning::default(),
    });
    schedules.map(Arc::new).collect()
}

fn at(text: &str) -> Timestamp {
    time::parse(text).expect("a time")
}

impl Fake {
    fn fingerprint(&self, id: &str) -> Option<Arc<str>> {
        let generation = self.generation();
        let schedule = generation.schedules.get("echo", id).expect("a schedule");
        schedule.timing.as_ref().ok().map(|timing| timing.fingerprint.clone())
    }

    /// What the scheduler would write of a schedule of `echo`.
    async fn arrange(&self, id: &str, status: EntryStatus, expect: &[Timestamp], ended: Vec<Ended>) {
        let generation = self.generation();
        let schedule = generation.schedules.get("echo", id).expect("a schedule");
        let arrangement = Arrangement {
            plugin: "echo".into(),
            schedule: id.into(),
            command: schedule.command.clone(),
            status,
            reason: schedule.timing.as_ref().err().cloned(),
            fingerprint: self.fingerprint(id),
            anchor: Some(at("2026-01-01T00:00:00Z")),
            armed_by: None,
            others_end: (TickStatus::Skipped, TickReason::Replaced),
            ended,
            expect: expect.iter().map(|instant| Expected { instant: *instant, due: *instant }).collect(),
            is_removed: false,
        };
        self.ledger.writer.arrange(vec![arrangement]).await.expect("answered").remove(0).expect("arranged");
    }

    /// Fires a tick; its job is that number.
    async fn tick(&self, id: &str, instant: Timestamp, number: u128) -> Ticked {
        let due = Due {
            plugin: "echo".into(),
            schedule: id.into(),
            fingerprint: self.fingerprint(id).expect("a fingerprint"),
            instant,
            due: instant,
            is_catch_up: false,
            is_late: false,
            skip: None,
            job: NewJob {
                submitted_by: "scheduler",
                requested_by: Some(id.to_owned()),
                max_attempts: 1,
                ..new_job(job(number), "poll")
            },
            if_running: IfRunning::Skip,
            guard: None,
            next: Some(Expected { instant: instant + TimeDelta::minutes(5), due: instant + TimeDelta::minutes(5) }),
            is_last: false,
            passed: Vec::new(),
        };
        self.ledger.writer.tick(vec![due], self.generation().no).await.expect("answered").remove(0)
    }
}

/// API shape of facts.md, SCH-21: one line for each schedule, also for those without a row.
#[tokio::test]
async fn the_schedules_are_listed_with_their_rows() {
    let door = Door::new().await;
    let (first, second) = (at("2026-01-01T00:05:00Z"), at("2026-01-01T00:10:00Z"));
    door.fake.arrange("default", EntryStatus::Active, &[first], Vec::new()).await;
    assert!(matches!(door.fake.tick("default", first, 1).await, Ticked::Fired { .. }));
    door.fake.run(job(1), None).await;
    let listed = door.get("/scheduler/jobs").await.json();
    let jobs = listed["jobs"].as_array().expect("a list");
    let ids: Vec<&str> = jobs.iter().filter_map(|job| job["schedule_id"].as_str()).collect();
    assert_eq!(ids, ["broken", "default", "pause", "resume", "write"]);
    assert_eq!(
        jobs[0],
        json!({"plugin": "echo", "schedule_id": "broken", "command": "poll", "mode": "invalid",
            "status": "paused_invalid", "reason": "nothing says when it is due"})
    );
    let mut default = jobs[1].clone();
    for key in ["last_fired_at", "last_success_at"] {
        assert!(default.as_object_mut().expect("an object").remove(key).is_some_and(|at| at.is_string()), "{key}");
    }
    assert_eq!(
        default,
        json!({"plugin": "echo", "schedule_id": "default", "command": "poll", "mode": "every", "rule": "every 5m",
            "status": "active", "timezone": "Australia/Sydney", "next_run_at": time::format(second),
            "last_success_job_id": job(1)})
    );
    let cron = (&jobs[2]["mode"], &jobs[2]["rule"], &jobs[2]["status"]);
    assert_eq!(cron, (&json!("cron"), &json!("cron 30 2 * * *"), &json!("active")));
    assert_eq!(door.get("/scheduler/jobs?plugin=parrot").await.json(), json!({"jobs": []}));
    door.get("/scheduler/jobs?plugin=ech").await.refused(404, "unknown_plugin");
    door.get("/scheduler/jobs?plugins=echo").await.refused(400, "invalid_parameter");
}

/// A plugin that can't be loaded keeps its schedules: they are listed and explained, and can be paused until it is back.
#[tokio::test]
async fn the_schedules_of_a_plugin_that_is_not_there_are_shown_and_paused() {
    let fake = Fake::new(&[]).await;
    fake.lose_plugins();
    let door = Door::of(fake);
    let listed = door.get("/scheduler/jobs?plugin=echo").await.json();
    let ids: Vec<_> = listed["jobs"].as_array().into_iter().flatten().map(|job| job["schedule_id"].clone()).collect();
    assert_eq!(ids, ["broken", "default", "pause", "resume", "write"]);
    assert_eq!(door.get("/scheduler/echo/default").await.json()["schedule_id"], "default");
    for path in ["/scheduler/echo/default/pause", "/scheduler/echo/pause", "/scheduler/echo/default/resume"] {
        assert_eq!(door.post(path, Body::empty()).await.status, StatusCode::OK, "{path}");
    }
}

/// SCH-21: every tick with its end, by plugin, schedule and status, page by page.
#[tokio::test]
async fn ticks_are_listed_with_their_ends() {
    let door = Door::new().await;
    let instant = |minutes| at("2026-01-01T00:00:00Z") + TimeDelta::minutes(minutes);
    let missed = |minutes| Ended {
        instant: instant(minutes),
        due: instant(minutes),
        last: None,
        status: TickStatus::Missed,
        reason: TickReason::GatewayDown,
    };
    door.fake.arrange("default", EntryStatus::Active, &[instant(20)], vec![missed(5), missed(10), missed(15)]).await;
    door.fake.arrange("pause", EntryStatus::Active, &[instant(60)], Vec::new()).await;
    door.fake.tick("default", instant(20), 1).await;
    let all = door.get("/scheduler/ticks?plugin=echo&schedule=default").await.json();
    let ticks = all["ticks"].as_array().expect("a list");
    assert_eq!(ticks.len(), 5);
    let fired = ticks.iter().find(|tick| tick["status"] == "fired").expect("one has fired");
    assert_eq!(
        (&fired["instant"], &fired["job_id"], &fired["schedule_id"]),
        (&json!(time::format(instant(20))), &json!(job(1)), &json!("default"))
    );
    let missed = door.get("/scheduler/ticks?status=missed&limit=2").await.json();
    assert_eq!(missed["ticks"].as_array().map(Vec::len), Some(2));
    assert_eq!(missed["ticks"][0]["reason"], "gateway_down");
    let rest = door.get(&format!("/scheduler/ticks?status=missed&limit=2&before={}", missed["next"])).await.json();
    assert_eq!((rest["ticks"].as_array().map(Vec::len), rest.get("next")), (Some(1), None));
    assert_eq!(door.get("/scheduler/ticks?status=expected").await.json()["ticks"].as_array().map(Vec::len), Some(2));
    assert_eq!(door.get("/scheduler/ticks?plugin=nobody").await.json()["ticks"], json!([]));
    for (bad, name) in [("status=late", "status"), ("limit=0", "limit"), ("before=x", "before")] {
        let body = door.get(&format!("/scheduler/ticks?{bad}")).await.refused(400, "invalid_parameter");
        assert_eq!(body["context"]["parameter"], name, "{body}");
    }
}

/// What ran, what did not and why, and what is to come: in both zones, over a change of the clocks.
#[tokio::test]
async fn a_schedule_is_explained_over_a_change_of_the_clocks() {
    let fake = Fake::new(&[]).await;
    // Clocks in Sydney go from 02:00 to 03:00 on 4 October 2026, so the rule's 02:30 does not exist on that day.
    let (before, gap) = (at("2026-10-02T16:30:00Z"), at("2026-10-03T16:00:00Z"));
    fake.stand_at(at("2026-10-03T00:00:00Z"));
    let door = Door::of(fake);
    let skipped = Ended {
        instant: before,
        due: before,
        last: None,
        status: TickStatus::Skipped,
        reason: TickReason::BreakerOpen,
    };
    door.fake.arrange("pause", EntryStatus::Active, &[gap], vec![skipped]).await;
    let told = door.get("/scheduler/echo/pause").await.json();
    assert_eq!((&told["schedule_id"], &told["rule"]), (&json!("pause"), &json!("cron 30 2 * * *")));
    assert_eq!(
        told["past"],
        json!([{"instant": "2026-10-02T16:30:00.000Z", "due_at": "2026-10-02T16:30:00.000Z",
            "local": "2026-10-03T02:30:00.000+10:00", "status": "skipped", "reason": "breaker_open",
            "why": TickReason::BreakerOpen.sentence(), "ended_at": told["past"][0]["ended_at"]}])
    );
    let next = told["next"].as_array().expect("a list");
    assert_eq!(next.len(), 10);
    assert_eq!((&next[0]["local"], &next[0]["is_recorded"]), (&json!("2026-10-04T03:00:00.000+11:00"), &json!(true)));
    let note = next[0]["note"].as_str().expect("a note");
    assert!(note.contains("02:30 does not exist") && note.contains("fires at 03:00"), "{note}");
    assert_eq!(next[1]["local"], "2026-10-05T02:30:00.000+11:00");
    assert_eq!(
        (next[1].get("note"), &next[1]["is_recorded"], &next[1]["outlook"]),
        (None, &json!(false), &json!("fire"))
    );
    let verdict = told["verdict"].as_str().expect("a verdict");
    assert!(
        verdict.contains("was skipped: the circuit breaker was open") && verdict.contains("is due at"),
        "{verdict}"
    );
    door.get("/scheduler/echo/paus").await.refused(404, "unknown_schedule");
    let body = door.get("/scheduler/echo/defalt").await.refused(404, "unknown_schedule");
    assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("default")), "{body}");
    door.get("/scheduler/ech/default").await.refused(404, "unknown_plugin");
}

/// D-30, SCH-04, SCH-11: what keeps ticks from firing is said of those to come.
#[tokio::test]
async fn an_explanation_says_what_will_not_fire() {
    let fake = Fake::new(&[]).await;
    fake.stand_at(at("2026-01-02T00:00:00Z"));
    fake.rearrange(|schedules| {
        let window = Window::parse("22:00-05:30").expect("a window");
        let every = Rule::Every(Duration::from_secs(3_600));
        let timing = Timing::new(every, Duration::from_secs(60), Tz::UTC, Some(window), Weekdays::default());
        Arc::make_mut(&mut schedules[0]).timing = timing;
    });
    let door = Door::of(fake);
    door.fake.arrange("default", EntryStatus::Active, &[at("2026-01-02T04:00:00Z")], Vec::new()).await;
    let told = door.get("/scheduler/echo/default").await.json();
    let outlooks: Vec<&str> =
        told["next"].as_array().expect("a list").iter().filter_map(|tick| tick["outlook"].as_str()).collect();
    assert_eq!(outlooks, ["fire", "fire", "skip", "skip", "skip", "skip", "skip", "skip", "skip", "skip"], "{told}");
    assert_eq!(told["next"][2]["reason"], "outside_window");
    assert_eq!((&told["only_between"], &told["jitter"]), (&json!("22:00-05:30"), &json!("60s")));
    assert_eq!((&told["catch_up"], &told["if_running"]), (&json!("skip"), &json!("skip")));
    assert_eq!(told["max_outstanding_polls"], 1);

    assert!(told.get("next_fire").is_none(), "the next does: {told}");
    // more than ten that do not, and jitter brings that of ten in the evening before the opening
    door.fake.stand_at(at("2026-01-02T05:30:00Z"));
    door.fake.arrange("default", EntryStatus::Active, &[at("2026-01-02T06:00:00Z")], Vec::new()).await;
    let told = door.get("/scheduler/echo/default").await.json();
    assert!(told["next"].as_array().is_some_and(|next| next.iter().all(|tick| tick["outlook"] == "skip")), "{told}");
    assert_eq!(
        (&told["next_fire"]["instant"], &told["next_fire"]["outlook"]),
        (&json!("2026-01-02T23:00:00.000Z"), &json!("fire"))
    );
    let verdict = told["verdict"].as_str().expect("a verdict");
    assert!(
        verdict.contains("will be skipped") && verdict.contains("the next one that fires is due at 2026-01-02T2"),
        "{verdict}"
    );

    door.fake.ledger.writer.pause_schedules("echo".into(), None, true).await.expect("paused");
    let told = door.get("/scheduler/echo/default").await.json();
    assert!(told.get("next_fire").is_none(), "{told}");
    assert_eq!((&told["status"], &told["next"][0]["reason"]), (&json!("paused_manual"), &json!("paused")));
    assert!(told["verdict"].as_str().is_some_and(|v| v.contains("ductile schedule resume echo default")), "{told}");

    door.fake.arrange("resume", EntryStatus::PausedManual, &[at("2030-01-01T00:00:00Z")], Vec::new()).await;
    let told = door.get("/scheduler/echo/resume").await.json();
    assert_eq!(
        (told["next"].as_array().map(Vec::len), &told["next"][0]["outlook"]),
        (Some(1), &json!("wait")),
        "{told}"
    );

    // one that will never fire again says whether it has
    let once = at("2030-01-01T00:00:00Z");
    let gone =
        Ended { instant: once, due: once, last: None, status: TickStatus::Skipped, reason: TickReason::PluginGone };
    door.fake.arrange("resume", EntryStatus::Exhausted, &[], vec![gone]).await;
    let told = door.get("/scheduler/echo/resume").await.json();
    let verdict = told["verdict"].as_str().expect("a verdict");
    assert!(
        verdict.contains("will not again; ") && verdict.contains("was skipped: the plugin could not be run"),
        "{verdict}"
    );

    door.fake.arrange("broken", EntryStatus::PausedInvalid, &[], Vec::new()).await;
    let told = door.get("/scheduler/echo/broken").await.json();
    assert_eq!((&told["mode"], &told["next"]), (&json!("invalid"), &json!([])));
    assert!(told["verdict"].as_str().is_some_and(|v| v.contains("nothing says when it is due")), "{told}");
}

/// D-30: pausing and resuming are the administrator's, running needs the right to run that command.
#[tokio::test]
async fn schedules_are_run_paused_and_resumed() {
    let door = Door::with_tokens(&[&["echo:ro"], &["plugin:rw"]]).await;
    let reply = door.post("/scheduler/echo/default/run", Body::empty()).await;
    assert_eq!(
        (reply.status, reply.json()),
        (StatusCode::ACCEPTED, json!({"job_id": job(1), "status": "queued", "plugin": "echo", "command": "poll"}))
    );
    let ask = |token, path| door.ask(request("POST", path, Some(token), Body::empty()));
    assert_eq!(ask("echo:ro", "/scheduler/echo/default/run").await.status, StatusCode::ACCEPTED);
    ask("echo:ro", "/scheduler/echo/write/run").await.refused(403, "forbidden");
    assert_eq!(ask("plugin:rw", "/scheduler/echo/write/run").await.status, StatusCode::ACCEPTED);
    ask("plugin:rw", "/scheduler/echo/default/pause").await.refused(403, "forbidden");
    let paused = door.post("/scheduler/echo/default/pause", Body::empty()).await.json();
    assert_eq!(paused, json!({"status": "ok", "plugin": "echo", "paused": true, "changed": ["default"]}));
    for path in ["/scheduler/echo/pause", "/scheduler/echo/resume", "/scheduler/echo/pause/resume"] {
        assert_eq!(door.post(path, Body::empty()).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(
        door.fake.asked(),
        [
            "run schedule echo/default api *",
            "run schedule echo/default api echo:ro",
            "run schedule echo/write api plugin:rw",
            "pause schedules echo Some(\"default\") true *",
            "pause schedules echo None true *",
            "pause schedules echo None false *",
            "pause schedules echo Some(\"pause\") false *",
        ]
    );
    door.fake.forget();
    for (path, code) in [
        ("/scheduler/echo/defalt/run", "unknown_schedule"),
        ("/scheduler/echo/defalt/pause", "unknown_schedule"),
        ("/scheduler/parrot/pause", "unknown_schedule"),
        ("/scheduler/ecko/pause", "unknown_plugin"),
        ("/scheduler/ecko/default/resume", "unknown_plugin"),
        ("/system/reset/ecko", "unknown_plugin"),
    ] {
        door.post(path, Body::empty()).await.refused(404, code);
    }
    assert_eq!(door.fake.asked(), [""; 0]);
}

/// BRK-09, BRK-10, BRK-11: state, failures and history of each breaker; those of scheduled commands also before they
/// counted.
#[tokio::test]
async fn breakers_are_listed_with_what_they_did() {
    let door = Door::new().await;
    let unused = door.get("/system/breakers?plugin=echo").await.json();
    let poll = &unused["breakers"][1];
    assert_eq!((&poll["command"], &poll["state"], &poll["threshold"]), (&json!("poll"), &json!("closed"), &json!(3)));
    assert_eq!((&poll["failure_count"], &unused["transitions"]), (&json!(0), &json!([])));

    let minute = |n: i64| at("2026-01-01T00:00:00Z") + TimeDelta::minutes(5 * n);
    door.fake.arrange("default", EntryStatus::Active, &[minute(1)], Vec::new()).await;
    for n in 1..=3u8 {
        assert!(matches!(door.fake.tick("default", minute(n.into()), n.into()).await, Ticked::Fired { .. }));
        assert_eq!(door.get("/system/status").await.json()["open_breakers"], json!([]), "before failure {n}");
        door.fake.run(job(n.into()), Some("no route to host")).await;
    }
    let open = door.get("/system/breakers").await.json();
    let poll = open["breakers"].as_array().expect("a list").iter().find(|b| b["command"] == "poll").expect("counted");
    assert_eq!((&poll["state"], &poll["failure_count"]), (&json!("open"), &json!(3)));
    assert_eq!(poll["last_job_id"], json!(job(3)));
    let (opened, retry) = (poll["opened_at"].as_str().map(at), poll["retry_at"].as_str().map(at));
    assert_eq!(opened.zip(retry).map(|(from, to)| to - from), Some(TimeDelta::minutes(30)));
    let transition = &open["transitions"][0];
    assert_eq!(
        (&transition["from_state"], &transition["to_state"], &transition["reason"]),
        (&json!("closed"), &json!("open"), &json!("failure_threshold"))
    );
    assert_eq!(door.get("/system/status").await.json()["open_breakers"], json!([poll]));
    assert_eq!(door.get("/scheduler/echo/default").await.json()["breaker"], *poll);
    let reset = door.post("/system/reset/echo", Body::empty()).await.json();
    assert_eq!(reset, json!({"status": "ok", "plugin": "echo", "closed": 1}));
    assert_eq!(door.fake.asked(), ["reset breaker echo *"]);
    door.get("/system/breakers?plugin=ecko").await.refused(404, "unknown_plugin");
    let other = door.get("/system/breakers?plugin=parrot&limit=1").await.json();
    assert_eq!(other, json!({"breakers": [], "transitions": []}));
}

/// BRK-10, BRK-11: what a plugin left behind that was taken out counts nowhere, but what it did is still told.
#[tokio::test]
async fn the_breakers_of_a_plugin_that_is_disabled_are_left_out() {
    let fake = Fake::new(&[]).await;
    for n in 1..=3u8 {
        fake.tick("default", at("2026-01-01T00:00:00Z") + TimeDelta::minutes(n.into()), n.into()).await;
        fake.run(job(n.into()), Some("no route to host")).await;
    }
    fake.configure(|config| config.plugins.get_mut("echo").expect("configured").enabled = false);
    let door = Door::of(fake);
    assert_eq!(door.get("/system/status").await.json()["open_breakers"], json!([]));
    let listed = door.get("/system/breakers").await.json();
    let of_echo = listed["breakers"].as_array().expect("a list").iter().filter(|b| b["failure_count"] == json!(3));
    assert_eq!(of_echo.count(), 0, "{listed}");
    assert_eq!(listed["transitions"].as_array().map(Vec::len), Some(1), "{listed}");
}
