//! `state:` (also written `database:`).

use std::collections::BTreeMap;

use ductile_domain::config::{Durability, State};

use crate::findings::Findings;
use crate::intake::Intake;
use crate::node::Node;
use crate::paths::{is_url, resolve};
use crate::section::Section;
use crate::show::{self, Shown};

const MOST_SPACE: u64 = 1 << 40;

pub(crate) fn read(top: &mut Section<'_>, intake: &Intake<'_>, findings: &mut Findings) -> State {
    let mut keys = Section::open(top.get("state"), "state", "state", findings);
    let mut path = intake.dir.join("ductile.db");
    if let Some((text, node)) = keys.text("path", findings) {
        if text.is_empty() || is_url(text) || text.contains('\0') {
            let problem = keys.error("path", format!("{} is not the path of a local file", node.shown()));
            findings.add(problem, node.origin);
        } else {
            path = resolve(text, intake.dir, intake.env);
        }
    }
    let durability = match keys.word("durability", &["accepted", "full", "normal"], findings) {
        Some("full") => Durability::Full,
        Some("normal") => Durability::Normal,
        _ => Durability::Accepted,
    };
    let default = State::default().min_free_space;
    let min_free_space = keys.size("min_free_space", 0..=MOST_SPACE, findings).unwrap_or(default);
    keys.close(findings);
    State { path, durability, min_free_space }
}

pub(crate) fn show(state: &State, root: &mut BTreeMap<String, Node>) {
    let keys = show::map(root, "state");
    show::fill(keys, "path", Shown::text(&state.path.to_string_lossy()));
    let durability = match state.durability {
        Durability::Accepted => "accepted",
        Durability::Full => "full",
        Durability::Normal => "normal",
    };
    show::fill(keys, "durability", Shown::text(durability));
    show::fill(keys, "min_free_space", Shown::number(state.min_free_space));
}
