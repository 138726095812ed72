//! Draws the steps of a pipeline as its author wrote them: a tree of lines, pure text from the document.

use serde_json::Value;

use crate::report::Style;
use crate::table::one_line;

/// One line: what stands before it, a name, and the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Branches of the tree.
    pub lead: String,
    /// The line itself.
    pub text: String,
    /// How it is emphasised.
    pub style: Style,
}

/// Actions of a step, in the order in which they are looked for.
const ACTIONS: [&str; 5] = ["uses", "call", "steps", "split", "relay"];

/// The lines of a list of steps.
#[must_use]
pub(super) fn lines(steps: &Value) -> Vec<Line> {
    let mut drawing = Drawing { lines: Vec::new(), unnamed: 0 };
    drawing.sequence(steps, "");
    drawing.lines
}

struct Drawing {
    lines: Vec<Line>,
    /// Steps without an id so far; groups are not counted, for they have no job.
    unnamed: usize,
}

impl Drawing {
    fn sequence(&mut self, steps: &Value, below: &str) {
        let steps = steps.as_array().map(Vec::as_slice).unwrap_or_default();
        for (i, step) in steps.iter().enumerate() {
            let (branch, rail) = if i + 1 == steps.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            self.step(step, &format!("{below}{branch}"), &format!("{below}{rail}"));
        }
    }

    fn step(&mut self, step: &Value, lead: &str, below: &str) {
        let action = ACTIONS.into_iter().find(|action| !step[*action].is_null()).unwrap_or("no action");
        let id = step["id"].as_str();
        let name = match (id, action) {
            (Some(id), _) => format!("{id}  "),
            (None, "uses" | "call" | "relay") => format!("{}  ", self.next_name()),
            (None, _) => String::new(),
        };
        let what = match action {
            "uses" | "call" => format!("{action} {}", word(&step[action])),
            "split" => format!("split into {}", step["split"].as_array().map_or(0, Vec::len)),
            "relay" => format!("relay {} to {}", word(&step["relay"]["event"]), word(&step["relay"]["to"])),
            "steps" => "steps".to_owned(),
            other => other.to_owned(),
        };
        let join = step["join"].as_str().map(|mode| format!(", after joining {mode}")).unwrap_or_default();
        self.push(lead, format!("{name}{what}{join}"), Style::Bold);
        let nested = match action {
            "steps" | "split" => Some(&step[action]),
            _ => None,
        };
        let inner = match nested {
            Some(steps) if steps.as_array().is_some_and(|steps| !steps.is_empty()) => format!("{below}│    "),
            _ => format!("{below}     "),
        };
        if !step["if"].is_null() {
            self.push(&inner, format!("if {}", condition(&step["if"])), Style::Yellow);
        }
        for key in ["payload", "with", "baggage"] {
            self.mapping(key, &step[key], &inner);
        }
        for key in ["dedupe_key", "with", "baggage"] {
            self.mapping(key, &step["relay"][key], &inner);
        }
        if let Some(steps) = nested {
            self.sequence(steps, below);
        }
    }

    /// `with.message = "{payload.text}"`, a line for each key.
    fn mapping(&mut self, name: &str, value: &Value, lead: &str) {
        match value {
            Value::Null => {}
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.push(lead, format!("{name} {key} = {value}"), Style::Plain);
                }
            }
            other => self.push(lead, format!("{name} = {other}"), Style::Plain),
        }
    }

    fn next_name(&mut self) -> String {
        self.unnamed += 1;
        format!("step_{}", self.unnamed)
    }

    fn push(&mut self, lead: &str, text: String, style: Style) {
        self.lines.push(Line { lead: lead.to_owned(), text: one_line(&text), style });
    }
}

/// A text bare, anything else as JSON.
fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A condition in one line: `payload.kind eq "video" and not (payload.size gt 3)`.
#[must_use]
pub(super) fn condition(tree: &Value) -> String {
    let list = |key: &str, word: &str| {
        let parts: Vec<String> = tree[key].as_array()?.iter().map(nested).collect();
        Some(if parts.is_empty() { format!("{key} of nothing") } else { parts.join(word) })
    };
    if let Some(all) = list("all", " and ") {
        return all;
    }
    if let Some(any) = list("any", " or ") {
        return any;
    }
    if !tree["not"].is_null() {
        return format!("not ({})", condition(&tree["not"]));
    }
    let head = format!("{} {}", word(&tree["path"]), word(&tree["op"]));
    match tree.get("value") {
        Some(value) => format!("{head} {value}"),
        None => head,
    }
}

fn nested(tree: &Value) -> String {
    let is_list = ["all", "any"].iter().any(|key| tree[*key].as_array().is_some_and(|list| list.len() > 1));
    if is_list { format!("({})", condition(tree)) } else { condition(tree) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_are_drawn_as_a_tree_with_what_they_ask_for() {
        let steps = json!([
            {"id": "fetch", "uses": "web_fetch", "baggage": {"web.url": "payload.url"}},
            {"uses": "sum.poll", "if": {"path": "payload.status", "op": "eq", "value": "ok"}, "with": {"n": "{payload.n}"}},
            {"id": "deliver", "split": [
                {"uses": "mail"},
                {"steps": [{"uses": "s3", "payload": {"b": 1}}, {"call": "index"}]},
                {"relay": {"to": "lab", "event": "backup.ready", "dedupe_key": "payload.id"}}
            ]},
            {"id": "done", "uses": "notify", "join": "all"},
            {"id": "odd"}
        ]);
        let drawn: Vec<String> = lines(&steps).into_iter().map(|l| format!("{}{}", l.lead, l.text)).collect();
        let expected = "\
├─ fetch  uses web_fetch
│       baggage web.url = \"payload.url\"
├─ step_1  uses sum.poll
│       if payload.status eq \"ok\"
│       with n = \"{payload.n}\"
├─ deliver  split into 3
│  ├─ step_2  uses mail
│  ├─ steps
│  │  ├─ step_3  uses s3
│  │  │       payload b = 1
│  │  └─ step_4  call index
│  └─ step_5  relay backup.ready to lab
│          dedupe_key = \"payload.id\"
├─ done  uses notify, after joining all
└─ odd  no action";
        assert_eq!(drawn.join("\n"), expected, "\n{}", drawn.join("\n"));
        assert!(lines(&Value::Null).is_empty());
    }

    #[test]
    fn conditions_read_as_one_line() {
        let atom = |path: &str| json!({"path": path, "op": "gte", "value": 3});
        for (tree, text) in [
            (json!({"path": "payload.a", "op": "exists"}), "payload.a exists"),
            (json!({"not": {"path": "payload.a", "op": "in", "value": ["x", 1]}}), "not (payload.a in [\"x\",1])"),
            (
                json!({"all": [atom("payload.a"), {"any": [atom("context.b"), atom("config.c")]}]}),
                "payload.a gte 3 and (context.b gte 3 or config.c gte 3)",
            ),
            (json!({"any": [atom("payload.a")]}), "payload.a gte 3"),
            (json!({"all": []}), "all of nothing"),
        ] {
            assert_eq!(condition(&tree), text);
        }
    }
}
