//! The demo's own gateway: a child process in a temporary directory. Nothing of it outlives the demo unless it is
//! told to go on.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{PATIENCE, instance_in};
use crate::client::Client;
use crate::embedded;
use crate::error::Error;
use crate::instance::Instance;

const CONFIG: &str = include_str!("config.yaml");
const NAP_MANIFEST: &str = include_str!("nap/manifest.yaml");
const NAP_SCRIPT: &str = include_str!("nap/run.sh");

/// A directory, and perhaps a running gateway in it.
#[derive(Debug)]
pub(super) struct DemoGateway {
    dir: TempDir,
    child: Option<Child>,
    python: bool,
}

impl DemoGateway {
    /// Writes configuration and plugins into a fresh directory that only this user can enter.
    pub(super) fn prepare() -> Result<Self, Error> {
        let dir = tempfile::Builder::new().prefix("ductile-demo-").tempdir().map_err(Error::io("make a directory"))?;
        let python = has_python();
        let write = || -> std::io::Result<()> {
            let plugins = dir.path().join("plugins");
            embedded::make_dir(&plugins.join("nap"))?;
            embedded::write_plugin("echo", &plugins)?;
            embedded::write_file(&plugins.join("nap/manifest.yaml"), NAP_MANIFEST.as_bytes())?;
            embedded::write_file(&plugins.join("nap/run.sh"), NAP_SCRIPT.as_bytes())?;
            let mut config = CONFIG.to_owned();
            if python {
                embedded::write_plugin("py-greet", &plugins)?;
                config.push_str("  py-greet:\n    enabled: true\n");
            }
            embedded::write_file(&dir.path().join("config.yaml"), config.as_bytes())
        };
        write().map_err(Error::io(format!("fill the directory {}", dir.path().display())))?;
        Ok(Self { dir, child: None, python })
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn has_python(&self) -> bool {
        self.python
    }

    pub(super) fn instance(&self) -> Instance {
        instance_in(self.dir.path())
    }

    pub(super) fn client(&self) -> Client {
        self.instance().client()
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Starts the gateway and waits until it answers.
    pub(super) async fn start(&mut self) -> Result<Duration, Error> {
        let begin = Instant::now();
        let program = std::env::current_exe().map_err(Error::io("find this program"))?;
        let log_path = self.dir.path().join("gateway.log");
        let log = File::options().create(true).append(true).open(&log_path).map_err(Error::io("open the log"))?;
        let errors = log.try_clone().map_err(Error::io("open the log"))?;
        let child = Command::new(program)
            .args(["system", "start", "--config"])
            .arg(self.dir.path())
            .env_remove("DUCTILE_LOG")
            // Ctrl-C at the demo is the demo's; and a gateway that is kept must not get the next one.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(Error::io("start the gateway"))?;
        let child = self.child.insert(child);
        let client = instance_in(self.dir.path()).client();
        while client.get("/healthz").await.is_err() {
            let ended = child.try_wait().map_err(Error::io("look after the gateway"))?;
            if ended.is_some() || begin.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(&log_path).unwrap_or_default();
                let what = ended.map_or_else(|| "did not become ready".to_owned(), |status| format!("ended: {status}"));
                return Err(Error::Failed(format!("the gateway {what}; its log:\n{}", log.trim_end())));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(begin.elapsed())
    }

    /// SIGKILL, and the end of it.
    pub(super) fn kill(&mut self) -> Result<(), Error> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().and_then(|()| child.wait()).map_err(Error::io("kill the gateway"))?;
        Ok(())
    }

    /// Asks it to stop and waits for its end.
    pub(super) async fn stop(&mut self, client: &Client) -> Result<Duration, Error> {
        let begin = Instant::now();
        client.post("/system/stop", None).await?;
        let Some(child) = &mut self.child else { return Ok(begin.elapsed()) };
        loop {
            if let Some(status) = child.try_wait().map_err(Error::io("look after the gateway"))? {
                self.child = None;
                return if status.success() {
                    Ok(begin.elapsed())
                } else {
                    Err(Error::Failed(format!("the gateway ended: {status}")))
                };
            }
            super::not_after(begin + PATIENCE, "the gateway did not stop")?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Keeps gateway and directory.
    pub(super) fn leave_running(mut self) {
        self.child = None;
        self.dir.disable_cleanup(true);
    }
}

impl Drop for DemoGateway {
    fn drop(&mut self) {
        // Only when a step failed: plugins that still run are ended by their own short lives.
        let _ = self.kill();
    }
}

fn has_python() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join("python3").is_file())
}
