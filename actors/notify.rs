//! What a service manager is told through `NOTIFY_SOCKET`: ready, reloading, stopping, and that the gateway lives
//! (`sd_notify(3)`). Without the variable nothing is said.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says. An address that can't be used is logged and nothing more: the gateway works without.
    pub(crate) fn from_env() -> Self {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|a| !a.is_empty()) else {
            return Self::default();
        };
        let variable = |name: &str| std::env::var(name).ok();
        match connect(address.as_bytes()) {
            Ok(to) => {
                let watchdog = beat(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id());
                Self { to: Some(to), watchdog }
            }
            Err(error) => {
                tracing::warn!(component = "gateway", %error, "NOTIFY_SOCKET can't be used; the service manager is told nothing");
                Self::default()
            }
        }
    }

    /// How often the watchdog wants to hear that the gateway lives.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    pub(crate) fn ready(&self) {
        self.say("READY=1\n");
    }

    /// The time tells a reload that begins from one that has ended.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
    }

    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1\n");
    }

    pub(crate) fn alive(&self) {
        self.say("WATCHDOG=1\n");
    }

    fn say(&self, text: &str) {
        let Some((socket, address)) = &self.to else { return };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            tracing::debug!(component = "gateway", %error, "the service manager was not told");
        }
    }
}

/// A path, or `@` and a name of the abstract namespace.
fn connect(address: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match address.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(address)))?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold up the gateway.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// Half of what the watchdog bears, when it is meant for this process.
fn beat(limit: Option<String>, pid: Option<String>, me: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(me)) {
        return None;
    }
    let limit: u64 = limit?.parse().ok().filter(|&limit| limit > 1)?;
    Some(Duration::from_micros(limit / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_heard_only_when_it_means_this_process() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(beat(text("2000000"), None, 7), Some(Duration::from_secs(1)));
        assert_eq!(beat(text("2000000"), text("7"), 7), Some(Duration::from_secs(1)));
        for (limit, pid) in [(None, None), (text("0"), None), (text("x"), None), (text("2000000"), text("8"))] {
            assert_eq!(beat(limit, pid, 7), None);
        }
    }

    #[test]
    fn a_name_of_the_abstract_namespace_is_an_address() {
        let name = format!("ductile-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("bound");
        let to = connect(format!("@{name}").as_bytes()).expect("connected");
        Notifier { to: Some(to), watchdog: None }.reloading();
        let mut buffer = [0; 128];
        let read = manager.recv(&mut buffer).expect("a message");
        let text = std::str::from_utf8(&buffer[..read]).expect("UTF-8");
        let time = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("the begin of a reload");
        assert!(time.trim_end().parse::<u64>().is_ok_and(|t| t > 0), "{text}");
    }
}
