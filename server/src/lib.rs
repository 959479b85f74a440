//! The task server: hand it a task over HTTP, watch it over a WebSocket; a rollout loses none.
//!
//! - [`config`]: flags and environment
//! - [`api`]: the routes, public and admin
//! - [`queue`]: what was accepted and has not ended
//! - [`worker`]: runs it
//! - [`events`]: tells the sockets
//! - [`page`]: the page at `/`
//! - [`report`]: tells the collector
//! - [`trace`]: W3C trace context through the queue
//! - [`metrics`], [`identity`], [`logs`]: what is seen from outside
//! - [`run`]: all of it together, from the bound ports to the exit

pub mod api;
pub mod config;
pub mod events;
pub mod identity;
pub mod logs;
pub mod metrics;
pub mod page;
pub mod queue;
pub mod report;
pub mod run;
pub mod trace;
pub mod worker;
