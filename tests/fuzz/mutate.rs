//! Makes a new input of old ones: by characters, by words of the target, by lines, and by the nodes of JSON documents.

use serde_json::{Map, Value};

use crate::corpus::Corpus;
use crate::random::Random;

/// Stands between the documents of one input.
pub(crate) const SEPARATOR: &str = "\n---\n";
const MAX_INPUT: usize = 16 << 10;

pub(crate) fn mutate(corpus: &Corpus, words: &[&str], random: &mut Random) -> String {
    let mut input = corpus.pick(random).to_owned();
    for _ in 0..=random.below(4) {
        input = match random.below(8) {
            0 => cut(&input, random),
            1 => put(&input, random.pick(words).copied().unwrap_or_default(), random),
            2 => character(&input, random),
            3 => spliced(&input, corpus.pick(random), random),
            4 => lines(&input, random),
            _ => documents(&input, corpus.pick(random), words, random),
        };
    }
    let end = (0..=MAX_INPUT.min(input.len())).rev().find(|at| input.is_char_boundary(*at)).unwrap_or(0);
    input.truncate(end);
    input
}

/// A place between two characters.
fn place(text: &str, random: &mut Random) -> usize {
    let at = random.below(text.len() + 1);
    (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

fn cut(input: &str, random: &mut Random) -> String {
    let from = place(input, random);
    let wanted = from + random.below(12);
    let to = (wanted..=input.len()).find(|at| input.is_char_boundary(*at)).unwrap_or(input.len());
    format!("{}{}", &input[..from], &input[to.max(from)..])
}

fn put(input: &str, word: &str, random: &mut Random) -> String {
    let at = place(input, random);
    format!("{}{word}{}", &input[..at], &input[at..])
}

fn character(input: &str, random: &mut Random) -> String {
    const ODD: [&str; 24] = [
        "{", "}", "[", "]", "\"", "\\", ":", ",", ".", "-", "0", "9", "e", "E", "+", " ", "\n", "\u{0}", "é", "İ",
        "\u{feff}", "\\ud800", "#", "&",
    ];
    let at = place(input, random);
    let behind = input[at..].chars().next().map_or(at, |c| at + c.len_utf8());
    format!("{}{}{}", &input[..at], random.pick(&ODD).copied().unwrap_or_default(), &input[behind..])
}

fn spliced(input: &str, other: &str, random: &mut Random) -> String {
    format!("{}{}", &input[..place(input, random)], &other[place(other, random)..])
}

fn lines(input: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = input.split('\n').map(str::to_owned).collect();
    let (from, to) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(4) {
        0 => lines.swap(from, to),
        1 => {
            let line = lines[from].clone();
            lines.insert(to, line);
        }
        2 => drop(lines.remove(from)),
        _ => lines[from] = format!("{}{}", " ".repeat(random.below(5)), lines[from].trim_start()),
    }
    lines.join("\n")
}

/// Changes one node of one document, if that is JSON.
fn documents(input: &str, other: &str, words: &[&str], random: &mut Random) -> String {
    let mut parts: Vec<String> = input.split(SEPARATOR).map(str::to_owned).collect();
    let at = random.below(parts.len());
    let Ok(mut tree) = serde_json::from_str::<Value>(&parts[at]) else { return character(input, random) };
    let donors: Vec<Value> = other.split(SEPARATOR).filter_map(|part| serde_json::from_str(part).ok()).collect();
    let donor = random.pick(&donors).map_or(Value::Null, |tree| nth(tree, random.below(count(tree))).clone());
    let word = random.pick(words).copied().unwrap_or_default();
    let wanted = random.below(count(&tree));
    change(&mut tree, wanted, donor, word, random);
    parts[at] = tree.to_string();
    parts.join(SEPARATOR)
}

fn children(tree: &Value) -> Vec<&Value> {
    match tree {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn count(tree: &Value) -> usize {
    1 + children(tree).into_iter().map(count).sum::<usize>()
}

fn nth(tree: &Value, mut n: usize) -> &Value {
    if n == 0 {
        return tree;
    }
    n -= 1;
    for child in children(tree) {
        let size = count(child);
        if n < size {
            return nth(child, n);
        }
        n -= size;
    }
    tree
}

fn change(tree: &mut Value, mut n: usize, donor: Value, word: &str, random: &mut Random) {
    if n == 0 {
        *tree = changed(std::mem::take(tree), donor, word, random);
        return;
    }
    n -= 1;
    let children: Vec<&mut Value> = match tree {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(map) => map.values_mut().collect(),
        _ => return,
    };
    for child in children {
        let size = count(child);
        if n < size {
            return change(child, n, donor, word, random);
        }
        n -= size;
    }
}

fn changed(node: Value, donor: Value, word: &str, random: &mut Random) -> Value {
    let one = |key: &str, value| Value::Object(Map::from_iter([(key.to_owned(), value)]));
    match (node, random.below(10)) {
        (Value::Object(mut map), 0 | 1) => {
            let key = random.pick(&map.keys().cloned().collect::<Vec<_>>()).cloned().unwrap_or_default();
            map.remove(&key);
            Value::Object(map)
        }
        (Value::Object(mut map), 2 | 3) => {
            map.insert(word.to_owned(), donor);
            Value::Object(map)
        }
        (Value::Array(mut list), 0..=3) => {
            list.insert(random.below(list.len() + 1), donor);
            Value::Array(list)
        }
        (Value::String(text), 0 | 1) => Value::String(put(&text, word, random)),
        (Value::String(text), 2) => Value::String(cut(&text, random)),
        (Value::String(text), 3) => Value::String(character(&text, random)),
        (Value::Number(number), 0..=2) => number.as_i64().map_or(donor, |n| Value::from(n.wrapping_add(1))),
        (node, 4) => one("not", node),
        (node, 5) => one(word, node),
        (node, 6) => one("all", Value::Array(vec![node, donor])),
        (node, 7) => one("any", Value::Array(vec![donor, node])),
        (_, 8) => Value::String(word.to_owned()),
        (_, _) => donor,
    }
}
