//! Bearer tokens from `api.auth.tokens` and from the `tokens:` registry: hashed here, and their secrets dropped.

use std::collections::BTreeSet;

use ductile_domain::config::Token;
use ductile_domain::problem::Problem;
use ductile_domain::scope::Grants;
use serde_json::Value;

use crate::findings::Findings;
use crate::intake::Intake;
use crate::node::{Filled, Node, Origin};
use crate::paths::{is_url, resolve};
use crate::section::Section;

const SCOPES_HINT: &str = "use `*`, plugin:ro|rw, jobs:ro|rw, events:ro|rw, <plugin>:ro|rw, <plugin>:allow:<command> or <plugin>:deny:<command>";

/// All tokens of both places, inline ones first.
pub(crate) fn read(root: &Node, top: &mut Section<'_>, intake: &mut Intake<'_>, findings: &mut Findings) -> Vec<Token> {
    let mut found = Found::default();
    let mut silent = Findings::new();
    // The shapes of `api` and `api.auth` are reported where they are typed.
    let mut auth = Section::open(top.get("api"), "api", "api", &mut silent).section("auth", &mut silent);
    for (i, (node, path)) in auth.items("tokens", findings).into_iter().enumerate() {
        inline(node, &path, i, &mut found, findings);
    }
    let references = secret_references(root);
    let mut names = BTreeSet::new();
    for (node, path) in top.items("tokens", findings) {
        registered(node, &path, &references, &mut names, &mut found, intake, findings);
    }
    found.tokens
}

#[derive(Default)]
struct Found {
    tokens: Vec<Token>,
}

impl Found {
    /// Adds a token; the same secret may not stand for two sets of rights.
    fn add(&mut self, token: Token, path: &str, origin: Origin, findings: &mut Findings) {
        match self.tokens.iter().find(|t| t.hash == token.hash) {
            None => self.tokens.push(token),
            Some(twin) if twin.grants == token.grants => {
                let text = format!("this token is the same as {:?}, which stands for both", twin.name);
                findings.add(Problem::warning("token_scopes", text).at_path(path), origin);
            }
            Some(twin) => {
                let text = format!("this token is the same as {:?}, but with other scopes", twin.name);
                let problem = Problem::error("token_scopes", text).at_path(path);
                findings.add(problem.hint("give each set of scopes its own token"), origin);
            }
        }
    }
}

fn inline(node: &Node, path: &str, index: usize, found: &mut Found, findings: &mut Findings) {
    let mut keys = Section::open(Some(node), path, "token_scopes", findings);
    if node.map().is_none() {
        return;
    }
    let name = keys.text("name", findings).map_or_else(|| format!("api-token-{}", index + 1), |(n, _)| n.to_owned());
    let hash = secret(&mut keys, "token", node, findings);
    let scopes = keys.texts("scopes", findings);
    if keys.get("scopes").is_none() && !keys.is_undefined("scopes") {
        findings.add(keys.error("scopes", "the token has no scopes").hint(SCOPES_HINT), node.origin);
    }
    let words: Vec<_> = scopes.iter().map(|(word, _)| *word).collect();
    let mut is_known = true;
    for (i, (word, node)) in scopes.iter().enumerate() {
        if Grants::parse([*word]).is_err() {
            is_known = false;
            let problem = keys.error(&format!("scopes[{i}]"), format!("unknown scope {}", node.shown()));
            findings.add(problem.hint(SCOPES_HINT), node.origin);
        }
    }
    keys.close(findings);
    if let (Some(hash), true, Ok(grants)) = (hash, is_known, Grants::parse(words)) {
        found.add(Token { name, hash, grants }, path, node.origin, findings);
    }
}

/// BLAKE3 of the secret under `key`. A literal one is reported: the file is likely to be copied and shown.
fn secret(keys: &mut Section<'_>, key: &'static str, entry: &Node, findings: &mut Findings) -> Option<[u8; 32]> {
    let Some(node) = keys.get(key) else {
        if keys.is_undefined(key) {
            return None;
        }
        findings.add(keys.error(key, format!("`{key}` is missing")).hint("write ${NAME_OF_A_VARIABLE}"), entry.origin);
        return None;
    };
    let text = match node.text() {
        Some("") => {
            findings.add(keys.error(key, "the secret is empty"), node.origin);
            return None;
        }
        Some(text) => text,
        None => {
            // Not `shown`: it would print the secret.
            findings.add(keys.error(key, "expected a text").hint("put it in quotes"), node.origin);
            return None;
        }
    };
    if node.filled != Filled::FromEnvironment {
        let problem = keys.warning(key, "the secret stands in the file");
        findings.add(problem.hint("keep it in the environment and write ${NAME_OF_A_VARIABLE}"), node.origin);
    }
    Some(*blake3::hash(text.as_bytes()).as_bytes())
}

