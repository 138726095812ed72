//! The definition is sound, documented lines are understood, nonsense is not.

use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("ductile").chain(line.split_whitespace()))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

/// CLI-01, CLI-02, CLI-04: nouns, actions and universal flags are understood wherever they stand.
#[test]
fn documented_lines_are_understood() {
    for line in [
        "system start --config /tmp/c",
        "--config /tmp/c system start",
        "system start --config-dir /tmp/c",
        "system stop --timeout 500ms --dry-run",
        "system status --json",
        "system status --output json",
        "system storage --json",
        "system tree --watch --json",
        "system tree --text",
        "system pause --dry-run",
        "system resume",
        "system selfcheck --json",
        "system doctor --health --json",
        "system reload --dry-run",
        "system reload --signal --json",
        "system restart root/policy_sup/router --dry-run",
        "system demo --keep",
        "system migrate --dry-run",
        "system breaker --json",
        "system breaker echo",
        "system reset echo --dry-run",
        "schedule list --plugin echo --json",
        "schedule explain echo",
        "schedule explain echo nightly --json",
        "schedule pause echo nightly --dry-run",
        "schedule pause echo",
        "schedule resume echo",
        "schedule run echo nightly --wait --timeout 5m --dry-run",
        "job list --all",
        "job list --status queued --plugin echo --limit 5",
        "job inspect 01890f3e-7c5a-7000-8000-000000000000 --json -v",
        "job logs --plugin p --command c --status failed --submitted-by cli --from a --to b --query q --limit 200 --include-result --json",
        "job cancel x --reason no",
        "job wait x --timeout 2",
        "job replay x --payload {} --wait --timeout 2 --dry-run",
        "job replay x --from-step deliver",
        "job tree x --json",
        "job reproduce x --timeout 2s --json",
        "plugin list --api-url http://127.0.0.1:8080 --api-key k --json",
        "plugin run echo",
        "plugin run echo health",
        "plugin run echo handle --payload - -f a=b -f c:=1 --timeout 1h",
        "plugin show echo",
        "plugin check plugins/echo --json",
        "plugin test plugins/echo --command poll -c handle --payload {} --config {} --timeout 5s --json",
        "plugin test plugins/echo --plugin-config {} --state {} --event-type a.b",
        "plugin facts echo --type echo.snapshot --limit 5 --before-seq 9 --json",
        "plugin stopwatch echo --command poll --window 1h",
        "plugin run echo --no-route -f a=b",
        "pipeline list --json",
        "pipeline show nightly -v --json",
        "pipeline visualize nightly --format dot",
        "pipeline visualize nightly --format mermaid --json",
        "pipeline dry-run nightly --payload {} -f a=b --json",
        "pipeline run nightly --payload @file --async",
        "pipeline run nightly -f a:=1 --wait --timeout 5m --dry-run",
        "config check --strict --json",
        "config show plugin:echo",
        "config show pipeline:nightly",
        "config get plugins.echo.enabled --json",
        "config init --dry-run",
        "init",
        "api /jobs",
        "api /plugin/echo/poll -f message=hello -H Idempotency-Key:a",
        "api /system/reload -X POST --api-url http://127.0.0.1:1 --api-key k",
        "api /x -b {} --dry-run",
        "version",
        "--version",
        "run echo poll",
        "status",
        "plugins",
        "logs echo --limit 3",
        "queue --all",
        "inspect x",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line:?}: {error}");
        }
    }
}

/// CLI-06: what is not understood is a usage error.
#[test]
fn nonsense_exits_with_two() {
    for line in [
        "frobnicate",
        "system frobnicate",
        "system",
        "job list --frobnicate",
        "job logs --limit 0",
        "job wait x --timeout soon",
        "pipeline",
        "pipeline run nightly --async --wait",
        "pipeline run nightly --timeout 5s",
        "schedule",
        "schedule explain",
        "schedule run echo --timeout 5s",
        "system reset",
        "pipeline visualize nightly --format svg",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains("--help") || error.to_string().contains("Usage:"), "{line}: {error}");
    }
}

/// CLI-06: `--help` works on every level and shows examples.
#[test]
fn help_works_on_every_level() {
    fn walk(command: &mut clap::Command, path: &str) {
        let help = command.render_long_help().to_string();
        assert!(help.contains("Usage:"), "{path}");
        let is_alias = command.get_about().is_some_and(|a| a.to_string().starts_with("Alias of"));
        if command.get_subcommands().next().is_none() && !is_alias {
            assert!(help.contains("Example"), "{path} shows no example:\n{help}");
        }
        let names: Vec<_> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
        for name in names {
            walk(command.find_subcommand_mut(&name).expect("listed"), &format!("{path} {name}"));
        }
    }
    let mut root = Cli::command();
    root.build();
    walk(&mut root, "ductile");
}

#[test]
fn durations_need_a_known_unit() {
    assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
    assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
    assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
    for bad in ["", "s", "1d", "-1s", "1.5s", "99999999999999999999s", "1000h"] {
        assert!(duration(bad).is_err(), "{bad:?}");
    }
}
