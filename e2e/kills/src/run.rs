//! The run: load, kills, and the reckoning.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::clients::Client;
use crate::engine::Engine;
use crate::moments::{Kill, Moments, When, Whom};
use crate::server::Place;
use crate::summary::Summary;
use crate::{Args, Shared, callee, reports, settle};

/// So many clients keep three servers of sixteen places busy, and two cores not quite.
const CLIENTS: usize = 8;
/// A submission goes out every few milliseconds; if none does, the kill comes all the same.
const NO_SUBMIT: Duration = Duration::from_millis(300);
/// Kills between two lines of progress.
const SAY_EVERY: u32 = 100;

/// All of it; true when nothing was lost and something was proved.
pub(crate) async fn run(args: Args) -> anyhow::Result<bool> {
    let Args { n, store, seed, server, folder } = args;
    ensure!(n > 0, "--n 0 proves nothing: give at least 1");
    ensure!(server.is_file(), "--server {}: there is no such file", server.display());
    let seed = seed.unwrap_or_else(rand::random);
    println!("kills: {n} of {}, seed {seed}, logs in {}", store.name(), folder.display());
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => std::fs::create_dir_all(&folder)?,
    }
    let shared = Shared::default();
    let report_url = reports::listen(shared.clone()).await?;
    let call_url = callee::listen(shared.clone(), seed).await?;
    let engine = Engine::prepare(store, &folder)?;
    let places = (0..engine.servers).map(|number| {
        let mut args = engine.args.clone();
        let common = ["--port", "0", "--admin-port", "0", "--concurrency", "16", "--task-seconds", "0-0.3"];
        args.extend(common.map(str::to_owned));
        args.extend(["--linger-seconds", "0", "--report-url", &report_url].map(str::to_owned));
        args.extend(["--http-allow", &call_url].map(str::to_owned));
        // A task that was running in so many kills in a row is given up as one that kills its process; not here.
        args.extend(["--max-interruptions", "1000"].map(str::to_owned));
        let env = [
            ("GRACEFUL_POD_NAME", format!("kills-{number}")),
            ("GRACEFUL_POD_UID", format!("kills-{number}")),
            ("GRACEFUL_LOG", "info,graceful_server=debug".into()),
            ("GRACEFUL_LOG_FORMAT", "json".into()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Place::new(server.clone(), args, env, folder.join(format!("server-{number}.log")), shared.clone())
    });
    let mut fleet = Fleet { places: places.collect(), shared: shared.clone() };

    for place in &mut fleet.places {
        place.start().await?;
        place.works().await?;
    }
    let (stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let rng = StdRng::seed_from_u64(seed ^ (number as u64 + 1));
        let addresses = fleet.places.iter().map(Place::address).collect();
        clients.spawn(Client::new(number, addresses, &call_url, shared.clone(), rng)?.run(stopped.clone()));
    }
    let begun = Instant::now();
    let mut moments = Moments::new(seed, engine.servers);
    for number in 1..=n {
        fleet.kill(moments.next()).await.with_context(|| format!("kill {number}"))?;
        if number % SAY_EVERY == 0 && number < n {
            let open = shared.ledger().open();
            println!("{number} kills in {:.0} s, {open} tasks open", begun.elapsed().as_secs_f64());
        }
    }
    let killing = begun.elapsed();
    stop.send_replace(true);
    while clients.join_next().await.is_some() {}
    let lost = settle::settle(&mut fleet.places, &shared).await?;
    // Servers that still try to do what is lost would not go.
    let faults = if lost.is_empty() { settle::stop(&mut fleet.places).await } else { Vec::new() };
    let summary = Summary { store, n, killing, lost, faults };
    Ok(summary.print(&shared.ledger()))
}

/// The servers that share one queue, or the one that has it alone.
struct Fleet {
    places: Vec<Place>,
    shared: Shared,
}

impl Fleet {
    /// One kill: waits for its moment, kills, and starts again what was killed.
    async fn kill(&mut self, kill: Kill) -> anyhow::Result<()> {
        let Kill { whom, when } = kill;
        let victims = match whom {
            Whom::One(number) => number..number + 1,
            Whom::All => 0..self.places.len(),
        };
        let victims = &mut self.places[victims];
        match when {
            When::AfterStart(span) => victims[0].lived(span).await,
            When::AtWork(span) => {
                victims[0].begins().await?;
                sleep(span).await;
            }
            When::InSubmit(span, after) => {
                victims[0].begins().await?;
                sleep(span).await;
                let _ = timeout(NO_SUBMIT, self.shared.submitting.notified()).await;
                sleep(after).await;
            }
        }
        let mut lives = Vec::new();
        let at = Instant::now();
        for victim in victims.iter_mut() {
            victim.kill()?;
        }
        for victim in victims.iter_mut() {
            lives.push(victim.bury().await?);
        }
        self.shared.ledger().killed(&lives, at);
        for victim in victims {
            victim.start().await?;
        }
        Ok(())
    }
}
