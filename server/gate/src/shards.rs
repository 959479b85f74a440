//! Where clients are served: a thread a core, each with a runtime and a pool of the app's connections of its own. A client stays with the thread that it was
//! given to, and so does the app's connection that carries its request: nothing is handed between cores on the way. (In one runtime that shares its tasks among
//! threads a request cost a fifth more processor time; docs/adr/0028-a-thread-a-core.md.)

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};

use crate::{http, tcp};

/// A pod without a limit may use all cores of its node, and each thread has heap pages of its own: on 64 cores more than the 64 MiB that the operator requests. Eight
/// move some hundred thousand requests a second.
const MOST: usize = 8;

/// What is done with a client.
#[derive(Clone)]
pub(crate) enum Side {
    Http(Arc<http::Gate>),
    Tcp(Arc<tcp::Gate>),
}

pub(crate) struct Shard {
    pub(crate) runtime: Handle,
    pub(crate) side: Side,
    open: Arc<AtomicUsize>,
}

pub(crate) struct Shards(Vec<Shard>);

impl Shards {
    /// As many as the pod may use cores, up to [`MOST`]. `side` is called in each one's runtime.
    pub(crate) fn start(side: impl Fn() -> Side) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from).min(MOST);
        (0..cores).map(|n| Shard::start(n, &side)).collect::<Result<_, _>>().map(Self)
    }

    /// The one with the fewest clients.
    pub(crate) fn idlest(&self) -> Option<&Shard> {
        self.0.iter().min_by_key(|shard| shard.open.load(Ordering::Relaxed))
    }
}

impl Shard {
    fn start(n: usize, side: impl Fn() -> Side) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let side = {
            let _inside = handle.enter();
            side()
        };
        // To the end of the process, which waits for its clients elsewhere.
        thread::Builder::new()
            .name(format!("clients-{n}"))
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(Self { runtime: handle, side, open: Arc::default() })
    }

    /// A client's place, until it is dropped.
    pub(crate) fn place(&self) -> Place {
        self.open.fetch_add(1, Ordering::Relaxed);
        Place(self.open.clone())
    }
}

pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
