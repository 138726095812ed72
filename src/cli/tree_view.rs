//! Draws the supervision tree: one line per node, pure text from a tree and a time.

use std::collections::HashSet;
use std::time::Duration;

use ductile_domain::time::{self, Timestamp};
use ductile_domain::tree::TreeNode;

use crate::report::{Style, paint};
use crate::table::{cut, one_line};

/// How to draw.
#[derive(Debug, Clone, Default)]
pub(crate) struct View<'a> {
    /// Cut lines to that width.
    pub width: Option<usize>,
    /// Draw with colours.
    pub colour: bool,
    /// Paths whose line is highlighted.
    pub changed: Option<&'a HashSet<String>>,
    /// Show at most so many children of a dynamic supervisor, such as running attempts, and shorten long names.
    pub most_dynamic: Option<usize>,
}

const COLUMNS: [&str; 8] = ["ACTOR", "KIND", "PHASE", "INC", "RESTARTS", "UP", "MAILBOX", "LAST EXIT"];
/// Columns of numbers are aligned to the right.
const RIGHT: [bool; 8] = [false, false, false, true, true, true, true, false];

/// Lines of the tree under a heading.
#[must_use]
pub(crate) fn draw(root: &TreeNode, now: Timestamp, view: &View<'_>) -> Vec<String> {
    let mut rows = Vec::new();
    collect(root, ("", ""), now, view.most_dynamic, &mut rows);
    let mut widths = COLUMNS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heading = Row { path: String::new(), phase: String::new(), cells: COLUMNS.map(str::to_owned) };
    let mut lines = vec![paint(&plain(&heading, &widths, view.width), Style::Dim, view.colour)];
    for row in &rows {
        let text = plain(row, &widths, view.width);
        let style = match view.changed {
            Some(changed) if changed.contains(&row.path) => Style::Inverse,
            _ => match Style::of_state(&row.phase) {
                Style::Green => Style::Plain,
                other => other,
            },
        };
        lines.push(paint(&text, style, view.colour));
    }
    lines
}

struct Row {
    path: String,
    phase: String,
    cells: [String; 8],
}

/// `lead` is what stands before the node's own line and before those of its children.
fn collect(node: &TreeNode, lead: (&str, &str), now: Timestamp, most: Option<usize>, rows: &mut Vec<Row>) {
    let mailbox = node.mailbox.as_ref().map(|m| format!("{}/{}", m.len, m.cap)).unwrap_or_default();
    let mut last = node
        .last_exit
        .as_ref()
        .map(|exit| {
            let reason = one_line(&exit.reason);
            let reason = if reason.is_empty() || reason == exit.class { String::new() } else { format!(": {reason}") };
            format!("{}{} ago{reason}", exit.class, age(&exit.at, now).map(|a| format!(" {a}")).unwrap_or_default())
        })
        .unwrap_or_default();
    if let Some(handling) = &node.handling {
        last = format!("in {} for {} {last}", handling.message, span(Duration::from_millis(handling.for_ms)));
    }
    let alive = matches!(node.phase.as_str(), "up" | "stopping");
    rows.push(Row {
        path: node.path.clone(),
        phase: node.phase.clone(),
        cells: [
            format!("{}{}", lead.0, if most.is_some() { short(&one_line(&node.name)) } else { one_line(&node.name) }),
            node.strategy.clone().unwrap_or_else(|| node.kind.clone()),
            node.phase.clone(),
            node.incarnation.to_string(),
            node.restarts.to_string(),
            if alive { age(&node.started_at, now).unwrap_or_default() } else { "-".into() },
            mailbox,
            last.trim_end().to_owned(),
        ],
    });
    let is_dynamic = node.strategy.as_deref() == Some("dynamic");
    let shown = most.filter(|_| is_dynamic).unwrap_or(usize::MAX).min(node.children.len());
    for (i, child) in node.children.iter().take(shown).enumerate() {
        let (branch, below) = if i + 1 == node.children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        collect(child, (&format!("{}{branch}", lead.1), &format!("{}{below}", lead.1)), now, most, rows);
    }
    if shown < node.children.len() {
        let mut cells = [const { String::new() }; 8];
        cells[0] = format!("{}└─ … {} more", lead.1, node.children.len() - shown);
        rows.push(Row { path: String::new(), phase: String::new(), cells });
    }
}

/// A job's id would push everything else off a screen; its end tells jobs apart better than its begin.
fn short(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= 20 {
        return name.to_owned();
    }
    letters[..4].iter().chain(&['…']).chain(&letters[letters.len() - 12..]).collect()
}

fn plain(row: &Row, widths: &[usize; 8], limit: Option<usize>) -> String {
    let mut line = String::new();
    for (i, cell) in row.cells.iter().enumerate() {
        if i > 0 {
            line.push_str("  ");
        }
        let gap = widths[i] - cell.chars().count().min(widths[i]);
        if RIGHT[i] {
            line.extend(std::iter::repeat_n(' ', gap));
        }
        line.push_str(cell);
        if !RIGHT[i] {
            line.extend(std::iter::repeat_n(' ', gap));
        }
    }
    let line = line.trim_end();
    limit.map_or_else(|| line.to_owned(), |limit| cut(line, limit))
}

fn age(since: &str, now: Timestamp) -> Option<String> {
    let since = time::parse(since)?;
    Some(span((now - since).to_std().unwrap_or_default()))
}

