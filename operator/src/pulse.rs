//! Whether work goes on: what `/livez` judges.
//!
//! A plan may take long, behind a slow API server or a slow webhook; it is stuck only if none of its calls has ended for minutes. An app may
//! wait long for its turn; it is stuck only if no plan at all has begun, moved or ended for minutes.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::app_ref::AppRef;

/// The plans that are waited for and under way, and when they last moved.
#[derive(Debug)]
pub(crate) struct Pulse {
    waiting: Mutex<HashMap<AppRef, Instant>>,
    running: Mutex<HashMap<AppRef, Moved>>,
    /// When anything last moved.
    moved: Moved,
}

/// When something last moved.
type Moved = Arc<Mutex<Instant>>;

tokio::task_local! {
    /// Of the plan that this task makes, and of all.
    static MOVING: (Moved, Moved);
}

/// Each call has a deadline of some seconds: a plan of which none has ended in five minutes hangs, it is not slow.
pub(crate) const STUCK: Duration = Duration::from_secs(300);

impl Default for Pulse {
    fn default() -> Self {
        let moved = Arc::new(Mutex::new(Instant::now()));
        Self { waiting: Mutex::default(), running: Mutex::default(), moved }
    }
}

impl Pulse {
    /// Somebody asked for a plan of this app.
    pub(crate) fn asked(&self, app: &AppRef) {
        self.waiting.lock().entry(app.clone()).or_insert_with(Instant::now);
    }

    /// Its plan, from beginning to end, well or not. Each of its calls that ends is progress.
    pub(crate) async fn of<T>(&self, app: &AppRef, plan: impl Future<Output = T>) -> T {
        /// Ends with the plan, also where that is dropped in its midst.
        struct Running<'a>(&'a Pulse, &'a AppRef);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.running.lock().remove(self.1);
                *self.0.moved.lock() = Instant::now();
            }
        }
        let now = Instant::now();
        let moved = Arc::new(Mutex::new(now));
        *self.moved.lock() = now;
        self.waiting.lock().remove(app);
        self.running.lock().insert(app.clone(), Arc::clone(&moved));
        let _running = Running(self, app);
        MOVING.scope((moved, Arc::clone(&self.moved)), plan).await
    }

    /// The app is gone.
    pub(crate) fn forget(&self, app: &AppRef) {
        self.waiting.lock().remove(app);
    }

    /// Of how many apps a plan is waited for, and of how many one is under way.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.waiting.lock().len(), self.running.lock().len())
    }

    /// What is stuck, if anything is.
    pub(crate) fn stuck(&self) -> Option<String> {
        let hangs = |since: &Instant| since.elapsed() > STUCK;
        if let Some((app, _)) = self.running.lock().iter().find(|(_, moved)| hangs(&moved.lock())) {
            return Some(format!("the plan of {app} does not end"));
        }
        if !hangs(&self.moved.lock()) {
            return None;
        }
        let waiting = self.waiting.lock();
        let (app, _) = waiting.iter().find(|(_, since)| hangs(since))?;
        Some(format!("no plan was made of {app} since it was asked for, nor of any other app"))
    }
}

/// A call of the plan that runs here has ended.
pub(crate) fn moved() {
    let _outside_of_a_plan = MOVING.try_with(|(plan, all)| {
        let now = Instant::now();
        *plan.lock() = now;
        *all.lock() = now;
    });
}

#[cfg(test)]
mod tests;
