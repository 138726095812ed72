//! Where each value was written, and what that adds to problems that are found after loading.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use ductile_domain::problem::Problem;

use crate::findings::Findings;
use crate::node::{Content, Filled, Node, join};

/// What stands in a message for a text that the environment gave.
const HIDDEN: &str = "the value from the environment";

/// A shorter text is taken out of a message only where it stands in quotes.
const SHORTEST_BARE: usize = 4;

/// So many characters of a hidden text in a row are a part of it and no accident.
const TELLTALE: usize = 8;

/// Where each value of the merged document was written. Its `Debug` only counts, for it knows texts of the environment.
#[derive(Clone, Default)]
pub struct Provenance {
    places: BTreeMap<String, Place>,
    /// Index of the first pipeline of each name.
    pipelines: BTreeMap<String, usize>,
    /// Texts with a value of the environment, by path: those that later problems may quote.
    hidden: BTreeMap<String, String>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Absolute.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

impl fmt::Debug for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provenance")
            .field("places", &self.places.len())
            .field("hidden", &self.hidden.len())
            .finish_non_exhaustive()
    }
}

impl Provenance {
    pub(crate) fn of(root: &Node, findings: &Findings) -> Self {
        let mut provenance = Self::default();
        root.walk("", &mut |path, node| {
            let Some(file) = findings.files.get(node.origin.file) else { return };
            if path.is_empty() {
                return;
            }
            let place = Place { file: file.clone(), line: node.origin.line, column: node.origin.column };
            provenance.places.insert(path.to_owned(), place);
            if let (Content::Text(text), Filled::FromEnvironment, true) = (&node.content, node.filled, is_quoted(path))
            {
                provenance.hidden.insert(path.to_owned(), text.clone());
            }
        });
        let pipelines = root.map().and_then(|keys| keys.get("pipelines")).map(|node| &node.content);
        if let Some(Content::List(items)) = pipelines {
            for (i, item) in items.iter().enumerate() {
                if let Some(name) = item.map().and_then(|keys| keys.get("name")).and_then(Node::text) {
                    provenance.pipelines.entry(name.to_owned()).or_insert(i);
                }
            }
        }
        provenance
    }

