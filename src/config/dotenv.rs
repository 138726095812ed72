//! Reads `.env` files: `NAME=value` lines, nothing that runs or refers to anything else.

/// One line that could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// From 1.
    pub(crate) line: usize,
    /// Never quotes the line, for it may hold a secret.
    pub(crate) message: &'static str,
}

/// The assignments of a `.env` file in order, and the lines that are none.
///
/// `export ` is allowed before the name. A value is plain (ends at ` #`), `'literal'` or `"escaped"` (`\n`, `\r`, `\t`,
/// `\"`, `\\`, `\$`). Values refer to no other variable.
pub(crate) fn parse(text: &str) -> (Vec<(String, String)>, Vec<BadLine>) {
    let mut found = Vec::new();
    let mut bad = Vec::new();
    for (i, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match assignment(line) {
            Ok(pair) => found.push(pair),
            Err(message) => bad.push(BadLine { line: i + 1, message }),
        }
    }
    (found, bad)
}

fn assignment(line: &str) -> Result<(String, String), &'static str> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').ok_or("expected NAME=value")?;
    let name = name.trim();
    if !is_variable(name) {
        return Err("the name before `=` must be letters, digits and `_`, not beginning with a digit");
    }
    Ok((name.to_owned(), unquote(value.trim())?))
}

fn unquote(value: &str) -> Result<String, &'static str> {
    if let Some(rest) = value.strip_prefix('\'') {
        let (inside, after) = rest.split_once('\'').ok_or("the quote is not closed on its line")?;
        return only_a_comment(after).map(|()| inside.to_owned());
    }
    let Some(rest) = value.strip_prefix('"') else {
        let plain = value.split_once(" #").map_or(value, |(before, _)| before);
        let plain = if plain.starts_with('#') { "" } else { plain };
        return Ok(plain.trim_end().to_owned());
    };
    let mut out = String::new();
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return only_a_comment(chars.as_str()).map(|()| out),
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some(c @ ('"' | '\\' | '$')) => out.push(c),
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                None => break,
            },
            other => out.push(other),
        }
    }
    Err("the quote is not closed on its line")
}

fn only_a_comment(after: &str) -> Result<(), &'static str> {
    let after = after.trim_start();
    if after.is_empty() || after.starts_with('#') { Ok(()) } else { Err("text follows the closing quote") }
}

/// True for the name of an environment variable.
pub(crate) fn is_variable(name: &str) -> bool {
    matches!(name.as_bytes().first(), Some(b) if b.is_ascii_alphabetic() || *b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read_and_bad_lines_named() {
        let text = "# c\nA=1\nexport B = two words # comment\nC='a # $b'\nD=\"x\\n\\\"y\\\"\" # c\nE=\n\nno\n1F=x\nG='open\nH=\"a\" b\nI=a#b\r\n";
        let (found, bad) = parse(text);
        let expected = [("A", "1"), ("B", "two words"), ("C", "a # $b"), ("D", "x\n\"y\""), ("E", ""), ("I", "a#b")];
        let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(found, expected);
        assert_eq!(bad.iter().map(|b| b.line).collect::<Vec<_>>(), [8, 9, 10, 11]);
    }
}
