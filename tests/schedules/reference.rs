//! Asks the reference what must be in the ledger.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::script::{Segment, Spec};

/// Instants and what was drawn for them, of each schedule with jitter.
pub(crate) type Dues = BTreeMap<String, BTreeMap<String, String>>;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schedules/reference.py");

/// Whether Python and its zones are here; says so when not.
pub(crate) fn is_here() -> bool {
    let probe = "import zoneinfo, sys; zoneinfo.ZoneInfo('Australia/Lord_Howe'); sys.exit(sys.version_info < (3, 9))";
    let found = Command::new("python3").args(["-c", probe]).stderr(Stdio::null()).status();
    let is_here = found.is_ok_and(|status| status.success());
    if !is_here {
        println!("skipped: the reference needs python3 with zoneinfo, and the zones of the package tzdata");
    }
    is_here
}

/// The rows that the ledger must hold, as lines, in the order of [`crate::world::World::rows`].
pub(crate) fn rows(specs: &[Spec], segments: &[Segment], dues: &Dues) -> Vec<String> {
    let specs: Vec<Value> = specs.iter().map(Spec::told).collect();
    let segments: Vec<Value> = segments.iter().map(Segment::told).collect();
    let script = json!({"schedules": specs, "segments": segments, "dues": dues}).to_string();
    let mut child =
        Command::new("python3").arg(FILE).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 starts");
    child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("the script is read");
    let output = child.wait_with_output().expect("python3 ends");
    assert!(output.status.success(), "the reference failed; its script: {script}");
    let mut rows: Vec<String> = String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect();
    rows.sort_unstable();
    rows
}

/// The reference knows the answers that stand in books.
#[test]
fn the_reference_knows_the_known_answers() {
    if !is_here() {
        return;
    }
    let output = Command::new("python3").args([FILE, "--self-test"]).output().expect("python3 starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