    /// The place of what `path` names, such as `plugins.echo.parallelism` or `api.auth.tokens[0].scopes`; `None` for
    /// a default.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Place> {
        self.places.get(path)
    }

    /// All places by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.places.iter().map(|(path, place)| (path.as_str(), place))
    }

    /// All places at and below `path`, which may name pipelines by name, and entries of lists by `.<index>`.
    pub fn below(&self, path: &str) -> impl Iterator<Item = (&str, &Place)> {
        let path = self.indexed(&self.by_index(path));
        let is_below = move |at: &str| {
            path.is_empty()
                || at.strip_prefix(&*path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.iter().filter(move |(at, _)| is_below(at))
    }

    /// `steps.0.uses` as `steps[0].uses`, where that is a value that was written.
    fn indexed(&self, path: &str) -> String {
        let mut out = String::new();
        for part in path.split('.') {
            let index = format!("{out}[{part}]");
            out = if self.places.contains_key(&index) { index } else { join(&out, part) };
        }
        out
    }

    /// Adds file, line and column to problems that others found in the loaded configuration, and takes out of their
    /// texts what came from the environment.
    ///
    /// The place is that of a problem's path, or of the nearest value around it that was written. A path may begin
    /// with `pipelines.<name>`, which means the first pipeline of that name, or with `pipelines[<index>]`. What has a
    /// file already keeps it.
    #[must_use]
    pub fn place(&self, problems: Vec<Problem>) -> Vec<Problem> {
        problems.into_iter().map(|problem| self.placed(problem)).collect()
    }

    fn placed(&self, mut problem: Problem) -> Problem {
        let Some(path) = problem.path.as_deref().map(|path| self.by_index(path)) else { return problem };
        if problem.file.is_none()
            && let Some(place) = around(&path).find_map(|path| self.places.get(path))
        {
            problem.file = Some(place.file.clone());
            if place.line > 0 {
                problem = problem.at(place.line, place.column.max(1));
            }
        }
        if is_section_of_authors(&path) {
            self.hide(&path, &mut problem);
        }
        problem
    }

    /// `pipelines.<name>.steps[0]` as `pipelines[<index>].steps[0]`. A name may hold dots: the longest that fits.
    fn by_index(&self, path: &str) -> String {
        let named = path.strip_prefix("pipelines.").and_then(|named| {
            let fits = self.pipelines.iter().filter_map(|(name, i)| {
                let rest = named.strip_prefix(name.as_str())?;
                (rest.is_empty() || rest.starts_with('.')).then_some((name.len(), i, rest))
            });
            fits.max_by_key(|(length, ..)| *length)
        });
        match named {
            Some((_, i, rest)) => format!("pipelines[{i}]{rest}"),
            None => path.to_owned(),
        }
    }

    fn hide(&self, path: &str, problem: &mut Problem) {
        for (at, text) in &self.hidden {
            problem.message = without(&problem.message, text);
            problem.hint = problem.hint.take().map(|hint| without(&hint, text));
            if let Some(path) = &mut problem.path {
                *path = without(path, text);
            }
            // A problem of this very value may speak of parts of it.
            let parent = around(at).nth(1);
            if at == path || parent == Some(path) {
                if shows_a_part(&problem.message, text) {
                    problem.message = format!("{HIDDEN} does not fit here");
                }
                problem.hint = problem.hint.take().filter(|hint| !shows_a_part(hint, text));
            }
        }
    }
}

/// True where later problems quote texts.
fn is_quoted(path: &str) -> bool {
    path.starts_with("pipelines[")
        || path.starts_with("routes[")
        || path.starts_with("plugins.") && path.ends_with(".uses")
        || path.starts_with("instances[") && path.ends_with(".name")
}

fn is_section_of_authors(path: &str) -> bool {
    ["pipelines", "routes", "plugins"]
        .iter()
        .any(|section| path.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
}

/// The path and all around it, inner ones first.
fn around(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rfind(['.', '[']).map(|end| &path[..end]))
}

/// The text without a hidden one, as it is or escaped.
fn without(shown: &str, hidden: &str) -> String {
    if hidden.is_empty() {
        return shown.to_owned();
    }
    let quoted = format!("{hidden:?}");
    let escaped = &quoted[1..quoted.len() - 1];
    let mut out = shown.replace(&quoted, HIDDEN);
    for (open, close) in [('`', '`'), ('\'', '\''), ('{', '}')] {
        out = out.replace(&format!("{open}{hidden}{close}"), HIDDEN);
    }
    if hidden.chars().count() >= SHORTEST_BARE {
        out = out.replace(escaped, HIDDEN).replace(hidden, HIDDEN);
    }
    out
}

fn shows_a_part(shown: &str, hidden: &str) -> bool {
    let starts: Vec<usize> = hidden.char_indices().map(|(at, _)| at).chain([hidden.len()]).collect();
    starts.windows(TELLTALE + 1).any(|w| shown.contains(&hidden[w[0]..w[TELLTALE]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provenance() -> Provenance {
        let place = |line| Place { file: "/c/p.yaml".into(), line, column: 3 };
        let places = [
            ("pipelines", 1),
            ("pipelines[0]", 2),
            ("pipelines[0].steps", 4),
            ("pipelines[0].steps[0]", 5),
            ("pipelines[0].steps[0].uses", 6),
        ]
        .into_iter()
        .chain([
            ("pipelines[1]", 8),
            ("pipelines[1].steps", 9),
            ("routes[0].to", 20),
            ("plugins.a.b.config", 30),
        ]);
        Provenance {
            places: places.map(|(path, line)| (path.to_owned(), place(line))).collect(),
            pipelines: [("a".to_owned(), 0), ("a.steps".to_owned(), 1)].into(),
            hidden: [
                ("pipelines[0].steps[0].uses".to_owned(), "hush-hush-plugin".to_owned()),
                ("pipelines[1].name".to_owned(), "q\"x".to_owned()),
            ]
            .into(),
        }
    }

    fn placed(path: &str, message: &str) -> Problem {
        let problems = provenance().place(vec![Problem::error("pipelines", message).at_path(path)]);
        problems.into_iter().next().expect("one for one")
    }

    #[test]
    fn a_problem_gets_the_place_of_the_nearest_value_around_it() {
        for (path, line) in [
            ("pipelines.a.steps[0].uses", Some(6)),
            ("pipelines.a.steps[0].with.x", Some(5)),
            ("pipelines.a.steps[1].uses", Some(4)),
            ("pipelines.a", Some(2)),
            ("pipelines[0].from_plugin", Some(2)),
            // Its name has a dot; the longer name wins.
            ("pipelines.a.steps.steps[7]", Some(9)),
            ("pipelines.unknown.name", Some(1)),
            ("pipelines[9].name", Some(1)),
            ("routes[0].to", Some(20)),
            ("routes[1].to", None),
            ("plugins.a.b.config.url", Some(30)),
            ("", None),
        ] {
            assert_eq!(placed(path, "x").line, line, "{path}");
        }
        let elsewhere = Problem::error("yaml", "x").in_file("/other").at_path("pipelines[0]");
        assert_eq!(provenance().place(vec![elsewhere.clone()]), [elsewhere]);
    }

    #[test]
    fn places_are_listed_below_a_path_of_either_form() {
        let lines = |path: &str| provenance().below(path).map(|(_, place)| place.line).collect::<Vec<_>>();
        assert_eq!(lines("pipelines.a"), [2, 4, 5, 6]);
        assert_eq!(lines("pipelines.0.steps"), [4, 5, 6]);
        assert_eq!(lines("pipelines[0].steps.0"), [5, 6]);
        assert_eq!(lines("pipelines.0.steps.0.uses"), [6]);
        assert_eq!(lines("pipelines.a.steps.steps"), [9]);
        assert_eq!(lines("plugins.a"), [30]);
        assert_eq!(lines("plugins.a.b"), [30]);
        assert_eq!(lines("").len(), 9);
        assert!(lines("nothing").is_empty());
    }

    #[test]
    fn what_the_environment_gave_is_taken_out_of_a_problem() {
        let shown = |path: &str, message: &str| placed(path, message).message;
        assert_eq!(shown("pipelines.a.steps[0].uses", "no plugin \"hush-hush-plugin\""), format!("no plugin {HIDDEN}"));
        assert_eq!(shown("routes[0].to", "not hush-hush-plugin at all"), format!("not {HIDDEN} at all"));
        // A part of the value at its own path, but not words that a stranger's message happens to share.
        assert_eq!(shown("pipelines[0].steps[0].uses", "odd `hush-plu`"), format!("{HIDDEN} does not fit here"));
        assert_eq!(shown("pipelines[0].steps[0]", "odd `hush-plu`"), format!("{HIDDEN} does not fit here"));
        assert_eq!(shown("pipelines[1].steps", "my -plugin"), "my -plugin");
        // Short ones only in quotes, escaped or not.
        assert_eq!(shown("pipelines[1]", "two named \"q\\\"x\", q\"x"), format!("two named {HIDDEN}, q\"x"));
        let hinted = provenance()
            .place(vec![Problem::error("p", "m").at_path("pipelines.a.steps[0].uses").hint("hush-hush, not plugin")]);
        assert_eq!(hinted[0].hint, None);
        assert!(!format!("{:?}", provenance()).contains("hush"));
    }
}
