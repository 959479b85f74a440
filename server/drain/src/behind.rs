//! Work behind this process: what another process has in hand for the requests that came through here, and can only be asked for. A proxy's app is such a one.
//!
//! Whoever is asked answers late: its zero may be from before its last request, or from between a response and the work that it began. So past the latch such a
//! pod says at least one in flight, until somebody vouches for zero with answers that were all asked for after the last request had ended.

use crate::drain::Drain;

/// Reports on the work behind ([`Drain::behind`]).
#[derive(Debug, Clone)]
pub struct Behind(Drain);

/// The latch had closed and nothing was counted here any more. What was asked before this proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiesced(u64);

impl Drain {
    /// From now on there is work behind this process. Once latched it is idle only after [`Behind::prove`]. Say so before the first request comes.
    #[must_use]
    pub fn behind(&self) -> Behind {
        self.change(|core, _| core.expect_behind());
        Behind(self.clone())
    }
}

impl Behind {
    /// What was answered last; it is added to the running tasks. Anything above zero takes a proof back.
    pub fn set(&self, count: u64) {
        self.0.change_if(|core, now| core.set_behind(count, now));
    }

    /// Why it has never been asked with success: the pod's status says so, and that its counts are no answer. Once there was a first ([`Behind::set`]), this
    /// says nothing any more: whoever falls silent later is busy.
    pub fn unknown(&self, why: impl Into<String>) {
        let why = why.into();
        self.0.change_if(|core, _| core.set_unknown(why));
    }

    /// Waits until the latch is closed and nothing is counted here any more.
    pub async fn quiesced(&self) -> Quiesced {
        Quiesced(self.0.quiesced().await)
    }

    /// Whether it is so still: false once the latch was opened.
    #[must_use]
    pub fn holds(&self, quiesced: Quiesced) -> bool {
        self.0.look(|core, _| core.quiesced()) == Some(quiesced.0)
    }

    /// Vouches that nothing is left behind, by answers that were all asked for after `quiesced`. False, and without effect, if the latch was opened since.
    #[must_use]
    pub fn prove(&self, quiesced: Quiesced) -> bool {
        self.0.change(|core, now| core.prove_behind(quiesced.0, now))
    }
}
