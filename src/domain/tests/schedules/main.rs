//! When schedules are due, why they are refused, and what is said of them.

mod bounds;
mod compile;
mod explain;
mod expressions;
mod oracle;
mod rules;
mod table;
