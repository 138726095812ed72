//! Reads the stream of live events.

use std::collections::VecDeque;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

/// One frame of the stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    /// `<boot id>-<seq>`, to resume after; empty when the frame had none.
    pub id: String,
    /// Type, such as `actor.crashed`, `reset` or `bye`.
    pub kind: String,
    /// The object with the event's fields; null when it was no JSON.
    pub data: Value,
}

/// The frames as they arrive.
#[derive(Debug)]
pub(crate) struct Events {
    body: Incoming,
    parser: Parser,
    ready: VecDeque<Frame>,
}

impl Events {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, parser: Parser::default(), ready: VecDeque::new() }
    }

    /// The next frame; `None` when the stream has ended, in whatever way. Safe to drop while it waits.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            let chunk = self.body.frame().await?.ok()?;
            if let Some(bytes) = chunk.data_ref() {
                self.ready.extend(self.parser.feed(bytes));
            }
        }
    }
}

/// Splits bytes into frames, wherever the network cut them.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    id: String,
    kind: String,
    data: String,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            frames.extend(self.line(line.trim_end_matches('\r')));
        }
        frames
    }

    fn line(&mut self, line: &str) -> Option<Frame> {
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            let kind = std::mem::take(&mut self.kind);
            let id = std::mem::take(&mut self.id);
            // A frame without data is a comment or a keep-alive, unless it has a name.
            return (!data.is_empty() || !kind.is_empty()).then(|| Frame {
                id,
                kind: if kind.is_empty() { "message".into() } else { kind },
                data: serde_json::from_str(&data).unwrap_or_default(),
            });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = value.to_owned(),
            "event" => self.kind = value.to_owned(),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // Comments have an empty field name; unknown fields are to be ignored.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_wherever_the_network_cuts() {
        let text =
            b": keep-alive\n\nid: b-1\nevent: job.started\ndata: {\"a\":1}\n\nevent: bye\n\ndata: {\r\ndata: }\r\n\r\n";
        let whole = Parser::default().feed(text);
        assert_eq!(whole.len(), 3);
        assert_eq!((&*whole[0].id, &*whole[0].kind, &whole[0].data["a"]), ("b-1", "job.started", &Value::from(1)));
        assert_eq!((&*whole[1].kind, &whole[1].data), ("bye", &Value::Null));
        assert_eq!((&*whole[2].kind, &whole[2].data), ("message", &serde_json::json!({})));
        let mut parser = Parser::default();
        let bytewise: Vec<_> = text.iter().flat_map(|byte| parser.feed(&[*byte])).collect();
        assert_eq!(bytewise, whole);
    }
}
