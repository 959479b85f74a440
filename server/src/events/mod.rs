//! What clients are told without asking: [`hub`] tells the sockets, [`hint`] is what it says between a task's beginning
//! and its end.

pub mod hint;
pub mod hub;
