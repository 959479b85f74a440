//! One listener and its connections: bounded, so that those who connect and say nothing cannot shut others out.
//!
//! # Flow
//! Accept → take a place → serve → the place is free when the socket is closed, upgraded or not; one that speaks HTTP has a
//! second place, which is free when it is upgraded. Where no place is free,
//! connections that have had no request for a second are closed, and the newcomer waits for one of them; where none comes
//! free, the newcomer is closed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::bounds::Bounds;
use crate::connection::{self, Placed, Shared};
use crate::descriptors::Reserve;
use crate::drain::Drain;

/// How long last responses may take from our buffer to the client once nothing is in flight.
const FLUSH: Duration = Duration::from_secs(2);

/// How long a newcomer waits for a place. Longer than [`connection::IDLE`], so that one that has just been opened can make room.
const NEWCOMER_WAITS: Duration = Duration::from_secs(2);

/// Trouble is over when there was none for so long.
const TROUBLE_IS_OVER_AFTER: Duration = Duration::from_secs(10);

/// Between attempts to accept while there are no descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// One listener and its connections.
pub(crate) struct Listener {
    stop: CancellationToken,
    connections: TaskTracker,
}

impl Listener {
    /// Accepts connections within these bounds, until closed. With a reserve, also when the process has no descriptors left.
    pub(crate) fn open(
        listener: TcpListener,
        app: Router,
        drain: Option<Drain>,
        bounds: Bounds,
        reserve: Option<Reserve>,
    ) -> Self {
        let opened = Self { stop: CancellationToken::new(), connections: TaskTracker::new() };
        let (stop, connections) = (opened.stop.clone(), opened.connections.clone());
        let shared = Shared {
            app,
            drain,
            stop: stop.clone(),
            crowded: Arc::new(Notify::new()),
            #[cfg(feature = "http2")]
            http2: bounds.http2,
        };
        let acceptor = Acceptor {
            listener,
            all: Arc::new(Semaphore::new(bounds.all.min(Semaphore::MAX_PERMITS))),
            http: Arc::new(Semaphore::new(bounds.http.min(Semaphore::MAX_PERMITS))),
            bounds,
            reserve,
            crowded: shared.crowded.clone(),
            trouble: None,
        };
        tokio::spawn(async move {
            tokio::select! {
                () = acceptor.run(|socket, place, peer| {
                    let serving = connection::serve(socket, peer, shared.clone());
                    connections.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }) => {}
                () = stop.cancelled() => {}
            }
        });
        opened
    }

    /// Accepts no more, lets answers under way finish, closes the rest.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.connections.close();
        if timeout(FLUSH, self.connections.wait()).await.is_err() {
            warn!(connections = self.connections.len(), "cut connections that did not take their answer");
        }
    }
}

/// Accepts connections, each of which takes a place.
struct Acceptor {
    listener: TcpListener,
    all: Arc<Semaphore>,
    http: Arc<Semaphore>,
    bounds: Bounds,
    reserve: Option<Reserve>,
    crowded: Arc<Notify>,
    /// When a connection last could not be accepted at once, until that is over; it was logged then.
    trouble: Option<Instant>,
}

impl Acceptor {
    /// `serve` is given the place as a connection that speaks HTTP, which an upgraded one gives back.
    async fn run(mut self, serve: impl Fn(Placed, OwnedSemaphorePermit, SocketAddr)) {
        // What was given up for a connection is not taken back before it is accepted.
        let mut fill = true;
        loop {
            if let (true, Some(reserve)) = (fill, &mut self.reserve) {
                reserve.fill();
            }
            let accepted = self.listener.accept().await;
            fill = accepted.is_ok();
            match accepted {
                Ok((stream, peer)) => match self.place().await {
                    Some((place, http)) => serve(Placed::new(stream, place), http, peer),
                    None => drop(stream),
                },
                Err(error) => self.cannot_accept(&error).await,
            }
        }
    }

    async fn place(&mut self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        if let (Ok(place), Ok(http)) =
            (self.all.clone().try_acquire_owned(), self.http.clone().try_acquire_owned())
        {
            // Not with each place that comes free while they are short: the log would have a line for each.
            if self.trouble.is_some_and(|latest| latest.elapsed() > TROUBLE_IS_OVER_AFTER) {
                info!("connections are accepted as usual again");
                self.trouble = None;
            }
            return Some((place, http));
        }
        self.warn_once("as many connections are open as may be; idle ones are closed for newcomers", None);
        let making_room = async {
            loop {
                self.crowded.notify_waiters();
                let both = async {
                    let place = self.all.clone().acquire_owned().await.ok()?;
                    Some((place, self.http.clone().acquire_owned().await.ok()?))
                };
                if let Ok(places) = timeout(ACCEPT_AGAIN, both).await {
                    return places;
                }
            }
        };
        timeout(NEWCOMER_WAITS, making_room).await.ok().flatten()
    }

    async fn cannot_accept(&mut self, error: &io::Error) {
        let none_left = matches!(error.raw_os_error(), Some(EMFILE | ENFILE));
        if none_left && self.reserve.as_mut().is_some_and(Reserve::give_up) {
            return;
        }
        self.warn_once("cannot accept connections; retrying", Some(error));
        if none_left {
            self.crowded.notify_waiters();
        }
        sleep(ACCEPT_AGAIN).await;
    }

    /// Once, and again when it was over in between.
    fn warn_once(&mut self, trouble: &'static str, error: Option<&io::Error>) {
        if self.trouble.replace(Instant::now()).is_some() {
            return;
        }
        let error = error.map(tracing::field::display);
        warn!(
            error,
            most = self.bounds.all,
            http = self.bounds.http,
            port = self.listener.local_addr().ok().map(|at| at.port()),
            "{trouble}"
        );
    }
}

const EMFILE: i32 = nix::errno::Errno::EMFILE as i32;
const ENFILE: i32 = nix::errno::Errno::ENFILE as i32;
