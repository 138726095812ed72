//! The `context` of a request: the baggage, with what the gateway knows of the hop under flat names.

use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// Where the ledger keeps what the gateway knows of a hop.
const CONTROL: &str = "ductile";

/// What always names the plugin that runs now.
const PLUGIN: &str = "ductile_plugin";

/// What a plugin sees of it, and the keys under which the ledger keeps that.
const FLAT: [(&str, &str); 5] = [
    ("ductile_pipeline", "pipeline"),
    ("ductile_step_id", "step_id"),
    ("ductile_pipeline_instance_id", "pipeline_instance_id"),
    ("ductile_route_depth", "route_depth"),
    ("ductile_route_max_depth", "route_max_depth"),
];

/// Writes the context of an attempt of `plugin`. `accumulated` is what `event_context` holds; what is no object counts as
/// none.
pub(crate) fn write(out: &mut String, accumulated: Option<&RawValue>, plugin: &str) {
    out.push('{');
    push(out, PLUGIN, &text(plugin));
    if let Some(accumulated) = accumulated {
        push_baggage(out, accumulated);
    }
    out.push('}');
}

fn push_baggage(out: &mut String, accumulated: &RawValue) {
    let Entries(entries) = read(accumulated.get());
    let control = entries.iter().find(|(key, _)| key == CONTROL).map(|(_, object)| read(object.get()));
    let control = control.unwrap_or_default();
    for (flat, key) in FLAT {
        let known = control.0.iter().find(|(k, value)| k == key && value.get() != "null");
        if let Some((_, value)) = known {
            push(out, flat, value.get());
        }
    }
    // A name of the gateway's own that the baggage holds as well gives way.
    let is_taken = |key: &str| {
        key == PLUGIN || FLAT.iter().any(|(flat, from)| *flat == key && control.0.iter().any(|(k, _)| k == from))
    };
    for (key, value) in entries.iter().filter(|(key, _)| key != CONTROL && !is_taken(key)) {
        push(out, key, value.get());
    }
}

fn push(out: &mut String, key: &str, value: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    out.push_str(&text(key));
    out.push(':');
    out.push_str(value);
}

fn text(text: &str) -> String {
    serde_json::to_string(text).expect("text is always JSON")
}

/// The entries of an object in their order, values as they were written.
#[derive(Default)]
struct Entries<'a>(Vec<(String, &'a RawValue)>);

fn read(object: &str) -> Entries<'_> {
    serde_json::from_str(object).unwrap_or_default()
}

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Collect).map(Self)
    }
}
