//! The examples of the cookbook and of the page compile.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ductile_domain::problem::Problem;

use crate::verdict::{checkout, compile, home, lines, loaded, loaded_text, named, plugins};

/// All files of the cookbook.
pub(crate) fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(checkout().join("tests/cookbook")).expect("the cookbook");
    let mut files: Vec<_> = entries.map(|e| e.expect("readable").path()).collect();
    files.sort();
    assert!(files.len() > 12, "the cookbook was not found");
    files
}

/// With the plugins that it names, every example compiles without an error.
#[test]
fn every_example_of_the_cookbook_compiles() {
    let mut count = 0;
    for file in files() {
        let mut loaded = loaded(&file, &home);
        let names = named(&loaded.config);
        let bases: BTreeSet<String> = loaded.config.plugins.values().filter_map(|e| e.uses.clone()).collect();
        let found = plugins(names.iter().chain(&bases).map(String::as_str));
        // What the file leaves to the operator's own entries.
        let entries: String = found.keys().map(|name| format!("  {name}: {{}}\n")).collect();
        let minimal = loaded_text(&format!("plugins:\n{entries}")).expect("entries").config.plugins;
        for (name, entry) in minimal {
            loaded.config.plugins.entry(name).or_insert(entry);
        }
        let (pipelines, problems) = compile(&loaded, &found);
        assert!(!problems.iter().any(Problem::is_error), "{}:\n{}", file.display(), lines(&problems));
        assert_eq!(pipelines.iter().count(), loaded.config.pipelines.len(), "{}", file.display());
        assert_eq!(pipelines.routes().len(), loaded.config.routes.len(), "{}", file.display());
        count += loaded.config.pipelines.len() + loaded.config.routes.len();
    }
    assert!(count > 35, "only {count} examples");
}

/// RTR-06: without them, each missing plugin is reported by its name, and nothing else is.
#[test]
fn the_cookbook_names_each_plugin_that_is_missing() {
    for file in files() {
        let mut loaded = loaded(&file, &home);
        loaded.config.plugins.clear();
        let (_, problems) = compile(&loaded, &plugins([]));
        let errors: Vec<_> = problems.iter().filter(|p| p.is_error()).collect();
        for name in named(&loaded.config) {
            let is_named = errors.iter().any(|p| p.message.contains(&format!("{name:?}")));
            assert!(is_named, "{}: nothing is said of {name}:\n{}", file.display(), lines(&problems));
        }
        for error in errors {
            assert!(error.message.contains("no plugin or alias is named"), "{}: {error}", file.display());
        }
    }
}

/// Every YAML block of the page that explains pipelines compiles too.
#[test]
fn every_example_of_the_page_compiles() {
    let page = std::fs::read_to_string(checkout().join("docs/pipelines.md")).expect("the page");
    let blocks: Vec<&str> =
        page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
    assert!(blocks.len() > 5, "the page has only {} examples", blocks.len());
    for block in blocks {
        let mut loaded = loaded_text(block).unwrap_or_else(|p| panic!("{block}\n{}", lines(&p)));
        let names = named(&loaded.config);
        let found = plugins(names.iter().map(String::as_str));
        let entries: String = found.keys().map(|name| format!("  {name}: {{}}\n")).collect();
        let minimal = loaded_text(&format!("plugins:\n{entries}")).expect("entries").config.plugins;
        for (name, entry) in minimal {
            loaded.config.plugins.entry(name).or_insert(entry);
        }
        let (_, problems) = compile(&loaded, &found);
        assert!(problems.is_empty(), "{block}\n{}", lines(&problems));
    }
}
