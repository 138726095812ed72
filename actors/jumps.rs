//! Hears of jumps of the wall clock as they happen: the kernel tells when the clock is set and when the machine wakes.

use std::io;
use std::os::fd::OwnedFd;

use ductile_ledger::Clock;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Farther ahead than any gateway lives.
const NEVER: i64 = 1 << 40;

/// Calls `tell` after each jump, for ever.
pub(crate) async fn watch(mut clock: Clock, tell: impl Fn()) {
    let mut alarm = match Alarm::set() {
        Ok(alarm) => Some(alarm),
        Err(error) => {
            tracing::warn!(component = "scheduler", %error, "the kernel does not tell of jumps of the clock; they are noticed within service.tick_interval");
            None
        }
    };
    loop {
        let jumped = async {
            match &mut alarm {
                Some(alarm) => alarm.jumped().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = clock.moved() => {}
            result = jumped => if let Err(error) = result {
                tracing::warn!(component = "scheduler", %error, "the kernel tells no more of jumps of the clock; they are noticed within service.tick_interval");
                alarm = None;
            },
        }
        tell();
    }
}

/// A timer that never rings, but is cancelled whenever the clock is set (`timerfd_create(2)`).
struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    fn set() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        arm(&timer)?;
        #[expect(deprecated, reason = "sound for an owned descriptor; what replaces it asks for that by `unsafe`")]
        let timer = AsyncFd::new(timer)?;
        Ok(Self(timer))
    }

    async fn jumped(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut rung = [0; 8];
            match rustix::io::read(ready.get_inner(), &mut rung) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::CANCELED) | Ok(_) => {
                    arm(ready.get_inner())?;
                    ready.clear_ready();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn arm(timer: &OwnedFd) -> io::Result<()> {
    let never = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: NEVER, tv_nsec: 0 },
    };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    timerfd_settime(timer, flags, &never)?;
    Ok(())
}
