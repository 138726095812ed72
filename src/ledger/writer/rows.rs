//! Writes the JSON array of arrays in which a section of a batch carries its operations.

use serde::Serialize;

/// A growing `[[...],[...]]`.
#[derive(Default)]
pub(super) struct Rows {
    text: Vec<u8>,
}

impl Rows {
    /// Begins a row; the values follow by [`Row::put`].
    pub(super) fn row(&mut self) -> Row<'_> {
        self.text.push(if self.text.is_empty() { b'[' } else { b',' });
        self.text.push(b'[');
        Row { rows: self, is_first: true }
    }

    /// The whole, or `None` without rows.
    pub(super) fn finish(mut self) -> Option<String> {
        if self.text.is_empty() {
            return None;
        }
        self.text.push(b']');
        Some(String::from_utf8(self.text).expect("serde_json writes UTF-8"))
    }
}

/// One row in the making; dropping it closes the bracket.
pub(super) struct Row<'a> {
    rows: &'a mut Rows,
    is_first: bool,
}

impl Row<'_> {
    /// Appends a string, a number, a truth value or null.
    pub(super) fn put(&mut self, value: impl Serialize) -> &mut Self {
        if !self.is_first {
            self.rows.text.push(b',');
        }
        self.is_first = false;
        serde_json::to_writer(&mut self.rows.text, &value).expect("plain values serialize into memory");
        self
    }
}

impl Drop for Row<'_> {
    fn drop(&mut self) {
        self.rows.text.push(b']');
    }
}
