//! The same HTTP server in front of a gateway that keeps nothing: what an enqueue costs before any durability.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ductile_api::events::EventRing;
use ductile_api::gateway::{Cancelled, Gateway, Health, Refusal, Submission, Submitted};
use ductile_domain::catalog::Catalog;
use ductile_domain::generation::Generation;
use ductile_domain::ids::{BootId, JobId};
use ductile_domain::tree::TreeNode;
use ductile_ledger::{Ledger, OpenOptions, Readers};
use serde_json::Value;

use crate::plugins::{Built, Kind};

/// A server process that answers enqueues from memory.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

pub(crate) fn start(built: &Built) -> Server {
    let address = crate::gateway::free_address();
    let child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--serve-without-ledger", &format!("{address},{}", built.root().display())])
        .stdin(Stdio::null())
        .spawn()
        .expect("the server starts");
    while std::net::TcpStream::connect(&address).is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
    Server { child, address }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Forgetful {
    generation: Arc<Generation>,
    events: EventRing,
    boot: BootId,
    /// The trait offers reads; nobody asks for them here.
    ledger: Ledger,
}
