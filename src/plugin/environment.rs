//! The environment that a plugin sees: an allow-list, never the gateway's own.

use std::ffi::OsString;
use std::sync::Arc;

use ductile_domain::ids::{BootId, JobId};

use crate::leftovers::{BOOT_ID, JOB_ID};

/// Passed to every plugin when the gateway has it; so is every `LC_*`.
pub const ALLOWED: &[&str] = &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "LANG", "LANGUAGE", "TMPDIR"];

/// Picks what a plugin may see from the gateway's environment, in a fixed order.
///
/// `passthrough` holds the names of `service.plugin_env_passthrough` and `plugins.<name>.env_passthrough`. Names of
/// the gateway's own (`DUCTILE_JOB_ID` and the like) are never taken from outside. Without a `PATH` the plugin gets
/// the system's usual one, so that `#!/usr/bin/env` works under a bare init.
pub fn allowed<'a>(
    gateway: impl IntoIterator<Item = (OsString, OsString)>,
    passthrough: impl IntoIterator<Item = &'a str>,
) -> Arc<[(OsString, OsString)]> {
    let passthrough: Vec<&str> = passthrough.into_iter().collect();
    let mut env: Vec<(OsString, OsString)> = gateway
        .into_iter()
        .filter(|(name, _)| {
            let Some(name) = name.to_str() else { return false };
            let is_listed = ALLOWED.contains(&name) || name.starts_with("LC_") || passthrough.contains(&name);
            is_listed && !OWN.contains(&name)
        })
        .collect();
    if !env.iter().any(|(name, _)| name == "PATH") {
        env.push(("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()));
    }
    env.sort();
    env.dedup_by(|a, b| a.0 == b.0);
    env.into()
}

const ATTEMPT: &str = "DUCTILE_ATTEMPT";
const IDEMPOTENCY_KEY: &str = "DUCTILE_IDEMPOTENCY_KEY";
const OWN: &[&str] = &[BOOT_ID, JOB_ID, ATTEMPT, IDEMPOTENCY_KEY];

/// The variables that name one attempt; the idempotency key is the job's id, stable over its attempts.
#[must_use]
pub fn of_attempt(boot: BootId, job: JobId, attempt: u32) -> Vec<(OsString, OsString)> {
    let job = job.to_string();
    vec![
        (BOOT_ID.into(), boot.to_string().into()),
        (JOB_ID.into(), job.clone().into()),
        (ATTEMPT.into(), attempt.to_string().into()),
        (IDEMPOTENCY_KEY.into(), job.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect()
    }

    /// DIS-14, D-06: nothing but the allow-list and what was named reaches a plugin.
    #[test]
    fn a_plugin_sees_only_what_is_allowed_or_named() {
        let gateway = env(&[
            ("HOME", "/h"),
            ("LC_ALL", "C"),
            ("SECRET_TOKEN", "canary"),
            ("AWS_REGION", "x"),
            ("LD_PRELOAD", "/evil.so"),
            ("DUCTILE_BOOT_ID", "another gateway's"),
        ]);
        let seen = allowed(gateway, ["AWS_REGION", "DUCTILE_BOOT_ID"]);
        let names: Vec<_> = seen.iter().filter_map(|(k, _)| k.to_str()).collect();
        assert_eq!(names, ["AWS_REGION", "HOME", "LC_ALL", "PATH"]);
    }

    #[test]
    fn the_path_is_the_gateways_own_when_it_has_one() {
        let seen = allowed(env(&[("PATH", "/opt/bin")]), []);
        assert_eq!(&*seen, env(&[("PATH", "/opt/bin")]).as_slice());
    }
}
