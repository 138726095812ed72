//! Plain tables: columns aligned, the last one cut to the terminal.

use crate::report::{Style, paint};

/// Rows of cells under a heading.
#[derive(Debug)]
pub(crate) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<(String, Style)>>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub(crate) fn new(heading: &[&'static str]) -> Self {
        Self { heading: heading.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; control characters become spaces, so that nothing that a plugin wrote moves the cursor.
    pub(crate) fn row<const N: usize>(&mut self, cells: [(String, Style); N]) {
        self.rows.push(cells.into_iter().map(|(text, style)| (one_line(&text), style)).collect());
    }

    /// True when there are no rows.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, each at most `width` characters wide.
    #[must_use]
    pub(crate) fn lines(&self, width: Option<usize>, colour: bool) -> Vec<String> {
        let widths: Vec<usize> = (0..self.heading.len())
            .map(|i| self.rows.iter().filter_map(move |row| row.get(i)).map(|(text, _)| text.chars().count()))
            .zip(&self.heading)
            .map(|(cells, heading)| cells.chain([heading.len()]).max().unwrap_or(0))
            .collect();
        let heading = self.heading.iter().map(|h| ((*h).to_owned(), Style::Dim)).collect();
        std::iter::once(&heading).chain(&self.rows).map(|row| line(row, &widths, width, colour)).collect()
    }
}

fn line(cells: &[(String, Style)], widths: &[usize], limit: Option<usize>, colour: bool) -> String {
    let mut out = String::new();
    let mut used = 0;
    let last = cells.iter().rposition(|(text, _)| !text.is_empty());
    for (i, (text, style)) in cells.iter().enumerate() {
        if last.is_none_or(|last| i > last) {
            break;
        }
        let room = limit.map_or(usize::MAX, |limit| limit.saturating_sub(used));
        let text = cut(text, room);
        let length = text.chars().count();
        out.push_str(&paint(&text, *style, colour));
        used += length;
        if Some(i) != last {
            let gap = (widths[i] - length.min(widths[i]) + 2).min(limit.map_or(usize::MAX, |l| l.saturating_sub(used)));
            out.extend(std::iter::repeat_n(' ', gap));
            used += gap;
        }
    }
    out
}

/// `text` with its line breaks and other control characters turned into spaces.
#[must_use]
pub(crate) fn one_line(text: &str) -> String {
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// At most `width` characters of `text`, with `…` where something is missing.
#[must_use]
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    match width {
        0 => String::new(),
        _ => text.chars().take(width - 1).chain(['…']).collect(),
    }
}

/// A size for people, in the units of the configuration.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> (String, Style) {
        (text.to_owned(), Style::Plain)
    }

    #[test]
    fn columns_are_aligned_and_cut_to_the_width() {
        let mut table = Table::new(&["JOB", "STATUS", "LAST ERROR"]);
        table.row([plain("1"), plain("succeeded"), plain("")]);
        table.row([plain("22"), plain("dead"), plain("exit code 1\nsee stderr")]);
        let expected = ["JOB  STATUS     LAST ERROR", "1    succeeded", "22   dead       exit code 1 see stderr"];
        assert_eq!(table.lines(None, false), expected);
        let narrow = table.lines(Some(20), false);
        assert_eq!(narrow, ["JOB  STATUS     LAS…", "1    succeeded", "22   dead       exi…"].map(String::from));
        assert!(table.lines(Some(3), false).iter().all(|line| line.chars().count() <= 3));
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(&["A", "B"]);
        table.row([("x".into(), Style::Red), plain("y")]);
        assert_eq!(table.lines(None, true)[1], "\x1b[31mx\x1b[0m  y");
    }

    #[test]
    fn escape_sequences_of_plugins_are_defused() {
        assert_eq!(one_line("a\x1b[2Jb\n"), "a [2Jb");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([0, 1023, 1024, 64 << 20, 5 << 30].map(size), ["0 B", "1023 B", "1.0 kB", "64.0 MB", "5.0 GB"]);
    }
}
