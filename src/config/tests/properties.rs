//! For arbitrary texts: loading answers, and a variable's value never becomes structure.

use ductile_config::load;
use proptest::prelude::*;

fn load_text(text: &str, value: &str) -> Result<ductile_config::Loaded, Vec<ductile_domain::problem::Problem>> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("config.yaml");
    std::fs::write(&path, text).expect("writable");
    load(&path, &|name| (name == "VALUE").then(|| value.to_owned()))
}

/// Lines that come close to a configuration, so that more than the parser is reached.
fn almost_a_configuration() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        Just("service"),
        Just("plugins"),
        Just("api"),
        Just("auth"),
        Just("tokens"),
        Just("state"),
        Just("path"),
        Just("max_workers"),
        Just("tick_interval"),
        Just("listen"),
        Just("scopes"),
        Just("token"),
        Just("key"),
        Just("include"),
        Just("environment_vars"),
        Just("plugin_roots"),
        Just("echo"),
        Just("config"),
        Just("retry"),
        Just("timeouts"),
        Just("webhooks"),
        Just("<<"),
        Just("x-a"),
        Just("database"),
        Just("name"),
        Just("uses"),
    ];
    let value = prop_oneof![
        Just(String::new()),
        Just("${VALUE}".to_owned()),
        Just("${NOT_DEFINED}".to_owned()),
        Just("[a, {b: c}]".to_owned()),
        Just("{a: b}".to_owned()),
        Just("-1".to_owned()),
        Just("1h".to_owned()),
        Just("true".to_owned()),
        Just("&a x".to_owned()),
        Just("*a".to_owned()),
        Just("~".to_owned()),
        "[ -~]{0,12}",
    ];
    let line = (0usize..4, any::<bool>(), key, value).prop_map(|(depth, item, key, value)| {
        format!("{}{}{key}: {value}\n", "  ".repeat(depth), if item { "- " } else { "" })
    });
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn loading_arbitrary_text_never_panics(text in any::<String>(), value in any::<String>()) {
        let _ = load_text(&text, &value);
    }

    #[test]
    fn loading_what_is_almost_a_configuration_never_panics(text in almost_a_configuration(), value in any::<String>()) {
        if let Err(problems) = load_text(&text, &value) {
            prop_assert!(problems.iter().any(|p| p.is_error()));
            for problem in problems {
                let is_placed = problem.file.is_some() || problem.path.is_some();
                prop_assert!(is_placed, "nobody can find {problem}");
            }
        }
    }

    /// CFG-09: in plain, quoted and block scalars, as list item and as map value.
    #[test]
    fn a_variable_never_changes_the_structure(value in any::<String>()) {
        let text = "plugins:\n  a:\n    config:\n      plain: ${VALUE}\n      double: \"${VALUE}\"\n      single: 'a${VALUE}b'\n      block: |-\n        ${VALUE}\n      list:\n        - ${VALUE}\n        - end\n";
        let loaded = load_text(text, &value).expect("valid whatever the value");
        prop_assert_eq!(loaded.config.plugins.len(), 1);
        let config = &loaded.config.plugins["a"].config;
        prop_assert_eq!(config.len(), 5);
        prop_assert_eq!(config["plain"].as_str(), Some(value.as_str()));
        prop_assert_eq!(config["double"].as_str(), Some(value.as_str()));
        let single = format!("a{value}b");
        prop_assert_eq!(config["single"].as_str(), Some(single.as_str()));
        prop_assert_eq!(config["block"].as_str(), Some(value.as_str()));
        prop_assert_eq!(config["list"].as_array().map(Vec::len), Some(2));
        prop_assert_eq!(config["list"][0].as_str(), Some(value.as_str()));
    }
}
