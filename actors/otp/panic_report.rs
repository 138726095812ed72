//! Where a panic happened: the hook is installed once and finds the actor by the task that panicked.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Once;

use crate::process::current;

/// What the hook saw of a panic inside an actor.
#[derive(Debug, Default)]
pub(crate) struct PanicNote {
    pub(crate) location: String,
    pub(crate) backtrace: Option<String>,
}

/// Notes panics inside actors for their crash report; all others go to the hook that was there before.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match current() {
            Some(meta) => {
                let location = info.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
                let backtrace = Backtrace::capture();
                let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
                meta.note_panic(PanicNote { location, backtrace });
            }
            None => before(info),
        }));
    });
}

/// What a panic said.
pub(crate) fn text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic that is no text".to_owned()
    }
}

/// Runs a future; a panic becomes an error.
pub(crate) async fn caught<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(panic)),
    })
    .await
}
