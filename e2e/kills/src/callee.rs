//! What `http` tasks call: a service that fails, hangs and lies, though at no task more than twice, since each failure doubles the
//! pause before the next call and the run is to end. It remembers what it has answered with 200.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::Shared;

/// A call says all that it has to in one packet or two.
const READS_A_CALL: Duration = Duration::from_secs(5);
/// Beyond what clients of this run allow a call ([`TIMEOUT_SECONDS`]).
const HANG: Duration = Duration::from_secs(2);
/// For one call.
pub(crate) const TIMEOUT_SECONDS: f64 = 1.0;
/// A call takes as long as the other tasks of the run do at most, so that kills hit it.
const WORK_MS: std::ops::Range<u64> = 0..300;

/// Calls of one task that may meet a fault.
const FAULTS: u32 = 2;
/// Of a hundred of these so many do.
const FAULTY: u32 = 50;

/// What the callee does with a call.
#[derive(Clone, Copy)]
enum Fault {
    Busy,
    Error,
    /// No answer before the caller gives up.
    Hang,
    /// A good first line, and half of what it announces.
    Half,
    /// No HTTP.
    Garbage,
}

const ALL: [Fault; 5] = [Fault::Busy, Fault::Error, Fault::Hang, Fault::Half, Fault::Garbage];

struct Callee {
    shared: Shared,
    draws: Mutex<StdRng>,
    calls: Mutex<HashMap<Uuid, u32>>,
}

/// Listens; the URL to call.
pub(crate) async fn listen(shared: Shared, seed: u64) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on loopback")?;
    let url = format!("http://{}", listener.local_addr()?);
    let draws = Mutex::new(StdRng::seed_from_u64(seed));
    let callee = Arc::new(Callee { shared, draws, calls: Mutex::default() });
    tokio::spawn(async move {
        // Ends with the program; what cannot be accepted is a call that found nobody.
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(callee.clone().serve(stream));
            }
        }
    });
    Ok(url)
}

impl Callee {
    async fn serve(self: Arc<Self>, mut stream: TcpStream) -> std::io::Result<()> {
        let Some(task) = timeout(READS_A_CALL, task_of(&mut stream)).await.ok().flatten() else {
            return Ok(());
        };
        let (work, fault) = self.draw(task);
        sleep(work).await;
        let said = match fault {
            None => {
                // Before it is said: who hears of it may tell at once.
                self.shared.ledger().answered(task);
                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndone"
            }
            Some(Fault::Busy) => "HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n",
            Some(Fault::Error) => "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n",
            Some(Fault::Hang) => {
                sleep(HANG).await;
                ""
            }
            Some(Fault::Half) => "HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\nnot all",
            Some(Fault::Garbage) => "200 fine\r\n\r\n",
        };
        stream.write_all(said.as_bytes()).await?;
        stream.shutdown().await
    }

    /// How long it takes, and whether something is wrong with it.
    fn draw(&self, task: Uuid) -> (Duration, Option<Fault>) {
        let mut calls = self.calls.lock();
        let call = calls.entry(task).or_default();
        *call += 1;
        let mut draws = self.draws.lock();
        let work = Duration::from_millis(draws.random_range(WORK_MS));
        let faulty = *call <= FAULTS && draws.random_range(0..100) < FAULTY;
        (work, faulty.then(|| ALL[draws.random_range(0..ALL.len())]))
    }
}

/// Whose call it is.
async fn task_of(stream: &mut TcpStream) -> Option<Uuid> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    head.lines().find_map(|line| line.strip_prefix("graceful-task-id: "))?.trim().parse().ok()
}
