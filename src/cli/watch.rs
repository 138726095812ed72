//! `system tree --watch`: follows a gateway's live events and shows its tree as it changes, also while the gateway
//! is away.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{IsTerminal, Read};
use std::time::{Duration, Instant};

use chrono::Utc;
use ductile_domain::tree::TreeNode;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::client::Client;
use crate::error::Error;
use crate::report::{Report, Style, paint};
use crate::sse::{Events, Frame};
use crate::system::tree::{Tree, fetch};
use crate::table::{cut, one_line};
use crate::terminal::{self, Screen, Size};
use crate::tree_view::{self, View};

/// How long a changed node stands out.
const HIGHLIGHT: Duration = Duration::from_secs(4);
/// Recent events that are kept for a tall terminal.
const RECENT: usize = 200;
/// Events that are shown at least, however tall the tree is; fewer on a small terminal.
const LEAST_EVENTS: usize = 6;
/// The tree is fetched again this often, and soon after an actor's event.
const REFRESH: Duration = Duration::from_secs(1);
/// Events in quick succession share one fetch and one frame.
const SETTLE: Duration = Duration::from_millis(100);

/// What the follower tells.
#[derive(Debug)]
enum Update {
    Tree(Box<Tree>),
    Event(Frame),
    Lost(String),
}

/// Watches until `q`, Ctrl-C or SIGTERM; `whole_screen` redraws in place, otherwise each change prints a new tree.
///
/// # Errors
/// The gateway was not there to begin with, or the terminal failed.
pub(crate) async fn watch(client: Client, whole_screen: bool, report: &mut Report) -> Result<(), Error> {
    let first = fetch(&client).await?;
    let (tell, updates) = mpsc::channel(256);
    let follower = tokio::spawn(follow(client.clone(), tell));
    let result = if whole_screen {
        Live::new(&client, first, report.has_colour()).run(updates).await
    } else {
        print_changes(first, updates, report).await
    };
    follower.abort();
    result
}