/// The names under every `secret_ref`: their entries are shared secrets, never bearer tokens.
fn secret_references(root: &Node) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    root.walk("", &mut |path, node| {
        if let (true, Some(name)) = (path == "secret_ref" || path.ends_with(".secret_ref"), node.text()) {
            names.insert(name.to_owned());
        }
    });
    names
}

fn registered(
    node: &Node,
    path: &str,
    references: &BTreeSet<String>,
    names: &mut BTreeSet<String>,
    found: &mut Found,
    intake: &mut Intake<'_>,
    findings: &mut Findings,
) {
    let mut keys = Section::open(Some(node), path, "token_scopes", findings);
    if node.map().is_none() {
        return;
    }
    let name = match keys.text("name", findings) {
        Some((name, node)) => {
            if !names.insert(name.to_owned()) {
                findings.add(keys.error("name", format!("{} names two entries", node.shown())), node.origin);
            }
            name.to_owned()
        }
        None => {
            findings.add(keys.error("name", "`name` is missing"), node.origin);
            String::new()
        }
    };
    let hash = secret(&mut keys, "key", node, findings);
    let file = keys.text("scopes_file", findings);
    let pin = keys.text("scopes_hash", findings);
    if references.contains(&name) {
        if let Some((_, node)) = file {
            let text = "the scopes are ignored: a secret_ref names this entry, so it is no bearer token";
            findings.add(keys.warning("scopes_file", text), node.origin);
        }
        return keys.close(findings);
    }
    let Some(file) = file else {
        if keys.get("scopes_file").is_none() {
            let problem = keys.error("scopes_file", "`scopes_file` is missing, so the token would grant nothing");
            findings.add(problem.hint("name a JSON file such as scopes/<name>.json"), node.origin);
        }
        return keys.close(findings);
    };
    let grants = scopes_file(&keys, file, pin, intake, findings);
    keys.close(findings);
    if let (Some(hash), Some(grants)) = (hash, grants) {
        found.add(Token { name, hash, grants }, path, node.origin, findings);
    }
}

/// The grants of `{"scopes": [...]}`, after its BLAKE3 was compared with the pin.
fn scopes_file(
    keys: &Section<'_>,
    (text, node): (&str, &Node),
    pin: Option<(&str, &Node)>,
    intake: &mut Intake<'_>,
    findings: &mut Findings,
) -> Option<Grants> {
    if node.filled != Filled::AsWritten || is_url(text) {
        let problem = keys.error("scopes_file", "the path must be that of a local file, without `${`");
        findings.add(problem, node.origin);
        return None;
    }
    let path = resolve(text, intake.dir, intake.env);
    let bytes = match intake.read(&path, findings) {
        Ok((_, bytes)) => bytes,
        Err(source) => {
            let text = format!("{} can't be read: {source}", path.display());
            findings.add(keys.error("scopes_file", text), node.origin);
            return None;
        }
    };
    let actual = blake3::hash(&bytes).to_hex();
    match pin {
        Some((pin, _)) if pin.strip_prefix("blake3:").unwrap_or(pin).eq_ignore_ascii_case(&actual) => {}
        Some((_, node)) => {
            let text = format!("{} has another hash: it was changed, or never approved", path.display());
            let hint = format!("after checking its content write blake3:{actual}");
            findings.add(keys.error("scopes_hash", text).hint(hint), node.origin);
            return None;
        }
        None => {
            let problem = keys.warning("scopes_hash", "without `scopes_hash` a change of the scopes goes unnoticed");
            findings.add(problem.hint(format!("write blake3:{actual}")), node.origin);
        }
    }
    let text = |word: &Value| word.as_str().map_or_else(|| word.to_string(), str::to_owned);
    let words = match serde_json::from_slice::<Value>(&bytes) {
        Ok(value) => {
            let list = value.get("scopes").and_then(Value::as_array);
            list.map(|list| list.iter().map(text).collect::<Vec<_>>())
        }
        Err(error) => {
            let problem = Problem::error("token_scopes", "the scopes file is not JSON").in_file(&path);
            findings.problems.push(problem.at(error.line().max(1), error.column().max(1)));
            return None;
        }
    };
    let Some(words) = words else {
        let problem = Problem::error("token_scopes", "the scopes file needs a list `scopes`").in_file(&path);
        findings.problems.push(problem.hint(r#"{"scopes": ["jobs:ro"]}"#));
        return None;
    };
    let mut is_known = true;
    for (i, word) in words.iter().enumerate() {
        if let Err(unknown) = Grants::parse([word.as_str()]) {
            is_known = false;
            let problem = Problem::error("token_scopes", unknown.to_string()).in_file(&path);
            findings.problems.push(problem.at_path(format!("scopes[{i}]")).hint(SCOPES_HINT));
        }
    }
    if is_known { Grants::parse(words.iter().map(String::as_str)).ok() } else { None }
}
