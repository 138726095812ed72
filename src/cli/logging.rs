//! The gateway's log: lines on stdout, written by one thread of its own.
//!
//! No actor ever waits for a slow terminal or a full pipe: a line that finds the buffer full is dropped and counted,
//! and the count is logged as soon as there is room.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ductile_domain::config::Service;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Lines that may wait.
const BUFFERED: usize = 8_192;
/// How long the end of the process waits for lines that are still unwritten.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Sets up the log as the configuration says; `-v` and `DUCTILE_LOG` (a filter such as `debug` or `ductile_actors=trace`) win.
/// Dropping the guard writes out what waits.
pub(crate) fn start(service: &Service, verbose: bool) -> (Guard, Settings) {
    let (lines, guard) = writer(io::stdout());
    let (format, set_format) = reload::Layer::new(formatter(&service.log_format, lines.clone()));
    let (filter, set_filter) = reload::Layer::new(filter(&service.log_level, verbose));
    // Only a second start in one process can fail, and then the first log goes on.
    drop(tracing_subscriber::registry().with(format).with(filter).try_init());
    (guard, Settings { lines, verbose, set_format, set_filter })
}

/// Writes one line per event.
type Formatter = Box<dyn Layer<Registry> + Send + Sync>;

fn formatter(format: &str, lines: Lines) -> Formatter {
    let layer = fmt::layer().with_writer(lines).with_target(false);
    if format == "text" {
        layer.with_ansi(false).boxed()
    } else {
        layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    }
}

fn filter(level: &str, verbose: bool) -> EnvFilter {
    let level = if verbose { "debug" } else { level };
    let filter = std::env::var("DUCTILE_LOG").ok().filter(|f| !f.is_empty()).unwrap_or_else(|| level.to_owned());
    // Statements and connections of the database at debug level would drown everything else.
    EnvFilter::builder().parse_lossy(format!("{filter},sqlx=warn,hyper=warn,ractor=off"))
}

/// What a reload may change about the log.
pub(crate) struct Settings {
    lines: Lines,
    verbose: bool,
    set_format: reload::Handle<Formatter, Registry>,
    set_filter: reload::Handle<EnvFilter, Formatted>,
}

type Formatted = tracing_subscriber::layer::Layered<reload::Layer<Formatter, Registry>, Registry>;

impl Settings {
    /// From now on the log is as the configuration says.
    pub(crate) fn apply(&self, service: &Service) {
        // Both fail only when the log was never installed.
        let _ = self.set_format.reload(formatter(&service.log_format, self.lines.clone()));
        let _ = self.set_filter.reload(filter(&service.log_level, self.verbose));
    }
}

fn writer(out: impl Write + Send + 'static) -> (Lines, Guard) {
    let (sender, receiver) = sync_channel(BUFFERED);
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&dropped);
    let (ended, end) = sync_channel(1);
    let thread = std::thread::Builder::new().name("log".into()).spawn(move || {
        write_lines(out, &receiver, &counted);
        // Nobody listens when the guard gave up waiting.
        let _ = ended.send(());
    });
    let guard = Guard { sender: Some(sender.clone()), end, _thread: thread.ok() };
    (Lines { sender, dropped }, guard)
}

fn write_lines(mut out: impl Write, lines: &Receiver<Line>, dropped: &AtomicU64) {
    for line in lines {
        let Line::Text(text) = line else { break };
        // A closed stdout is no reason to stop a gateway.
        let _ = out.write_all(&text);
        let missed = dropped.swap(0, Ordering::Relaxed);
        if missed > 0 {
            let _ = writeln!(
                out,
                "{{\"level\":\"WARN\",\"component\":\"log\",\"message\":\"log lines were dropped, the reader is too slow\",\"dropped\":{missed}}}"
            );
        }
        let _ = out.flush();
    }
}

enum Line {
    Text(Vec<u8>),
    End,
}

/// Where formatted lines go.
#[derive(Clone)]
struct Lines {
    sender: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

impl Write for Lines {
    /// The formatter hands over whole lines.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Line::Text(text.to_vec())) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Writes out what waits when it is dropped, for at most a second.
#[must_use]
pub(crate) struct Guard {
    sender: Option<SyncSender<Line>>,
    end: Receiver<()>,
    _thread: Option<JoinHandle<()>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let deadline = Instant::now() + LAST_WORDS;
        let Some(sender) = self.sender.take() else { return };
        let mut end = Line::End;
        while let Err(TrySendError::Full(back)) = sender.try_send(end) {
            if Instant::now() >= deadline {
                return;
            }
            end = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.end.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("text")
        }
    }

    impl Write for Sink {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_reader_costs_lines_and_never_waiting() {
        let sink = Sink::default();
        let (mut lines, guard) = writer(sink.clone());
        {
            // The writer's thread can't write while this is held.
            let _blocked = sink.0.lock().expect("not poisoned");
            for n in 0..BUFFERED + 100 {
                lines.write_all(format!("line {n}\n").as_bytes()).expect("never fails");
            }
        }
        drop(guard);
        let text = sink.text();
        assert!(text.contains("line 0\n") && text.contains(&format!("line {}\n", BUFFERED - 1)));
        let dropped: usize = text
            .lines()
            .filter_map(|l| l.split_once("\"dropped\":")?.1.trim_end_matches('}').parse::<usize>().ok())
            .sum();
        let written = text.lines().filter(|l| l.starts_with("line ")).count();
        assert!(dropped >= 98, "{dropped} were counted");
        assert_eq!(written + dropped, BUFFERED + 100);
    }
}
