//! The gateway's own steps: jobs without a process, of plugins that are in no catalog.

/// Decides an `if` of a step.
pub const SWITCH: &str = "core.switch";
/// Waits for the branches of a split.
pub const JOIN: &str = "core.join";
/// Hands an event to another gateway.
pub const RELAY: &str = "core.relay";

/// All of them. They are always in force, have no cap of their own and are listed nowhere among the plugins.
pub const NAMES: [&str; 3] = [SWITCH, JOIN, RELAY];

/// The command of every built-in.
pub const COMMAND: &str = "handle";

/// Attempts of their jobs in total. A crash of the gateway, or of the attempt's actor, is all that can use them up: what they
/// decide is final, and deciding again does no harm.
pub const MAX_ATTEMPTS: u32 = 10;

/// What begins the types of their events, and of the synthetic event of a step that emitted none. Such events go on in
/// their pipeline and start nothing else.
pub const EVENT_PREFIX: &str = "ductile.";
/// A condition held.
pub const SWITCH_TRUE: &str = "ductile.switch.true";
/// A condition did not hold.
pub const SWITCH_FALSE: &str = "ductile.switch.false";
/// All branches have ended as the join asks.
pub const JOINED: &str = "ductile.join";
/// A step succeeded without an event of its own.
pub const STEP_SUCCEEDED: &str = "ductile.step.succeeded";

/// True for the gateway's own steps.
#[must_use]
pub fn is_builtin(plugin: &str) -> bool {
    NAMES.contains(&plugin)
}