/// A span for people: `250ms`, `9s`, `3m12s`, `4h05m`, `2d03h`.
#[must_use]
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{}ms", time.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// What makes a tree another tree: who is there, in which phase and incarnation, and how the former one ended.
/// Mailboxes and ages move all the time and don't count.
#[must_use]
pub(crate) fn shape(root: &TreeNode) -> Vec<(String, String, u64, Option<String>)> {
    let mut out = Vec::new();
    walk(root, &mut |node| {
        let exit = node.last_exit.as_ref().map(|e| format!("{} {} {}", e.class, e.at, e.reason));
        out.push((node.path.clone(), node.phase.clone(), node.incarnation, exit));
    });
    out
}

/// Calls `see` for every node, parents first.
pub(crate) fn walk<'a>(node: &'a TreeNode, see: &mut impl FnMut(&'a TreeNode)) {
    see(node);
    for child in &node.children {
        walk(child, see);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ductile_domain::tree::{LastExit, Mailbox};

    fn node(path: &str, strategy: Option<&str>, children: Vec<TreeNode>) -> TreeNode {
        TreeNode {
            path: path.into(),
            name: path.rsplit('/').next().unwrap_or(path).into(),
            kind: if strategy.is_some() { "supervisor" } else { "worker" }.into(),
            strategy: strategy.map(Into::into),
            restart: "permanent".into(),
            phase: "up".into(),
            incarnation: 1,
            restarts: 0,
            started_at: "2026-01-01T00:00:00Z".into(),
            last_exit: None,
            mailbox: strategy.is_none().then_some(Mailbox { len: 0, cap: 16 }),
            handling: None,
            children,
        }
    }

    fn sample() -> TreeNode {
        let mut router = node("root/policy_sup/router", None, vec![]);
        router.incarnation = 2;
        router.restarts = 1;
        router.started_at = "2026-01-01T00:01:01Z".into();
        router.last_exit = Some(LastExit {
            class: "panic".into(),
            reason: "index out\nof bounds".into(),
            at: "2026-01-01T00:01:00Z".into(),
        });
        let mut breaker = node("root/policy_sup/breaker", None, vec![]);
        breaker.phase = "backoff".into();
        let policy = node("root/policy_sup", Some("one_for_one"), vec![router, breaker]);
        let exec = node("root/exec_sup", Some("rest_for_one"), vec![node("root/exec_sup/queue", None, vec![])]);
        node("root", Some("rest_for_one"), vec![policy, exec])
    }

    fn now() -> Timestamp {
        time::parse("2026-01-01T00:01:10Z").expect("valid")
    }

    #[test]
    fn the_tree_shows_one_line_per_node() {
        let expected = "\
ACTOR          KIND          PHASE    INC  RESTARTS     UP  MAILBOX  LAST EXIT
root           rest_for_one  up         1         0  1m10s
├─ policy_sup  one_for_one   up         1         0  1m10s
│  ├─ router   worker        up         2         1     9s     0/16  panic 10s ago: index out of bounds
│  └─ breaker  worker        backoff    1         0      -     0/16
└─ exec_sup    rest_for_one  up         1         0  1m10s
   └─ queue    worker        up         1         0  1m10s     0/16";
        let drawn = draw(&sample(), now(), &View::default());
        assert_eq!(drawn.join("\n"), expected, "\n{}", drawn.join("\n"));
    }

    #[test]
    fn a_narrow_terminal_cuts_lines_and_changes_stand_out() {
        let changed = HashSet::from(["root/policy_sup/router".to_owned()]);
        let view = View { width: Some(40), colour: true, changed: Some(&changed), most_dynamic: None };
        let lines = draw(&sample(), now(), &view);
        assert!(lines[3].starts_with("\x1b[1;7m│  ├─ router"), "{:?}", lines[3]);
        assert!(lines[4].starts_with("\x1b[33m│  └─ breaker"), "{:?}", lines[4]);
        let narrow = draw(&sample(), now(), &View { width: Some(40), ..View::default() });
        assert!(narrow.iter().all(|l| l.chars().count() <= 40));
    }

    #[test]
    fn a_crowd_of_attempts_is_counted() {
        let jobs = (0..5).map(|i| node(&format!("root/job_sup/job:{i}"), None, vec![])).collect();
        let tree = node("root", Some("rest_for_one"), vec![node("root/job_sup", Some("dynamic"), jobs)]);
        let lines = draw(&tree, now(), &View { most_dynamic: Some(2), ..View::default() });
        assert_eq!(lines.len(), 6);
        assert!(lines[4].starts_with("   ├─ job:1"), "{lines:?}");
        assert_eq!(lines[5], "   └─ … 3 more");
        assert_eq!(short("job:01a1fe68-3f86-70b9-9f9c-25c1173e9859"), "job:…25c1173e9859");
    }

    #[test]
    fn full_mailboxes_and_age_are_no_change() {
        let before = sample();
        let mut after = sample();
        after.mailbox = Some(Mailbox { len: 9, cap: 9 });
        assert_eq!(shape(&before), shape(&after));
        after.children[1].children[0].incarnation = 2;
        assert_ne!(shape(&before), shape(&after));
    }

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [(9, "9s"), (192, "3m12s"), (14_700, "4h05m"), (183_600, "2d03h")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!(span(Duration::from_millis(250)), "250ms");
    }
}
