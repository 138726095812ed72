//! `api:`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ductile_domain::config::{Api, Token};

use super::service;
use crate::findings::Findings;
use crate::node::{Node, Origin};
use crate::section::Section;
use crate::show::{self, Shown};

const DEFAULT_PORT: u16 = 8080;
const DEFAULT_BODY: u64 = 1 << 20;
const LARGEST_BODY: u64 = 1 << 30;
const DEFAULT_WAIT: Duration = Duration::from_secs(300);
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// As long as an attempt may run.
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 86_400);
const DEFAULT_WAITING: u32 = 10;
/// Each holds a connection open.
const MOST_WAITING: u32 = 10_000;

pub(crate) fn read(top: &mut Section<'_>, from: &service::Read, tokens: Vec<Token>, findings: &mut Findings) -> Api {
    let node = top.get("api");
    let mut keys = Section::open(node, "api", "api", findings);
    let enabled = keys.boolean("enabled", findings).unwrap_or(true);
    let (listen, written_at) = listen(&mut keys, from, findings);
    let body = keys.size("max_body_size", 1..=LARGEST_BODY, findings).unwrap_or(DEFAULT_BODY);
    // Its tokens were read by their own module.
    let mut auth = keys.section("auth", findings);
    auth.get("tokens");
    auth.close(findings);
    let waits = keys.duration("max_sync_timeout", SHORTEST_WAIT..=LONGEST_WAIT, findings).unwrap_or(DEFAULT_WAIT);
    let waiting = keys.number("max_concurrent_sync", 1..=MOST_WAITING, findings).unwrap_or(DEFAULT_WAITING);
    keys.later(&["allowed_origins"], findings);
    // With a file missing, its tokens are missing too, and the next two would blame the wrong thing.
    if enabled && tokens.is_empty() && findings.is_complete {
        let hint = "add an entry under api.auth.tokens with a token such as ${DUCTILE_TOKEN} and its scopes";
        if !listen.ip().is_loopback() {
            let text = format!("{listen} is reachable from other machines, and there is no token");
            let place = written_at.or(node.map(|n| n.origin));
            add(keys.error("listen", text).hint(format!("{hint}, or listen on 127.0.0.1")), place, findings);
        }
        if from.service.strict_mode {
            let text = "strict mode needs at least one token while the API is enabled";
            let place = node.map(|n| n.origin).or(from.strict_origin);
            add(keys.error("auth.tokens", text).hint(format!("{hint}, or set api.enabled: false")), place, findings);
        }
    }
    keys.close(findings);
    Api {
        enabled,
        listen,
        max_body_size: usize::try_from(body).unwrap_or(usize::MAX),
        max_sync_timeout: waits,
        max_concurrent_sync: waiting,
        tokens,
    }
}

fn add(problem: ductile_domain::problem::Problem, origin: Option<Origin>, findings: &mut Findings) {
    match origin {
        Some(origin) => findings.add(problem, origin),
        None => findings.problems.push(problem),
    }
}

fn listen(keys: &mut Section<'_>, from: &service::Read, findings: &mut Findings) -> (SocketAddr, Option<Origin>) {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT));
    let Some((text, node)) = keys.text("listen", findings) else {
        return match from.api_port {
            Some((port, origin)) => (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Some(origin)),
            None => (default, None),
        };
    };
    match address(text) {
        Some(address) => (address, Some(node.origin)),
        None => {
            let problem = keys.error("listen", format!("{} is not an address to listen on", node.shown()));
            findings
                .add(problem.hint("write `<IP address>:<port>`, such as 127.0.0.1:8080 or [::1]:8080"), node.origin);
            (default, Some(node.origin))
        }
    }
}

/// `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`; `:8080` listens on all interfaces.
fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.rsplit_once(':')?;
    let ip = match host {
        "localhost" => Ipv4Addr::LOCALHOST,
        "" => Ipv4Addr::UNSPECIFIED,
        _ => return None,
    };
    // `u16::from_str` would take a sign.
    let is_plain = port.bytes().all(|b| b.is_ascii_digit());
    Some(SocketAddr::from((ip, port.parse().ok().filter(|_| is_plain)?)))
}

pub(crate) fn show(api: &Api, root: &mut BTreeMap<String, Node>) {
    let keys = show::map(root, "api");
    show::fill(keys, "enabled", Shown::boolean(api.enabled));
    show::fill(keys, "listen", Shown::text(&api.listen.to_string()));
    show::fill(keys, "max_body_size", Shown::number(u64::try_from(api.max_body_size).unwrap_or(u64::MAX)));
    show::fill(keys, "max_sync_timeout", Shown::duration(api.max_sync_timeout));
    show::fill(keys, "max_concurrent_sync", Shown::number(api.max_concurrent_sync.into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numbers_localhost_or_a_bare_port() {
        for (text, expected) in [
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("localhost:8081", Some("127.0.0.1:8081")),
            (":80", Some("0.0.0.0:80")),
            ("[::1]:0", Some("[::1]:0")),
            ("8080", None),
            ("example.org:80", None),
            ("localhost:+80", None),
            ("localhost:99999", None),
            ("localhost:", None),
        ] {
            assert_eq!(address(text).map(|a| a.to_string()).as_deref(), expected, "{text}");
        }
    }
}
