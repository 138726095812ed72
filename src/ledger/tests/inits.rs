//! The `init` that plugins are owed: when, how often, and how it is remembered how it ended.

mod support;

use ductile_domain::job::{Candidate, JobStatus, NewJob};
use ductile_domain::outcome::Cause;
use ductile_domain::retry::Ending;
use ductile_ledger::{Enqueued, Init, Recorded, Snapshot};
use support::{Bed, failed, finish, new_job};

fn snapshot(plugins: &[(&str, &str)]) -> Snapshot {
    let init = |&(plugin, print): &(&str, &str)| Init {
        print: print.to_owned(),
        job: NewJob { command: "init".into(), max_attempts: 1, ..new_job(plugin) },
    };
    Snapshot {
        generation: 1,
        plugins: plugins.iter().map(|(name, _)| (*name).to_owned()).collect(),
        inits: plugins.iter().map(init).collect(),
        ..Snapshot::default()
    }
}

async fn record(bed: &Bed, plugins: &[(&str, &str)]) -> Recorded {
    bed.ledger.writer.record_snapshot(snapshot(plugins)).await.expect("recorded")
}

/// Which of the plugins got an `init`.
fn owed(recorded: &Recorded) -> Vec<bool> {
    recorded.inits.iter().map(Option::is_some).collect()
}

/// MAN-23: once per print, across starts; a plugin that comes back is found anew.
#[tokio::test]
async fn an_init_is_owed_once_per_print_and_again_after_a_removal() {
    let bed = Bed::new().await;
    let first = record(&bed, &[("a", "1"), ("b", "1")]).await;
    assert_eq!(owed(&first), [true, true]);
    assert_eq!(first.ready.len(), 2, "somebody must tell the queue of them");
    assert!(bed.feed.drain().candidates.is_empty(), "but not before the generation is in force");
    assert_eq!(owed(&record(&bed, &[("a", "1"), ("b", "2")]).await), [false, true]);
    let bed = bed.reopen().await;
    assert_eq!(owed(&record(&bed, &[("a", "1"), ("b", "2")]).await), [false, false], "a start changes nothing");
    record(&bed, &[("a", "1")]).await;
    assert_eq!(owed(&record(&bed, &[("a", "1"), ("b", "2")]).await), [false, true]);
    assert_eq!(bed.number("SELECT count(*) FROM job_queue WHERE command = 'init' AND submitted_by = 'api'").await, 4);
    let last = "SELECT enqueued_config_snapshot_id FROM job_queue ORDER BY rowid DESC LIMIT 1";
    assert_eq!(bed.number(last).await, 5, "under the configuration that owes it");
    bed.ledger.close().await;
}

/// MAN-23: a failed init is known until one succeeds, however its job was ended.
#[tokio::test]
async fn a_failed_init_is_remembered_until_one_succeeds() {
    let bed = Bed::new().await;
    let recorded = record(&bed, &[("a", "1"), ("b", "1"), ("c", "1")]).await;
    let claims = bed.claim(recorded.ready[..2].to_vec()).await.claimed;
    let outcome = failed(Cause::PluginError, bed.hands.now());
    let text = outcome.error.clone().expect("a text");
    bed.ledger.writer.finish(finish(claims[0].job.fence, outcome, Ending::Dead)).await.expect("finished");
    let mut done = bed.succeeded(claims[1].job.fence);
    done.outcome.result = Some(r#"{"status":"ok","result":"done"}"#.to_owned());
    bed.ledger.writer.finish(done).await.expect("finished");
    let Some(Enqueued::Accepted { job, .. }) = recorded.inits[2] else { panic!("{recorded:?}") };
    bed.ledger.writer.cancel(job, "not now".into(), "a test".into()).await.expect("cancelled");
    let known = bed.ledger.readers.failed_inits().await.expect("read");
    let said = async |plugin| bed.ledger.readers.init_result(plugin).await.expect("read");
    assert_eq!((said("a").await, said("b").await), (None, Some("done".to_owned())), "what it said is kept");
    let expected = [("a".to_owned(), text), ("c".to_owned(), "cancelled: not now".to_owned())];
    assert_eq!(known.into_iter().collect::<Vec<_>>(), expected);

    let by_hand = NewJob { command: "init".into(), ..new_job("a") };
    let id = by_hand.id;
    let Enqueued::Accepted { row, .. } = bed.enqueue(by_hand).await else { panic!("a plain job has no twin") };
    let claimed = bed.claim(vec![Candidate { row, job: id, plugin: "a".into(), due: None }]).await.claimed.remove(0);
    bed.ledger.writer.finish(bed.succeeded(claimed.job.fence)).await.expect("finished");
    let known = bed.ledger.readers.failed_inits().await.expect("read");
    assert_eq!(known.keys().collect::<Vec<_>>(), ["c"], "an operator mended it by hand");
    assert_eq!(bed.ledger.readers.status(id).await.expect("read"), Some(JobStatus::Succeeded));
    bed.ledger.close().await;
}
