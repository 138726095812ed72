//! A wait of some hundred microseconds, which the runtime's own timer (of whole milliseconds) can't do.

use std::io;
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A timer of the kernel, used again and again.
pub(super) struct Pause {
    timer: AsyncFd<OwnedFd>,
}

impl Pause {
    #[expect(
        deprecated,
        reason = "its safe successor takes no plain descriptor; an owned one stays the same for its life"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { timer: AsyncFd::with_interest(timer, Interest::READABLE)? })
    }

    /// Starts to count; the wait is [`Pause::over`]. Setting it again forgets the former one.
    pub(super) fn begin(&self, length: Duration) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let length = Timespec::try_from(length).unwrap_or(zero);
        let once = Itimerspec { it_interval: zero, it_value: length };
        // A timer that can't be set never fires; the caller has a limit of its own.
        let _ = rustix::time::timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once);
    }

    /// Resolves when the time that was begun has passed.
    pub(super) async fn over(&self) {
        loop {
            let Ok(mut ready) = self.timer.readable().await else { return };
            let mut count = [0; 8];
            match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut count)?)) {
                Ok(_) => return,
                Err(_would_block) => {}
            }
        }
    }
}
