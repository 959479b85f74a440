//! The faulty layer: a call may fail before it has an effect, fail after it had one, meet a conflict that is none, or take long.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use kube::Client;
use kube::client::Body;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::http::{Target, answer, refuse};
use super::world::World;

/// Where chance comes from: one seed, printed by the scenario that throws it.
#[derive(Clone)]
pub(super) struct Dice {
    rng: Arc<Mutex<StdRng>>,
    /// Of a hundred calls, so many go wrong.
    percent: Arc<AtomicU32>,
    /// Watches of this kind hear nothing more, and do not end: a connection that is dead without a word.
    blind: Arc<Mutex<Option<&'static str>>>,
}

impl Dice {
    pub(super) fn new(seed: u64, percent: u32) -> Self {
        Self {
            rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            percent: Arc::new(AtomicU32::new(percent)),
            blind: Arc::default(),
        }
    }

    /// For one operator, which may go blind alone.
    pub(super) fn of_one(&self) -> Self {
        Self { blind: Arc::default(), ..self.clone() }
    }

    pub(super) fn go_blind(&self, to: &'static str) {
        *self.blind.lock().unwrap() = Some(to);
    }

    pub(super) fn is_blind(&self, to: &str) -> bool {
        *self.blind.lock().unwrap() == Some(to)
    }

    /// From now on so many go wrong.
    pub(super) fn throw(&self, percent: u32) {
        self.percent.store(percent, Ordering::Relaxed);
    }

    /// From now on nothing goes wrong.
    pub(super) fn put_away(&self) {
        self.percent.store(0, Ordering::Relaxed);
    }

    pub(super) fn below(&self, n: u32) -> u32 {
        self.rng.lock().unwrap().random_range(0..n)
    }

    fn wrong(&self) -> bool {
        self.below(100) < self.percent.load(Ordering::Relaxed)
    }

    pub(super) fn breaks_a_watch(&mut self) -> bool {
        self.wrong() && self.below(4) == 0
    }

    /// Watches run behind: what was just written is often not in the stores yet.
    pub(super) async fn lag(&self) {
        if self.wrong() || self.wrong() || self.wrong() {
            let ms = u64::from(self.below(250));
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    pub(super) async fn delay(&self) {
        if self.wrong() {
            let ms = u64::from(self.below(60));
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }
}

/// A client of this world, as unreliable as the dice are.
pub(super) fn client(world: &World, dice: &Dice) -> Client {
    let (world, dice) = (world.clone(), dice.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (world, dice) = (world.clone(), dice.clone());
        async move {
            if Target::of(&request).watches() {
                return Ok::<_, std::io::Error>(answer(&world, request, dice).await);
            }
            let admission = world.open().admission;
            tokio::time::sleep(admission.takes).await;
            if request.method() == http::Method::PATCH && Target::of(&request).plural == "pods" {
                tokio::time::sleep(admission.pods_take).await;
            }
            if request.method() != http::Method::GET
                && admission.hangs == Some(Target::of(&request).plural.as_str())
            {
                std::future::pending::<()>().await;
            }
            if admission.resets.contains(&Target::of(&request).called(request.method()).as_str()) {
                drop(answer(&world, request, dice).await);
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            dice.delay().await;
            if !dice.wrong() {
                return Ok(answer(&world, request, dice).await);
            }
            match dice.below(6) {
                0 => Ok(refuse(500, "InternalError")),
                1 => Ok(refuse(429, "TooManyRequests")),
                2 => Ok(refuse(409, "Conflict")),
                3 => Err(std::io::ErrorKind::ConnectionReset.into()),
                // Done, and the answer says that it was not: etcd, or a load balancer, was lost behind it.
                4 => {
                    drop(answer(&world, request, dice).await);
                    Ok(refuse(503, "ServiceUnavailable"))
                }
                // Done, and nobody hears of it.
                _ => {
                    drop(answer(&world, request, dice).await);
                    Err(std::io::ErrorKind::TimedOut.into())
                }
            }
        }
    });
    Client::new(service, "apps")
}
