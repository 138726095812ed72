//! Replaces `${VAR}` and `${VAR:-default}` inside parsed scalars, so that a value can never change the structure.

use std::collections::BTreeMap;

use ductile_domain::problem::Problem;

use crate::dotenv::is_variable;
use crate::findings::Findings;
use crate::node::{Content, Filled, Node, join};

/// The variables: the process environment, then what `.env` files add.
pub(crate) struct Variables<'a> {
    pub(crate) env: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) files: BTreeMap<String, String>,
}

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.env)(name).or_else(|| self.files.get(name).cloned())
    }
}

/// What is interpolated. `include`, `environment_vars` and `plugin_roots` decide which files are read and stay as they
/// are (who reads them reports a `${`); keys that nobody knows are not looked into.
const SECTIONS: [&str; 10] = [
    "api",
    "instances",
    "log_level",
    "pipelines",
    "remote_ingress",
    "routes",
    "service",
    "state",
    "tokens",
    "webhooks",
];

/// Interpolates the merged document.
pub(crate) fn document(root: &mut BTreeMap<String, Node>, variables: &Variables<'_>, findings: &mut Findings) {
    for (key, node) in root.iter_mut() {
        match (key.as_str(), &mut node.content) {
            ("plugins", Content::Map(plugins)) => {
                for (name, plugin) in plugins.iter_mut().filter(|(name, _)| !name.starts_with("x-")) {
                    let path = join("plugins", name);
                    if let Content::Map(keys) = &mut plugin.content
                        && let Some(enabled) = keys.get_mut("enabled")
                    {
                        tree(enabled, &join(&path, "enabled"), variables, findings, true);
                    }
                    tree(plugin, &path, variables, findings, !is_disabled(plugin));
                }
            }
            _ if SECTIONS.contains(&key.as_str()) => tree(node, key, variables, findings, true),
            _ => {}
        }
    }
}

fn is_disabled(plugin: &Node) -> bool {
    match plugin.map().and_then(|keys| keys.get("enabled")).map(|node| &node.content) {
        Some(Content::Bool(enabled)) => !enabled,
        Some(Content::Text(text)) => text == "false",
        _ => false,
    }
}

/// `reports`: false inside a disabled plugin, where an undefined variable stays as written.
fn tree(node: &mut Node, path: &str, variables: &Variables<'_>, findings: &mut Findings, reports: bool) {
    match &mut node.content {
        Content::Text(text) if node.filled == Filled::AsWritten && text.contains("${") => {
            let filled = fill(text, variables);
            if reports && !filled.faults.is_empty() {
                findings.is_complete = false;
                for fault in &filled.faults {
                    let problem = Problem::error("env_vars", fault.message()).at_path(path).hint(fault.hint());
                    findings.add(problem, node.origin);
                }
            }
            if !filled.faults.is_empty() {
                node.filled = Filled::Undefined;
                return;
            }
            *text = filled.text;
            node.filled = if filled.from_environment { Filled::FromEnvironment } else { Filled::FromDefault };
        }
        Content::List(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                tree(item, &format!("{path}[{i}]"), variables, findings, reports);
            }
        }
        Content::Map(map) => {
            for (key, child) in map {
                tree(child, &join(path, key), variables, findings, reports);
            }
        }
        _ => {}
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Undefined(String),
    Unclosed,
    NotAName,
}

impl Fault {
    fn message(&self) -> String {
        match self {
            Self::Undefined(name) => format!("the variable {name} is not defined"),
            Self::Unclosed => "`${` is not closed by `}`".to_owned(),
            Self::NotAName => "`${...}` does not hold the name of a variable".to_owned(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Undefined(name) => format!(
                "set {name} in the environment or in a file under environment_vars.include, or write ${{{name}:-default}}"
            ),
            Self::Unclosed | Self::NotAName => "write `$${` for a literal `${`".to_owned(),
        }
    }
}

#[derive(Debug, Default)]
struct Filling {
    text: String,
    from_environment: bool,
    faults: Vec<Fault>,
}

/// Of dollars before a `{`, each pair stands for one dollar and an odd last one begins a variable; anywhere else a
/// dollar is a dollar.
fn fill(text: &str, variables: &Variables<'_>) -> Filling {
    let mut out = Filling::default();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.text.push_str(&rest[..at]);
        rest = &rest[at..];
        let dollars = rest.len() - rest.trim_start_matches('$').len();
        let after = &rest[dollars..];
        if !after.starts_with('{') {
            out.text.push_str(&rest[..dollars]);
            rest = after;
            continue;
        }
        out.text.extend(std::iter::repeat_n('$', dollars / 2));
        if dollars.is_multiple_of(2) {
            out.text.push('{');
            rest = &after[1..];
            continue;
        }
        let Some((inside, behind)) = after[1..].split_once('}') else {
            out.faults.push(Fault::Unclosed);
            return out;
        };
        reference(inside, variables, &mut out);
        rest = behind;
    }
    out.text.push_str(rest);
    out
}

fn reference(inside: &str, variables: &Variables<'_>, out: &mut Filling) {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_variable(name) || default.is_some_and(|d| d.contains("${")) {
        out.faults.push(Fault::NotAName);
        return;
    }
    match (variables.get(name), default) {
        (Some(value), None) => {
            out.text.push_str(&value);
            out.from_environment = true;
        }
        (Some(value), Some(_)) if !value.is_empty() => {
            out.text.push_str(&value);
            out.from_environment = true;
        }
        (_, Some(default)) => out.text.push_str(default),
        (None, None) => out.faults.push(Fault::Undefined(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<(String, bool), Vec<Fault>> {
        let env = |name: &str| match name {
            "A" => Some("alpha".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${A}".to_owned()),
            _ => None,
        };
        let filling = fill(text, &Variables { env: &env, files: BTreeMap::new() });
        if filling.faults.is_empty() { Ok((filling.text, filling.from_environment)) } else { Err(filling.faults) }
    }

    #[test]
    fn variables_defaults_and_escapes() {
        for (text, expected, from_env) in [
            ("x-${A}-y", "x-alpha-y", true),
            ("${A}${A}", "alphaalpha", true),
            ("${NO:-d e}", "d e", false),
            ("${EMPTY:-d}", "d", false),
            ("${EMPTY}", "", true),
            ("${A:-d}", "alpha", true),
            ("${NO:-}", "", false),
            ("$${A}", "${A}", false),
            ("$$${A}", "$alpha", true),
            ("$$$${A}", "$${A}", false),
            ("pa$$word $A $", "pa$$word $A $", false),
            ("${NESTED}", "${A}", true),
        ] {
            assert_eq!(filled(text), Ok((expected.to_owned(), from_env)), "{text}");
        }
    }

    #[test]
    fn every_fault_of_a_text_is_found() {
        assert_eq!(filled("${X} ${Y}"), Err(vec![Fault::Undefined("X".to_owned()), Fault::Undefined("Y".to_owned())]));
        assert_eq!(filled("a ${A"), Err(vec![Fault::Unclosed]));
        assert_eq!(filled("${A-B}"), Err(vec![Fault::NotAName]));
        assert_eq!(filled("${}"), Err(vec![Fault::NotAName]));
        assert_eq!(filled("${A:-${B}}"), Err(vec![Fault::NotAName]));
    }
}
