//! The guard of the disk: decides whether new work is taken in, from the space that is free beside the ledger.
//!
//! It looks every two seconds, and before work is taken in when the last look is older than a moment: a flood of large
//! requests must not fill the disk between two looks. What runs goes on, and so does everything that makes no new work.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ductile_domain::event::LiveEvent;
use ductile_otp::{Cx, Exit, Message, Server, StartInfo, Timer};
use serde_json::{Value, json};

use crate::shared::Shared;

/// Between two looks when nothing comes in.
const PERIOD: Duration = Duration::from_secs(2);

/// A look that is not older is good enough for whoever brings work.
const MOMENT: Duration = Duration::from_millis(100);

/// What was seen last.
#[derive(Debug)]
pub(crate) struct Guard {
    directory: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    at: Option<Instant>,
    is_stopped: bool,
    free: Option<u64>,
    /// The file system could not be asked, which was logged.
    is_blind: bool,
}

impl Guard {
    /// Looks at the file system of the ledger's file.
    pub(crate) fn of(ledger: &Path) -> Self {
        let parent = ledger.parent().filter(|parent| !parent.as_os_str().is_empty());
        Self { directory: parent.unwrap_or(Path::new(".")).to_owned(), seen: Mutex::default() }
    }

    /// Looks, unless somebody else does at this moment or did a moment ago.
    pub(crate) fn look_before_intake(&self, shared: &Shared) {
        if let Ok(mut seen) = self.seen.try_lock()
            && seen.at.is_none_or(|at| at.elapsed() >= MOMENT)
        {
            self.look_into(&mut seen, shared);
        }
    }

    fn look(&self, shared: &Shared) {
        // a look that panicked has left nothing half done
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.look_into(&mut seen, shared);
    }

    fn look_into(&self, seen: &mut Seen, shared: &Shared) {
        seen.at = Some(Instant::now());
        let least = shared.generation().config.state.min_free_space;
        let free = match rustix::fs::statvfs(&self.directory) {
            Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
            Err(error) => {
                if !std::mem::replace(&mut seen.is_blind, true) {
                    tracing::warn!(component = "space", directory = %self.directory.display(), %error, "could not ask for the free space; intake goes on without");
                }
                seen.free = None;
                return;
            }
        };
        (seen.is_blind, seen.free) = (false, Some(free));
        let was_stopped = seen.is_stopped;
        seen.is_stopped = must_stop(free, least, was_stopped);
        match (was_stopped, seen.is_stopped) {
            (false, false) => {}
            (true, false) => self.resume(free, least, shared),
            (_, true) => self.stop(free, least, !was_stopped, shared),
        }
    }

    /// The numbers of the reason follow what is seen; the event and the log tell of the change only.
    fn stop(&self, free: u64, least: u64, is_new: bool, shared: &Shared) {
        let reason = format!(
            "no new work is taken in: {} are free on the file system of {}, less than state.min_free_space ({}). Free space \
             on it, or lower the setting and reload; intake resumes by itself at {}",
            megabytes(free),
            self.directory.display(),
            megabytes(least),
            megabytes(resumes_at(least)),
        );
        if is_new {
            tracing::error!(component = "space", free_bytes = free, min_free_bytes = least, "{reason}");
            tell(shared, "intake.stopped", free, least, Some(&reason));
        }
        shared.flags.degrade("space", reason.clone());
        shared.flags.set_intake_stopped(Some(reason));
    }

    fn resume(&self, free: u64, least: u64, shared: &Shared) {
        shared.flags.set_intake_stopped(None);
        shared.flags.clear("space");
        tracing::info!(
            component = "space",
            free_bytes = free,
            min_free_bytes = least,
            "there is space again: work is taken in"
        );
        tell(shared, "intake.resumed", free, least, None);
    }

    fn inspect(&self) -> Value {
        let seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        json!({ "directory": self.directory, "free_bytes": seen.free, "intake_stopped": seen.is_stopped })
    }
}

/// Once stopped, a tenth more than the least must be free: otherwise each request that is taken in would stop it again.
fn must_stop(free: u64, least: u64, is_stopped: bool) -> bool {
    free < if is_stopped { resumes_at(least) } else { least }
}

const fn resumes_at(least: u64) -> u64 {
    least.saturating_add(least / 10)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / f64::from(1 << 20))
}

fn tell(shared: &Shared, kind: &'static str, free: u64, least: u64, reason: Option<&str>) {
    let mut fields = serde_json::Map::new();
    fields.insert("free_bytes".into(), free.into());
    fields.insert("min_free_bytes".into(), least.into());
    if let Some(reason) = reason {
        fields.insert("reason".into(), reason.into());
    }
    shared.ring.emit(LiveEvent::other(kind, shared.clock.now(), fields));
}

/// State: the next look. What was seen is not lost with it.
pub(crate) struct Space {
    shared: Arc<Shared>,
    timer: Option<Timer>,
}

pub(crate) enum Msg {
    /// The period has passed.
    Look,
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Look => "Look",
        }
    }
}

impl Server for Space {
    type Msg = Msg;
    type Args = Arc<Shared>;

    /// The first look is over before the doors open.
    async fn init(shared: Self::Args, cx: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        let mut space = Self { shared, timer: None };
        space.look(cx);
        Ok(space)
    }

    async fn handle(&mut self, cx: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::Look => self.look(cx),
        }
        Ok(())
    }

    fn inspect(&self) -> Value {
        self.shared.space.inspect()
    }
}

impl Space {
    fn look(&mut self, cx: &Cx<Self>) {
        self.shared.space.look(&self.shared);
        self.timer = Some(cx.send_after(PERIOD, Msg::Look));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intake_resumes_a_tenth_above_where_it_stops() {
        assert!(!must_stop(100, 100, false) && must_stop(99, 100, false));
        assert!(must_stop(100, 100, true) && must_stop(109, 100, true) && !must_stop(110, 100, true));
        assert!(!must_stop(0, 0, false) && !must_stop(0, 0, true), "0 switches the guard off");
        assert!(must_stop(u64::MAX - 1, u64::MAX, true), "no number overflows");
    }
}
