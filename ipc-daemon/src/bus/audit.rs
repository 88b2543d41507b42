//! What the policy refused, in the log: who, verified, and what.
//!
//! Each user and each remote principal has a rate of its own, so that nobody's noise hides what another tries.

use std::collections::BTreeMap;

use ipc_core::identity::Identity;
use ipc_core::time::Instant;

use crate::broker::Refusal;
use crate::logging::rate::RateLimit;

/// Most users and principals with a rate of their own; past it all begin anew.
const RATES_MAX: usize = 1024;

/// The rates at which refusals are written down.
#[derive(Debug, Default)]
pub(super) struct Audit {
    rates: BTreeMap<String, RateLimit>,
}

impl Audit {
    /// Writes a refusal to the log, unless there were too many of late for the same user.
    pub(super) fn write(&mut self, refusal: &Refusal, now: Instant) {
        let who = match &refusal.who.identity {
            Identity::Local { uid, .. } => uid.to_string(),
            Identity::Remote { principal, .. } => format!("remote:{principal}"),
        };
        if self.rates.len() >= RATES_MAX && !self.rates.contains_key(&who) {
            self.rates.clear();
        }
        let rate = self.rates.entry(who).or_insert_with(|| RateLimit::new(now));
        if let Some(held_back) = rate.allow(now) {
            let held_back = held_back + refusal.untold;
            tracing::warn!(held_back, peer = refusal.who.id.0, "refused: {}", refusal.message.escape_debug());
        }
    }
}
