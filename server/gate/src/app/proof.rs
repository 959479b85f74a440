//! When the app may be said to have nothing left: the gate is latched and empty, the app has been told, and then its own zero holds through the quiet time, in at
//! least three answers that were all asked for after that. Gauges lag, and work may be counted after its response has ended, so any rise, and any answer that
//! is none, starts over.
//!
//! Worked: latched and empty at 10.0 s; quiet 5 s; asked every second. Zeros answered at 10.0, 11.0 … 15.0: the one asked at 15.0 is the first that was asked
//! 5 s after the first was answered, and the proof.

use std::sync::Arc;
use std::time::Duration;

use graceful_drain::{Behind, Drain, Quiesced, State};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::ask::{AskError, Asker};
use crate::metrics::{Asked, Metrics};

/// While nobody drains: often enough for a report, and for a scale-down that takes the idlest.
const SERVING: Duration = Duration::from_secs(5);
const READS: u32 = 3;

/// Reports the app's count, and proves it idle in each drain.
pub(super) async fn attend(
    asker: Option<Asker>,
    quiet: Duration,
    told: watch::Receiver<bool>,
    (drain, behind): (Drain, Behind),
    metrics: Arc<Metrics>,
) {
    let mut attendant = Attendant { asker, quiet, told, behind, drain, metrics, silent: false, heard: false };
    let behind = attendant.behind.clone();
    loop {
        tokio::select! {
            biased;
            quiesced = behind.quiesced() => attendant.quiesced(quiesced).await,
            () = attendant.while_serving() => {}
        }
    }
}

struct Attendant {
    asker: Option<Asker>,
    quiet: Duration,
    told: watch::Receiver<bool>,
    behind: Behind,
    drain: Drain,
    metrics: Arc<Metrics>,
    /// The last question had no answer, and the log has said so.
    silent: bool,
    /// At least one question had an answer.
    heard: bool,
}

/// Zeros in a row.
#[derive(Default)]
struct Quiet {
    reads: u32,
    since: Option<Instant>,
}

impl Quiet {
    /// One more, asked at `asked` and answered at `answered`. True when it has held long enough.
    fn zero(&mut self, asked: Instant, answered: Instant, quiet: Duration) -> bool {
        self.reads += 1;
        let since = *self.since.get_or_insert(answered);
        self.reads >= READS && asked.saturating_duration_since(since) >= quiet
    }
}

impl Attendant {
    async fn while_serving(&mut self) {
        let Some(asker) = self.asker.clone() else { return std::future::pending().await };
        self.read(&asker).await;
        // Until the first answer the pod counts for nothing, and somebody waits for it.
        let often = self.drain.winding_down() || !self.heard;
        let pause = if often { asker.poll() } else { SERVING };
        // A drain that begins is worth a fresh answer.
        let status = self.drain.status();
        tokio::select! {
            () = sleep(pause) => {}
            () = self.drain.state_changed(status.state, status.accepting) => {}
        }
    }

    /// From the moment at which the gate was latched and empty until it is opened again.
    async fn quiesced(&mut self, quiesced: Quiesced) {
        let mut told = self.told.clone();
        while !*told.borrow_and_update() {
            tokio::select! {
                changed = told.changed() => if changed.is_err() { break },
                () = reopened(&self.drain) => return,
            }
        }
        let Some(asker) = self.asker.clone() else {
            let _ = self.behind.prove(quiesced);
            while self.behind.holds(quiesced) {
                // Opened and closed again between two looks, it would not be seen by the first of these alone.
                let _ = timeout(SERVING, reopened(&self.drain)).await;
            }
            return;
        };
        let (mut quiet, mut proven) = (Quiet::default(), false);
        while self.behind.holds(quiesced) {
            let asked = Instant::now();
            match self.read(&asker).await {
                Some(0) if proven => {}
                Some(0) => {
                    if quiet.zero(asked, Instant::now(), self.quiet) {
                        proven = self.behind.prove(quiesced);
                        info!(reads = quiet.reads, "the app has nothing in hand");
                    }
                }
                // What was proven is revoked by work that shows, and by nothing else: the kubelet ends the app before the gate.
                None if proven => {}
                Some(_) | None => (quiet, proven) = (Quiet::default(), false),
            }
            tokio::select! {
                () = sleep(asker.poll()) => {}
                () = reopened(&self.drain) => return,
            }
        }
    }

    /// One answer, noted. None: busy, for all that is known.
    async fn read(&mut self, asker: &Asker) -> Option<u64> {
        let answer = match asker.ask().await {
            // The kubelet ends the gate after the app: past SIGTERM a port that nobody has is an app that has ended. Before it, one that restarts.
            Err(AskError::Refused) if self.drain.status().state == State::Terminating => Ok(0),
            answer => answer,
        };
        match answer {
            Ok(count) => {
                (self.silent, self.heard) = (false, true);
                self.metrics.asked(Asked::Count);
                self.metrics.behind(count);
                self.behind.set(count);
                Some(count)
            }
            Err(why) => {
                self.metrics.asked(Asked::NoAnswer);
                self.behind.unknown(format!("the app behind the gate: {why}"));
                if !std::mem::replace(&mut self.silent, true) {
                    warn!("the app does not say what it has in hand, and is taken for busy: {why}");
                }
                None
            }
        }
    }
}

async fn reopened(drain: &Drain) {
    drain.wait_until(|status| status.accepting).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether zeros asked at these seconds, each answered at once, are a proof.
    fn proof(at: &[u64], quiet: u64) -> bool {
        let start = Instant::now();
        let mut zeros = Quiet::default();
        let mut last = false;
        for second in at {
            let now = start + Duration::from_secs(*second);
            last = zeros.zero(now, now, Duration::from_secs(quiet));
        }
        last
    }

    #[test]
    fn a_zero_must_hold_and_be_heard_three_times() {
        assert!(proof(&[0, 1, 2, 3, 4, 5], 5));
        assert!(!proof(&[0, 1, 2, 3, 4], 5), "not long enough");
        assert!(!proof(&[0, 60], 5), "long enough, but heard twice");
        assert!(proof(&[0, 0, 0], 0), "no time, but three of them");
    }

    #[test]
    fn an_answer_that_came_late_proves_no_more_than_it_heard() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut zeros = Quiet::default();
        assert!(!zeros.zero(at(0), at(4), Duration::from_secs(5)));
        assert!(!zeros.zero(at(5), at(6), Duration::from_secs(5)));
        assert!(!zeros.zero(at(7), at(12), Duration::from_secs(5)), "asked 3 s after the first was answered");
        assert!(zeros.zero(at(12), at(13), Duration::from_secs(5)));
    }
}
