//! What is kept of one output pipe, bounded where it is read.

use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::PollFlags;
use rustix::io::Errno;

/// A first read takes what most plugins print.
const FIRST_READ: usize = 4 * 1024;

/// The read end of a pipe and the head of what came through it.
pub(crate) struct Capture {
    pipe: Option<OwnedFd>,
    kept: Vec<u8>,
    limit: usize,
    exceeded: bool,
}

impl Capture {
    pub(crate) fn new(pipe: OwnedFd, limit: usize) -> Self {
        Self { pipe: Some(pipe), kept: Vec::new(), limit, exceeded: false }
    }

    /// The pipe while it is open.
    pub(crate) fn pipe(&self) -> Option<&OwnedFd> {
        self.pipe.as_ref()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// True once more came than is kept.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.exceeded
    }

    /// Stops reading; a writer gets SIGPIPE.
    pub(crate) fn close(&mut self) {
        self.pipe = None;
    }

    pub(crate) fn into_kept(self) -> Vec<u8> {
        self.kept
    }

    /// Reads what poll announced. A pipe that every writer has closed is read to its end; any other is read once,
    /// for a second read could block.
    pub(crate) fn take(&mut self, ready: PollFlags) {
        let to_the_end = ready.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        loop {
            let Some(pipe) = &self.pipe else { return };
            let room = self.limit - self.kept.len();
            let result = if room > 0 {
                let wanted = self.kept.len().clamp(FIRST_READ, 1024 * 1024).min(room);
                self.kept.reserve(wanted);
                rustix::io::read(pipe, spare_capacity(&mut self.kept))
            } else {
                let mut rest = [0_u8; 32 * 1024];
                rustix::io::read(pipe, &mut rest[..]).inspect(|n| self.exceeded |= *n > 0)
            };
            match result {
                Ok(0) => return self.close(),
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return self.close(),
            }
            if self.kept.len() > self.limit {
                // The vector's spare capacity may be larger than what was reserved.
                self.kept.truncate(self.limit);
                self.exceeded = true;
            }
            if !to_the_end {
                return;
            }
        }
    }
}
