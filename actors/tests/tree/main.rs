//! The real tree under fire: a real ledger, real plugin processes, and actors that are killed, panic or stand still.

mod caps;
mod chaos;
mod gateway;
mod giving_up;
mod orders;
mod pipelines;
mod pipelines_chaos;
mod reloads;
mod restarts;
