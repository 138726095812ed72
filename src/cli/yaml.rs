//! Writes a JSON value as YAML for people. Everything that could be read as something else is quoted.

use serde_json::Value;

/// The value as a block of YAML, with a line end.
#[must_use]
pub(crate) fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => block(value, 0, &mut out),
        Value::Array(items) if !items.is_empty() => block(value, 0, &mut out),
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                out.push_str(&format!("{pad}{}:", text(key)));
                child(value, indent + 2, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                out.push_str(&format!("{pad}-"));
                // The first line of a nested block stands beside the dash.
                let mut nested = String::new();
                child(item, indent + 2, &mut nested);
                match nested.strip_prefix('\n') {
                    Some(lines) => out.push_str(&lines[indent + 1..]),
                    None => out.push_str(&nested),
                }
            }
        }
        other => out.push_str(&scalar(other)),
    }
}

fn child(value: &Value, indent: usize, out: &mut String) {
    let is_block = value.as_object().is_some_and(|f| !f.is_empty()) || value.as_array().is_some_and(|a| !a.is_empty());
    if is_block {
        out.push('\n');
        block(value, indent, out);
    } else {
        out.push_str(&format!(" {}\n", scalar(value)));
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(s) => text(s),
        other => other.to_string(),
    }
}

/// Plain only when no reader of YAML can take it for anything but that text.
fn text(s: &str) -> String {
    let starts_plain = s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    let stays_plain = s.chars().all(|c| c.is_ascii_alphanumeric() || "_-./ @".contains(c)) && !s.ends_with(' ');
    let lower = s.to_ascii_lowercase();
    let is_word = matches!(&*lower, "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "null");
    // A JSON string is a double-quoted YAML scalar.
    if starts_plain && stays_plain && !is_word { s.to_owned() } else { Value::from(s).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn blocks_lists_and_scalars_are_readable() {
        let value = json!({
            "plugins": {"echo": {"enabled": true, "note": "a: b", "empty": {}, "list": []}},
            "roots": ["/srv/plugins", "yes", "12"],
            "tokens": [{"name": "ci", "scopes": ["*", "jobs:ro"]}, [1, 2]]
        });
        let expected = "\
plugins:
  echo:
    empty: {}
    enabled: true
    list: []
    note: \"a: b\"
roots:
  - /srv/plugins
  - \"yes\"
  - \"12\"
tokens:
  - name: ci
    scopes:
      - \"*\"
      - \"jobs:ro\"
  - - 1
    - 2
";
        assert_eq!(write(&value), expected, "{}", write(&value));
        assert_eq!(write(&json!(3)), "3\n");
    }
}
