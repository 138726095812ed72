//! `ductile system tree`.

use chrono::Utc;
use ductile_domain::tree::TreeNode;
use serde::Deserialize;
use serde_json::Value;

use crate::args::SystemTree;
use crate::client::Client;
use crate::error::Error;
use crate::report::Report;
use crate::tree_view::{self, View};
use crate::watch;

/// A tree as the gateway answered it.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    /// The start of the gateway that it belongs to.
    pub boot_id: String,
    /// Number of the configuration in force.
    pub generation: u64,
    /// The nodes.
    pub root: TreeNode,
    /// The whole answer.
    pub document: Value,
}

/// Asks for the tree.
///
/// # Errors
/// Nobody answered, or not with a tree.
pub(crate) async fn fetch(client: &Client) -> Result<Tree, Error> {
    #[derive(Deserialize)]
    struct Answer {
        boot_id: String,
        generation: u64,
        root: TreeNode,
    }
    let document = client.get("/system/tree").await?;
    let Answer { boot_id, generation, root } =
        Answer::deserialize(&document).map_err(|e| Error::Answer(format!("/system/tree: {e}")))?;
    Ok(Tree { boot_id, generation, root, document })
}

/// Prints the tree once, or follows it.
///
/// # Errors
/// Nobody answered, or the terminal failed.
pub(crate) async fn run(args: &SystemTree, client: Client, report: &mut Report) -> Result<(), Error> {
    if args.watch {
        let whole_screen = report.width().is_some() && !report.is_json() && !args.text;
        return watch::watch(client, whole_screen, report).await;
    }
    let tree = fetch(&client).await?;
    if report.is_json() {
        report.document(&tree.document);
        return Ok(());
    }
    report.line(format!("boot {}  generation {}", tree.boot_id, tree.generation));
    let view =
        View { width: report.width(), colour: report.has_colour() && !args.text, changed: None, most_dynamic: None };
    for line in tree_view::draw(&tree.root, Utc::now(), &view) {
        report.line(line);
    }
    Ok(())
}
