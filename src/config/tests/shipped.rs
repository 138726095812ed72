//! The configuration in `config/` is one that runs.

use std::path::Path;

use ductile_config::load;

/// It loads without a single problem, on any machine, and says what the README promises.
#[test]
fn the_shipped_configuration_has_no_problem() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the checkout");
    let loaded = load(&checkout.join("config/config.yaml"), &|_| None).unwrap_or_else(|p| panic!("{p:#?}"));
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    let enabled: Vec<_> = config.plugins.iter().filter(|(_, p)| p.enabled).map(|(name, _)| name.as_str()).collect();
    assert_eq!(enabled, ["echo", "py-greet", "stress", "sys_exec"]);
    assert_eq!(config.plugin_roots, [checkout.join("plugins")]);
    for name in enabled {
        assert!(checkout.join("plugins").join(name).join("manifest.yaml").is_file(), "{name} is not shipped");
    }
    assert_eq!(config.state.path, checkout.join("data/ductile.db"));
    assert!(config.api.tokens.is_empty() && config.api.listen.ip().is_loopback());
}
