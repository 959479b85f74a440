//! The gate as a process, between real sockets: apps and clients of the tests' own, so that what is seen is what the gate does.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod app;
mod client;
mod gate;

mod bodies;
mod drains;
mod faults;
mod h2spec;
mod heads;
mod http2;
mod idle;
mod sockets;
mod tcp;
mod told;
mod torture;
