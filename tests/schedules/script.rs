//! What is simulated: schedules, and what happens to the clock and to the gateway.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

pub(crate) type Time = DateTime<Utc>;

/// One schedule, as the configuration and the reference are told of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spec {
    /// Unique over all plugins.
    pub(crate) id: String,
    /// Its plugin; those of `all` never wait for each other.
    pub(crate) plugin: &'static str,
    /// `every: 1h` as the configuration has it.
    rule: String,
    /// The same for the reference.
    told: Map<String, Value>,
    lines: Vec<String>,
}

/// What the wall clock shows from one discontinuity to the next while the gateway runs.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) how: How,
    pub(crate) from: Time,
    pub(crate) to: Time,
}

/// How a segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// The first start.
    Start,
    /// The gateway was stopped at the end of the segment before, and starts now.
    Down,
    /// The clock was put forward, or the machine slept.
    Forward,
    /// The clock was put back.
    Back,
}

impl How {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Down => "down",
            Self::Forward => "forward",
            Self::Back => "back",
        }
    }
}

pub(crate) fn time(text: &str) -> Time {
    ductile_domain::time::parse(text).unwrap_or_else(|| panic!("{text:?} is no time"))
}

fn spec(id: &str, rule: String, key: &str, value: Value) -> Spec {
    let mut told = Map::new();
    told.insert("id".into(), json!(id));
    told.insert("zone".into(), json!("UTC"));
    told.insert(key.into(), value);
    Spec { id: id.to_owned(), plugin: "all", rule, told, lines: Vec::new() }
}

/// An interval as it is written, and in seconds.
pub(crate) fn every(id: &str, text: &str, seconds: u32) -> Spec {
    spec(id, format!("every: {text}"), "every", json!(seconds))
}

/// A cron expression in a zone.
pub(crate) fn cron(id: &str, zone: &str, text: &str) -> Spec {
    spec(id, format!("cron: '{text}'"), "cron", json!(text)).zone(zone)
}

/// The same with the zone written behind the expression.
pub(crate) fn cron_with_zone(id: &str, zone: &str, text: &str) -> Spec {
    let mut spec = spec(id, format!("cron: '{text} {zone}'"), "cron", json!(text));
    spec.told.insert("zone".into(), json!(zone));
    spec
}

pub(crate) fn at(id: &str, text: &str) -> Spec {
    spec(id, format!("at: '{text}'"), "at", json!(text))
}

pub(crate) fn after(id: &str, minutes: u32) -> Spec {
    spec(id, format!("after: {minutes}m"), "after", json!(minutes * 60))
}

impl Spec {
    fn key(mut self, line: String, told: &str, value: Value) -> Self {
        self.lines.push(line);
        self.told.insert(told.into(), value);
        self
    }

    pub(crate) fn zone(self, zone: &str) -> Self {
        self.key(format!("timezone: {zone}"), "zone", json!(zone))
    }

    pub(crate) fn window(self, window: &str) -> Self {
        self.key(format!("only_between: '{window}'"), "window", json!(window))
    }

    /// Days as they are written, and as numbers from Sunday on.
    pub(crate) fn not_on(self, written: &str, days: &[u8]) -> Self {
        self.key(format!("not_on: [{written}]"), "not_on", json!(days))
    }

    pub(crate) fn jitter(self, minutes: u32) -> Self {
        self.key(format!("jitter: {minutes}m"), "jitter", json!(minutes * 60))
    }

    pub(crate) fn catch_up(self, policy: &str) -> Self {
        self.key(format!("catch_up: {policy}"), "catch_up", json!(policy))
    }

    /// Of a plugin whose jobs are not ended: so many fire, and the others are skipped for this reason.
    pub(crate) fn held_up(mut self, plugin: &'static str, cap: u32, reason: &str) -> Self {
        self.plugin = plugin;
        self.told.insert("cap".into(), json!(cap));
        self.told.insert("cap_reason".into(), json!(reason));
        self
    }

    /// Of a plugin whose jobs are ended before its next tick.
    pub(crate) fn of(mut self, plugin: &'static str) -> Self {
        self.plugin = plugin;
        self
    }

    pub(crate) fn has_jitter(&self) -> bool {
        self.told.contains_key("jitter")
    }

    /// The entry of the configuration, indented as an item below `schedules:`.
    pub(crate) fn yaml(&self, policy: &str) -> String {
        let mut text = format!("      - id: {}\n        {}\n        {policy}\n", self.id, self.rule);
        for line in &self.lines {
            text.push_str(&format!("        {line}\n"));
        }
        text
    }

    pub(crate) fn told(&self) -> Value {
        Value::Object(self.told.clone())
    }
}

impl Segment {
    pub(crate) fn told(&self) -> Value {
        let show = ductile_domain::time::format;
        json!({"how": self.how.word(), "from": show(self.from), "to": show(self.to)})
    }
}

/// Small, seeded and good enough to pick times.
pub(crate) struct Dice(u64);

impl Dice {
    /// Another one in each run, unless `SCHEDULES_SEED` is set; printed, so that a failure can be repeated.
    pub(crate) fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let given = std::env::var("SCHEDULES_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or(u64::from(now.subsec_nanos()));
        println!("SCHEDULES_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn of(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn roll(&mut self, low: i64, high: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        low + i64::try_from((z ^ (z >> 31)) % u64::try_from(high - low + 1).expect("positive")).expect("small")
    }
}

/// Stops and jumps at random, `count` of them, evenly spread over the time.
///
/// What happens, happens about half past, and a clock that is put back shows about a whole hour then. Grids begin at whole hours, so
/// that which side of an event a tick with jitter falls on does not hang on what was drawn for it.
pub(crate) fn random(dice: &mut Dice, from: Time, to: Time, count: i32) -> Vec<Segment> {
    let stride = (to - from) / (count + 1);
    let mut segments: Vec<Segment> = Vec::new();
    let mut begin = (How::Start, from);
    for n in 1..=count {
        let hour = whole_hour(from + stride * n + TimeDelta::minutes(dice.roll(0, stride.num_minutes() / 2)));
        let at = hour + TimeDelta::milliseconds(dice.roll(25 * 60_000, 35 * 60_000));
        segments.push(Segment { how: begin.0, from: begin.1, to: at });
        let half_past = |hours: i64, dice: &mut Dice| {
            hour + TimeDelta::milliseconds((hours * 60 + 30) * 60_000 + dice.roll(-300_000, 300_000))
        };
        let longest = stride.num_hours() / 4;
        begin = match (n - 1) % 3 {
            0 => {
                let hours = [1, 5, 30, 150][usize::try_from(dice.roll(0, 3)).expect("small")];
                (How::Down, half_past(longest.min(hours), dice))
            }
            1 => {
                let hours = dice.roll(1, longest.min(40));
                (How::Forward, half_past(hours, dice))
            }
            _ => {
                let back = dice.roll(5, 11) * 3_600_000 + dice.roll(-120_000, 120_000);
                (How::Back, hour - TimeDelta::milliseconds(back))
            }
        };
    }
    segments.push(Segment { how: begin.0, from: begin.1, to });
    segments
}

fn whole_hour(at: Time) -> Time {
    DateTime::from_timestamp(at.timestamp() - at.timestamp().rem_euclid(3600), 0).expect("in range")
}
