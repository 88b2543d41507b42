//! What the policy refused, in the log: who, verified, and what.
//!
//! Each user and each remote principal has a rate of its own, so that nobody's noise hides what another tries.

use ipc_core::time::Instant;

use crate::broker::Refusal;
use crate::logging::rate::Rates;
use crate::net::payer;

/// The rates at which refusals are written down.
#[derive(Debug, Default)]
pub(super) struct Audit {
    rates: Rates,
}

impl Audit {
    /// Writes a refusal to the log, unless there were too many of late for the same user.
    pub(super) fn write(&mut self, refusal: &Refusal, now: Instant) {
        if let Some(held_back) = self.rates.allow(payer(&refusal.who.identity), now) {
            let held_back = held_back + refusal.untold;
            tracing::warn!(held_back, peer = refusal.who.id.0, "refused: {}", refusal.message.escape_debug());
        }
    }
}
