//! Drain a pod without losing what it accepted: admission gate, in-flight tracking and the drain protocol (v1, see
//! `docs/protocol.md`) for any axum app.
//!
//! ```no_run
//! use axum::{Router, routing::post};
//! use graceful_drain::{Drain, RequestGuard, Settings, Signals, serve};
//! use tokio::net::TcpListener;
//!
//! async fn work(request: RequestGuard) -> &'static str {
//!     let mut task = request.queue_task();      // counted before the request is counted out
//!     tokio::spawn(async move {
//!         task.start();                         // queued -> running
//!     });                                       // dropped at the end, also on panic: counted out
//!     "queued"
//! }
//!
//! #[tokio::main]
//! async fn main() -> std::io::Result<()> {
//!     let signals = Signals::install()?;        // first: a SIGTERM may come before anything else is ready
//!     let drain = Drain::new(Settings::from_env());
//!     let app = Router::new().route("/work", post(work)).layer(drain.gate());
//!     let public = TcpListener::bind("0.0.0.0:8000").await?;
//!     let admin = TcpListener::bind("0.0.0.0:9808").await?;
//!     let exit = serve((public, app), (admin, drain.routes()), drain, signals).await;
//!     std::process::exit(exit.code())
//! }
//! ```
//!
//! `examples/counter.rs` is a whole app with a WebSocket, `examples/grpc.rs` a gRPC service (tonic), `examples/tls.rs` an app that ends
//! TLS itself.
//!
//! # Flow
//! Serving → Lingering (still accepting, answers say `Connection: close`, idle keep-alive connections are closed) →
//! Draining (the latch is closed: newcomers get 503 with `Retry-After`) → Idle. `PUT /drain` starts it, `DELETE /drain`
//! takes it back. SIGTERM does the same by itself and ends the process: sockets are told once nothing is in flight,
//! spread over a second, then the process exits with 0. A second signal aborts, with 128 + its
//! number; in a pod a repeated SIGTERM is ignored and only SIGINT aborts.
//!
//! # Guarantees
//! - A request is counted before the latch closes, or it is refused: latch and counts are one value under one lock.
//! - `accepting: false` with `inFlight.total: 0` is never reported while something accepted can still run, and stays
//!   so until a resume: past the latch, only what is counted already can add to it.
//! - A request counts until its response's body has ended or was dropped. A guard's drop counts out, on panic and
//!   cancellation too.
//! - In an orderly exit each upgraded socket is told that was registered ([`Drain::on_upgrade`]); after a second signal none is.
//! - Where `GRACEFUL_DRAIN_KEYS` is set, as the operator sets it, `PUT` and `DELETE` need a token of the operator's, unless they come over loopback
//!   ([`Settings::keys`]).
//!
//! # Assumptions
//! - Work that outlives its request has a guard: [`RequestGuard::queue_task`], or a clone of the request's own; or a
//!   queue that counts for itself tells [`Drain::set_tasks`] before the request's guard is let go.
//! - Whatever else brings work (a message queue, a timer) asks [`Drain::try_task`] before it takes any.
//! - A process that only passes work on (a proxy) says so with [`Drain::behind`], and vouches for the end of what is behind it.
//!
//! # Caveats
//! - It speaks for one process. Several processes in a pod (prefork, workers) need one that answers for all.
//! - CPU-bound work on the async threads starves the admin port, and an unanswered question reads as busy: use
//!   `spawn_blocking`, and move the guard into it.
//! - A request's body that comes too slowly is given up ([`SlowestBody`]: 30 s, and a second more for each KiB), since one byte a second
//!   would hold a drain for ever. Apps whose clients stream to them with pauses set [`Settings::slowest_body`] to None, and bound that themselves.
//!   One that comes fast enough and never ends holds the drain: bound its length (axum's `DefaultBodyLimit` does, for its extractors).
//! - [`serve()`] speaks HTTP/1; with the feature `http2` and `Bounds::with_http2`, [`serve_within`] speaks h2c too. It ends no TLS. The gate itself works
//!   under any server, and [`serve_behind`] ends a process in order whose public side is its own.
//! - A client that speaks HTTP/2 and takes nothing more of an answer, but goes on answering pings, holds its request in flight for as long
//!   as it likes: TCP's own limit, which ends such a client of HTTP/1 after 30 s, does not see HTTP/2's windows. Bound your answers' time where that matters.
//! - A response that never ends (gRPC's health `Watch`, a stream of events) is in flight for as long: leave such routes outside of the gate, or end
//!   them when [`Drain::winding_down`] says so.
//! - What was handed to the kernel's socket buffer counts as sent, as everywhere.

mod behind;
mod bounds;
#[cfg(not(feature = "tokens"))]
#[path = "anyone.rs"]
mod caller;
#[cfg(feature = "tokens")]
mod caller;
mod connection;
mod core;
mod descriptors;
mod drain;
mod gate;
mod guard;
#[cfg(feature = "http2")]
mod http2;
mod listener;
mod pace;
mod pre_stop;
mod routes;
mod serve;
mod settings;
mod signal;
mod sockets;
mod status;
#[cfg(feature = "tokens")]
mod tokens;

pub use crate::core::Conflict;
pub use behind::{Behind, Quiesced};
pub use bounds::Bounds;
pub use descriptors::raise_descriptor_limit;
pub use drain::{Drain, Refused};
pub use gate::{Gate, Gated};
pub use guard::{ConnectionGuard, Farewell, RequestGuard, TaskGuard};
#[cfg(feature = "http2")]
pub use http2::speaks_http2;
pub use pace::{SlowestBody, TooSlow};
pub use pre_stop::{PreStopError, pre_stop};
pub use serve::{Exit, serve, serve_behind, serve_within};
pub use settings::Settings;
pub use signal::{Signal, Signals};
pub use sockets::{SERVICE_RESTART, closing_frame};
pub use status::{DrainStatus, EPOCH_LIMIT, InFlight, PROTOCOL, Scheduled, SharedQueue, State};
#[cfg(feature = "tokens")]
pub use tokens::{Keys, KeysError};
