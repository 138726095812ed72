//! The supervision tree: all of it, one actor, and an actor's restart.

use axum::http::StatusCode;
use ductile_domain::ids::BootId;
use ductile_domain::tree::TreeNode;
use serde::Serialize;
use serde_json::{Value, json};

use crate::call::{Answer, Call, json_answer, quoted, suggestion};
use crate::error::{ApiError, Code};
use crate::gateway::Gateway;

/// The answer of `GET /system/tree`, and a part of `event: reset`.
#[derive(Serialize)]
pub(super) struct Tree {
    boot_id: BootId,
    generation: u64,
    root: TreeNode,
}

impl Tree {
    pub(super) fn now<G: Gateway>(gateway: &G) -> Self {
        Self { boot_id: gateway.boot_id(), generation: gateway.generation().no, root: gateway.tree() }
    }
}

pub(super) async fn tree<G: Gateway>(call: Call<G>) -> Answer {
    json_answer(StatusCode::OK, &Tree::now(&*call.app.gateway))
}

#[derive(Serialize)]
struct Actor {
    #[serde(flatten)]
    node: TreeNode,
    /// False when it gave no account of itself in time.
    responsive: bool,
    /// Its own view of its state; absent for supervisors and the unresponsive.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Value>,
}

pub(super) async fn show<G: Gateway>(call: Call<G>) -> Answer {
    let node = find(&call)?;
    if node.kind == "supervisor" {
        return json_answer(StatusCode::OK, &Actor { node, responsive: true, state: None });
    }
    let state = call.app.gateway.inspect_actor(&node.path).await?;
    json_answer(StatusCode::OK, &Actor { responsive: state.is_some(), node, state })
}

pub(super) async fn restart<G: Gateway>(call: Call<G>) -> Answer {
    let node = find(&call)?;
    call.app.gateway.restart_actor(&node.path).await?;
    json_answer(StatusCode::OK, &json!({ "status": "ok", "path": node.path, "incarnation_before": node.incarnation }))
}

/// The actor of the path, which may leave out `root/`.
fn find<G: Gateway>(call: &Call<G>) -> Result<TreeNode, ApiError> {
    let wanted = call.param("path");
    let tree = call.app.gateway.tree();
    let found = tree.find(wanted).or_else(|| tree.find(&format!("{}/{wanted}", tree.path)));
    found.cloned().ok_or_else(|| {
        let mut paths = Vec::new();
        list(&tree, &mut paths);
        ApiError::new(
            Code::UnknownActor,
            format!("no actor has the path {}", quoted(wanted)),
            suggestion(wanted, paths, "GET /system/tree lists all paths; write `/` in them as %2F"),
        )
    })
}

fn list<'a>(node: &'a TreeNode, paths: &mut Vec<&'a str>) {
    paths.push(&node.path);
    for child in &node.children {
        list(child, paths);
    }
}
