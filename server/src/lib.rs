//! The task server: hand it a task over HTTP, watch it over a WebSocket; a rollout loses none. It is also a crate to
//! build one's own task service on: write a [`kind::Kind`], and give it to [`command_line`].
//!
//! - [`kind`]: kinds of task, and [`running`], what a handler knows of the task it runs; [`sleep`] and [`mod@http`] are built in
//! - [`config`]: flags and environment
//! - [`api`]: the routes, public and admin; `problem` says why a request failed
//! - [`queue`]: the durable queue, as far as it can be reached, and [`engine`], what keeps it
//! - [`runner`]: runs what is in it; [`backoff`], how long what failed waits
//! - [`tokens`]: who may do what, where that is asked
//! - [`events`]: tells the sockets
//! - [`page`]: the page at `/`
//! - [`report`]: tells the collector
//! - [`trace`]: W3C trace context through the queue
//! - [`metrics`], [`identity`], [`logs`]: what is seen from outside
//! - [`run`]: all of it together, from the bound ports to the exit

pub mod api;
pub mod backoff;
mod client_id;
pub mod config;
pub mod engine;
pub mod events;
pub mod history;
pub mod http;
pub mod identity;
pub mod kind;
pub mod logs;
pub mod metrics;
pub mod page;
mod pauses;
mod problem;
pub mod queue;
pub mod report;
pub mod run;
pub mod runner;
pub mod running;
pub mod sleep;
mod tally;
pub mod tokens;
pub mod trace;
mod volume;

pub use run::{Server, command_line};
