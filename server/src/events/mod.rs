//! What clients are told without asking, over WebSockets and SSE.
//!
//! - [`hub`]: the ring that all share; [`tail`] fills it with the queue's numbered events, [`hint`] is what else is said, and `recent` keeps
//!   it in order
//! - [`feed`]: what one client is to be told: first what it missed, from the queue, then the ring; [`token`] is its place
//! - [`socket`], [`sse`]: the two ways; [`ask`] is what a client may ask for, [`frame`] what it gets
//! - [`limits`], [`origin`]: who may listen
//!
//! # Guarantees
//! - A client that speaks JSON hears of each event of its stream once, in order, from where it began: `hello` says from
//!   where, and a client that comes back with its last `id` goes on after it, on any pod that has the same stream.
//!   (With `tasks=own` numbers go up by more than one; what lies between is not the client's.)
//! - What could not be kept is named (`missed`), never passed over.
//! - A pod's clients hear of all its results before they are told to go.
//! - Who does not keep up is dropped, and costs nothing but its place.
//!
//! # Caveats
//! - With SQLite each pod has a stream of its own: who comes back to another pod begins at that pod's head
//!   (`resumed: false`), and asks for its tasks by id if it must know.
//! - A shared queue may show a client of another pod an event sooner than its own pod does.
//! - Hints have no number, come from this pod only, and may be skipped. Those that come are in the order of what happened, and
//!   before the end of their task; but of a shared queue's task another pod may have told the end, or run on.

use axum::Router;
use axum::routing::get;
use graceful_drain::Gate;

pub(crate) mod ask;
pub(crate) mod feed;
pub(crate) mod frame;
pub mod hint;
pub mod hub;
pub mod limits;
pub mod origin;
mod recent;
pub(crate) mod socket;
pub(crate) mod sse;
pub(crate) mod tail;
pub(crate) mod token;

use hub::Hub;

/// The routes of those who listen. New sockets are refused while the pod drains, as the seed did; a stream of
/// events is a read.
pub fn routes(hub: Hub, gate: Gate) -> Router {
    let sockets = Router::new().route("/ws/{client_id}", get(socket::watch)).route_layer(gate);
    sockets.route("/v1/events", get(sse::events)).with_state(hub)
}
