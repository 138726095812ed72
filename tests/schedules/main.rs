//! Schedules over months in seconds: the real gateway in this process on a clock that is moved by hand, against a reference in another
//! language that shares nothing with it.

mod reference;
mod script;
mod simulations;
mod world;
