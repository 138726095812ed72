//! The only place that prints: texts and tables for people, one JSON document for programs, messages on stderr.

use std::io::{IsTerminal, Write};

use serde_json::Value;

use crate::table::{Table, cut};
use crate::terminal;

/// How words are emphasised on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it is.
    Plain,
    /// Headings, names that matter.
    Bold,
    /// Things of less weight.
    Dim,
    /// Good.
    Green,
    /// Worth a look.
    Yellow,
    /// Bad.
    Red,
    /// Something that was typed or can be typed.
    Cyan,
    /// Just changed.
    Inverse,
}

impl Style {
    /// The style of a job's, an attempt's or an actor's state.
    #[must_use]
    pub(crate) fn of_state(word: &str) -> Self {
        match word {
            "succeeded" | "up" | "ok" | "healthy" => Self::Green,
            "running" | "starting" | "stopping" | "backoff" | "draining" | "degraded" | "skipped" => Self::Yellow,
            "failed" | "dead" | "timed_out" | "down" | "zombie" => Self::Red,
            _ => Self::Plain,
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "31",
            Self::Cyan => "36",
            Self::Inverse => "1;7",
        }
    }
}

/// Wraps `text` into the style's escape sequences, or not.
#[must_use]
pub(crate) fn paint(text: &str, style: Style, colour: bool) -> String {
    if !colour || style == Style::Plain { text.to_owned() } else { format!("\x1b[{}m{text}\x1b[0m", style.code()) }
}

/// Where the output of a command goes. Once nobody reads stdout any more, what is left is dropped in silence.
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    verbose: bool,
    colour: bool,
    width: Option<usize>,
    closed: bool,
    answered: bool,
}

impl Report {
    /// Looks at the terminal and at `NO_COLOR`.
    #[must_use]
    pub(crate) fn new(json: bool, verbose: bool) -> Self {
        let tty = std::io::stdout().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self {
            json,
            verbose,
            colour: tty && !no_colour && !dumb,
            width: if tty { terminal::size().map(|s| s.columns) } else { None },
            closed: false,
            answered: false,
        }
    }

    /// True when the caller wants a document and no prose.
    #[must_use]
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// True when the caller wants to know how it came to that.
    #[must_use]
    pub(crate) fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// True when stdout is a terminal that takes colours.
    #[must_use]
    pub(crate) fn has_colour(&self) -> bool {
        self.colour
    }

    /// True when nobody reads stdout any more.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Width to cut lines to; `None` when stdout is no terminal.
    #[must_use]
    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    /// The one document of JSON mode.
    pub(crate) fn document(&mut self, value: &Value) {
        let text = serde_json::to_string_pretty(value).unwrap_or_else(|_| "null".into());
        self.answered = true;
        self.write(&text);
    }

    /// The document of a command that failed before it had one; nothing when there is one, or for people.
    pub(crate) fn failure(&mut self, value: &Value) {
        if self.json && !self.answered {
            self.document(value);
        }
    }

    /// One document on a line of its own, for commands that go on.
    pub(crate) fn document_line(&mut self, value: &Value) {
        self.answered = true;
        self.write(&value.to_string());
    }

    /// A line for people on stdout; nothing in JSON mode.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) {
        if !self.json {
            self.write(text.as_ref());
        }
    }

    /// A styled line for people on stdout; nothing in JSON mode.
    pub(crate) fn styled(&mut self, text: &str, style: Style) {
        let text = paint(text, style, self.colour);
        self.line(text);
    }

    /// A line of a drawn tree: the branches dim, the rest styled; cut to the terminal.
    pub(crate) fn tree_line(&mut self, lead: &str, text: &str, style: Style) {
        let room = self.width.map(|width| width.saturating_sub(lead.chars().count()));
        let text = room.map_or_else(|| text.to_owned(), |room| cut(text, room));
        let line = format!("{}{}", paint(lead, Style::Dim, self.colour), paint(&text, style, self.colour));
        self.line(line);
    }

    /// `name  value`, aligned.
    pub(crate) fn field(&mut self, name: &str, value: &str) {
        self.field_styled(name, value, Style::Plain);
    }

    /// `name  value`, aligned, the value styled.
    pub(crate) fn field_styled(&mut self, name: &str, value: &str, style: Style) {
        let value = match self.width {
            Some(width) => cut(value, width.saturating_sub(15)),
            None => value.to_owned(),
        };
        let name = paint(&format!("{name:<13}"), Style::Dim, self.colour);
        let value = paint(&value, style, self.colour);
        self.line(format!("{name}  {value}"));
    }

    /// A table, cut to the terminal.
    pub(crate) fn table(&mut self, table: &Table) {
        for line in table.lines(self.width, self.colour) {
            self.line(line);
        }
    }

    /// Bytes as they are, without a line end; nothing in JSON mode.
    pub(crate) fn raw(&mut self, text: &str) {
        if !self.json && !self.closed {
            let mut out = std::io::stdout().lock();
            self.closed = out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err();
        }
    }

    /// Bytes of somebody else's document as they are, also in JSON mode.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.answered = true;
        if !self.closed {
            let mut out = std::io::stdout().lock();
            self.closed = out.write_all(bytes).and_then(|()| out.flush()).is_err();
        }
    }

    /// A message beside the output, on stderr.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        // There is nowhere to complain about a closed stderr.
        let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
    }

    /// How the command came to its answer, on stderr with `-v`.
    pub(crate) fn detail(&self, text: impl AsRef<str>) {
        if self.verbose {
            self.note(text);
        }
    }

    /// Help as clap renders it.
    pub(crate) fn help(&mut self, text: &clap::builder::StyledStr, on_stderr: bool) {
        if on_stderr {
            let colour = std::io::stderr().is_terminal() && self.colour;
            let text = if colour { text.ansi().to_string() } else { text.to_string() };
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
        } else {
            let text = if self.colour { text.ansi().to_string() } else { text.to_string() };
            self.json = false;
            self.raw(&text);
        }
    }

    fn write(&mut self, text: &str) {
        if self.closed {
            return;
        }
        let mut out = std::io::stdout().lock();
        self.closed = writeln!(out, "{text}").and_then(|()| out.flush()).is_err();
    }
}
