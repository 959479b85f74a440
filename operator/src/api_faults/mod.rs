//! API faults: the whole operator, its real watches, reconcile and pod client, behind an API server that fails, lies about failing, delays and
//! repeats, and that is left alone in mid-work again and again.
//!
//! [`world`] keeps objects as an API server does (versions, preconditions, dry runs), [`http`] speaks for it, [`faulty`] makes it unreliable,
//! [`cluster`] plays Deployment controller, ReplicaSet, kubelet and clients, with pods that speak the real drain protocol over real sockets.

mod adoption;
mod cluster;
mod drift;
mod elected;
mod endpoints;
mod events;
mod faulty;
mod gates;
mod http;
mod lifecycle;
mod lost_answers;
mod mess;
mod one_alone;
mod rights;
mod scenarios;
mod sigterm;
mod tokens;
mod world;
