//! The caller's place in a question: answered once, and until then it occupies one place of the mailbox.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Answers one call. Dropped unanswered, it makes the caller get `Crashed`. It may outlive the handling of its message: the place
/// in the mailbox is free only when the reply was sent, so a server that answers in groups keeps its bound.
#[derive(Debug)]
pub struct Reply<R> {
    to: oneshot::Sender<R>,
    _permit: OwnedSemaphorePermit,
}

impl<R> Reply<R> {
    pub(crate) fn new(to: oneshot::Sender<R>, permit: OwnedSemaphorePermit) -> Self {
        Self { to, _permit: permit }
    }

    /// Answers; lost when the caller waits no longer.
    pub fn send(self, answer: R) {
        let _ = self.to.send(answer);
    }

    /// Whether the caller waits no longer.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.to.is_closed()
    }
}