/// Feeds updates from the gateway, over and over again when it goes away. Ends when nobody listens.
async fn follow(client: Client, tell: mpsc::Sender<Update>) {
    let mut last_id: Option<String> = None;
    loop {
        let lost = match client.events("", last_id.as_deref()).await {
            Ok(events) => relay(&client, events, &mut last_id, &tell).await,
            Err(e) => e.to_string(),
        };
        if tell.send(Update::Lost(lost)).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Hands one stream of events and fresh trees on, until the gateway is lost; answers why.
async fn relay(
    client: &Client,
    mut events: Events,
    last_id: &mut Option<String>,
    tell: &mpsc::Sender<Update>,
) -> String {
    const NOBODY: &str = "nobody watches any more";
    let mut fetch_at = tokio::time::Instant::now();
    loop {
        tokio::select! {
            frame = events.next() => {
                let Some(frame) = frame else { return "the stream of events has ended".into() };
                if !frame.id.is_empty() {
                    *last_id = Some(frame.id.clone());
                }
                if !frame.kind.starts_with("job.") {
                    fetch_at = fetch_at.min(tokio::time::Instant::now() + SETTLE);
                }
                if tell.send(Update::Event(frame)).await.is_err() {
                    return NOBODY.into();
                }
            }
            () = tokio::time::sleep_until(fetch_at) => match fetch(client).await {
                Ok(tree) => {
                    fetch_at = tokio::time::Instant::now() + REFRESH;
                    if tell.send(Update::Tree(Box::new(tree))).await.is_err() {
                        return NOBODY.into();
                    }
                }
                Err(e) => return e.to_string(),
            },
        }
    }
}

/// For pipes: a tree at each change of its shape, as text or as one JSON document per line.
async fn print_changes(first: Tree, mut updates: mpsc::Receiver<Update>, report: &mut Report) -> Result<(), Error> {
    let mut stop = Stop::new()?;
    let mut shown = None;
    let mut next = Some(first);
    let mut away = false;
    loop {
        if let Some(tree) = next.take() {
            let shape = (tree.boot_id.clone(), tree_view::shape(&tree.root));
            if shown.as_ref() != Some(&shape) {
                shown = Some(shape);
                if report.is_json() {
                    report.document_line(&tree.document);
                } else {
                    report.line(format!("{} boot {}", clock(), tree.boot_id));
                    for line in tree_view::draw(&tree.root, Utc::now(), &View::default()) {
                        report.line(line);
                    }
                    report.line("");
                }
            }
        }
        if report.is_closed() {
            return Ok(());
        }
        tokio::select! {
            () = stop.asked() => return Ok(()),
            update = updates.recv() => match update {
                Some(Update::Tree(tree)) => {
                    away = false;
                    next = Some(*tree);
                }
                Some(Update::Event(frame)) => {
                    if !frame.kind.starts_with("job.") {
                        report.line(format!("{} {}", clock(), event_text(&frame)));
                    }
                }
                Some(Update::Lost(why)) => {
                    if !std::mem::replace(&mut away, true) {
                        report.note(format!("{} the gateway is away: {}", clock(), one_line(&why)));
                    }
                }
                None => return Ok(()),
            },
        }
    }
}

/// The live screen.
struct Live {
    target: String,
    tree: Tree,
    colour: bool,
    recent: VecDeque<(String, Style)>,
    changed: HashMap<String, Instant>,
    away: Option<(Instant, String)>,
}

impl Live {
    fn new(client: &Client, tree: Tree, colour: bool) -> Self {
        Self {
            target: client.target().to_string(),
            tree,
            colour,
            recent: VecDeque::new(),
            changed: HashMap::new(),
            away: None,
        }
    }

    async fn run(mut self, mut updates: mpsc::Receiver<Update>) -> Result<(), Error> {
        let mut stop = Stop::new()?;
        let mut resized = signal(SignalKind::window_change()).map_err(Error::io("watch the terminal's size"))?;
        let mut screen = Screen::enter().map_err(Error::io("take over the terminal"))?;
        let mut keys = keys();
        let mut drawn = Instant::now();
        self.draw(&mut screen)?;
        let mut dirty = false;
        loop {
            // Ages move every second even when nothing happens.
            let pause = if dirty { SETTLE } else { REFRESH };
            tokio::select! {
                () = stop.asked() => return Ok(()),
                // In raw mode Ctrl-C and Ctrl-D are bytes. Once stdin has ended the signals remain.
                Some(key) = keys.recv() => if matches!(key, b'q' | b'Q' | 3 | 4) {
                    return Ok(());
                },
                _ = resized.recv() => dirty = true,
                update = updates.recv() => match update {
                    Some(update) => {
                        self.take(update);
                        dirty = true;
                    }
                    None => return Ok(()),
                },
                () = tokio::time::sleep(pause.saturating_sub(drawn.elapsed())) => {
                    self.draw(&mut screen)?;
                    drawn = Instant::now();
                    dirty = false;
                }
            }
        }
    }

    fn take(&mut self, update: Update) {
        match update {
            Update::Lost(why) => {
                if self.away.is_none() {
                    self.push(format!("{} the gateway is away", clock()), Style::Red);
                }
                let since = self.away.take().map_or_else(Instant::now, |(since, _)| since);
                self.away = Some((since, one_line(&why)));
            }
            Update::Event(frame) => {
                let style = event_style(&frame.kind);
                self.push(format!("{} {}", clock(), event_text(&frame)), style);
                if let Some(path) = frame.data.get("path").and_then(Value::as_str)
                    && style != Style::Plain
                    && frame.kind.starts_with("actor.")
                {
                    self.changed.insert(path.to_owned(), Instant::now());
                }
            }
            Update::Tree(tree) => {
                if self.away.take().is_some() {
                    let what = if tree.boot_id == self.tree.boot_id { "is back" } else { "was started again" };
                    self.push(format!("{} the gateway {what}", clock()), Style::Green);
                }
                let mut before = HashMap::new();
                tree_view::walk(&self.tree.root, &mut |node| {
                    before.insert(node.path.as_str(), node.incarnation);
                });
                let same_boot = tree.boot_id == self.tree.boot_id;
                let mut restarted = Vec::new();
                tree_view::walk(&tree.root, &mut |node: &TreeNode| {
                    let was = before.get(node.path.as_str()).copied();
                    if same_boot && was.is_some_and(|was| was < node.incarnation) {
                        restarted.push(node.path.clone());
                    }
                });
                let now = Instant::now();
                self.changed.extend(restarted.into_iter().map(|path| (path, now)));
                self.tree = *tree;
            }
        }
        self.changed.retain(|_, since| since.elapsed() < HIGHLIGHT);
    }

    fn push(&mut self, text: String, style: Style) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((text, style));
    }

    fn draw(&mut self, screen: &mut Screen) -> Result<(), Error> {
        self.changed.retain(|_, since| since.elapsed() < HIGHLIGHT);
        let size = terminal::size().unwrap_or(Size { columns: 80, rows: 24 });
        screen.draw(&self.lines(size)).map_err(Error::io("draw on the terminal"))
    }

    /// One frame: title, tree, recent events; exactly as many lines as fit.
    fn lines(&self, size: Size) -> Vec<String> {
        let paint_cut = |text: &str, style| paint(&cut(text, size.columns), style, self.colour);
        let title = match &self.away {
            Some((since, why)) => {
                paint_cut(&format!(" AWAY for {}: {why}", tree_view::span(since.elapsed())), Style::Red)
            }
            None => paint_cut(
                &format!(
                    " ductile at {}  boot {}  generation {}",
                    self.target, self.tree.boot_id, self.tree.generation
                ),
                Style::Bold,
            ),
        };
        let changed: HashSet<String> = self.changed.keys().cloned().collect();
        let view =
            View { width: Some(size.columns), colour: self.colour, changed: Some(&changed), most_dynamic: Some(8) };
        let mut lines = vec![title, String::new()];
        lines.extend(tree_view::draw(&self.tree.root, Utc::now(), &view));
        let most = size.rows.saturating_sub(LEAST_EVENTS.min(size.rows / 3) + 2);
        if lines.len() > most {
            let hidden = lines.len() - most + 1;
            lines.truncate(most.saturating_sub(1));
            lines.push(paint_cut(&format!("… {hidden} more lines: make the terminal taller"), Style::Dim));
        }
        lines.push(String::new());
        let room = size.rows.saturating_sub(lines.len() + 1);
        let skip = self.recent.len().saturating_sub(room);
        lines.extend(self.recent.iter().skip(skip).map(|(text, style)| paint_cut(text, *style)));
        while lines.len() + 1 < size.rows {
            lines.push(String::new());
        }
        lines.push(paint_cut(" q quits", Style::Dim));
        lines.truncate(size.rows);
        lines
    }
}

/// One line about an event: what happened to whom, and why.
fn event_text(frame: &Frame) -> String {
    let text = |key: &str| frame.data.get(key).filter(|v| !v.is_null());
    let show = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut line = format!("{:<20}", frame.kind);
    for key in ["path", "job_id", "plugin", "command"] {
        if let Some(value) = text(key) {
            line.push(' ');
            line.push_str(&show(value));
        }
    }
    for key in ["attempt", "incarnation", "status", "reason", "last_error", "missed", "running"] {
        if let Some(value) = text(key).filter(|v| v.as_str() != Some("")) {
            line.push_str(&format!(" {key}={}", show(value)));
        }
    }
    one_line(&line)
}

fn event_style(kind: &str) -> Style {
    match kind.rsplit('.').next().unwrap_or(kind) {
        "crashed" | "failed" | "dead" | "timed_out" | "killed" | "zombie" | "intensity" | "escalated" | "meltdown"
        | "bye" => Style::Red,
        "backoff" | "retry_scheduled" | "retry_exhausted" | "gap" | "reset" | "cancelled" => Style::Yellow,
        "completed" | "succeeded" => Style::Green,
        _ if kind.starts_with("actor.") && kind.ends_with(".started") => Style::Green,
        _ => Style::Plain,
    }
}

fn clock() -> String {
    Utc::now().format("%H:%M:%S").to_string()
}

/// Ctrl-C while the terminal is not raw, and SIGTERM.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(Error::io("listen to signals"));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Keys as they are pressed. The thread that reads them ends with the process.
fn keys() -> mpsc::Receiver<u8> {
    let (tell, keys) = mpsc::channel(16);
    if std::io::stdin().is_terminal() {
        std::thread::spawn(move || {
            for key in std::io::stdin().lock().bytes() {
                let Ok(key) = key else { return };
                if tell.blocking_send(key).is_err() {
                    return;
                }
            }
        });
    }
    keys
}

#[cfg(test)]
mod tests;
