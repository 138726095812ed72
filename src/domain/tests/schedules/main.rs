//! When schedules are due.

mod table;
