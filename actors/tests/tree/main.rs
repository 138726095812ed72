//! The real tree under fire: a real ledger, real plugin processes, and actors that are killed, panic or stand still.

mod breakers;
mod caps;
mod chaos;
mod gateway;
mod giving_up;
mod moved;
mod orders;
mod pipelines;
mod pipelines_chaos;
mod reloads;
mod restarts;
mod schedules;
mod schedules_clock;
mod schedules_crashes;
mod schedules_future;
mod schedules_refused;
