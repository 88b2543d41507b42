//! Transactions over keys: requests taken apart.

use std::collections::BTreeSet;

use ipc_core::payload::PayloadKind;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::{Step, StepAct, Transact};
use ipc_core::wire::{Frame, WireError};

use super::coordinate::{Done, invalid, ttl};
use super::keys::condition;
use crate::broker::Broker;
use crate::broker::coordination::{Act, Ask, Asker, Value};

impl Broker {
    /// Takes a transaction. An `Err` is a violation.
    pub(super) fn transact(
        &mut self,
        now: Instant,
        asker: Asker,
        request: Transact,
        frame: &Frame<'_>,
    ) -> Result<Done, WireError> {
        let values = values(&request, frame.body.as_slice())?;
        Ok(self.take_transaction(now, asker, request, &values))
    }

    fn take_transaction(
        &mut self,
        now: Instant,
        asker: Asker,
        request: Transact,
        values: &[(PayloadKind, &[u8])],
    ) -> Done {
        let mut seen = BTreeSet::new();
        let mut asks = Vec::with_capacity(request.steps.0.len());
        for (step, (kind, value)) in request.steps.0.into_iter().zip(values) {
            let key = self.check_key(asker, &step.key.0)?;
            if !seen.insert(key.clone()) {
                return Err(invalid(&format!("key {key} is in the transaction twice")));
            }
            let act = match step.act {
                StepAct::Check => Act::Check,
                StepAct::Delete => Act::Delete,
                StepAct::Put { ttl_us, lease, .. } => {
                    let payload = self.key_value(*kind, value)?;
                    Act::Put(Value { payload, ttl: ttl(ttl_us)?, lease })
                }
            };
            asks.push(Ask { key, condition: condition(step.condition), act });
        }
        if asks.is_empty() {
            return Err(invalid("a transaction has at least one key"));
        }
        self.change_keys(now, asker, asks, request.fence, request.durability)
    }
}

/// The value of each step with its kind, nothing for one that puts nothing.
fn values<'a>(request: &Transact, mut payload: &'a [u8]) -> Result<Vec<(PayloadKind, &'a [u8])>, WireError> {
    let mut value = |step: &Step| {
        let StepAct::Put { kind, length, .. } = step.act else { return Ok((PayloadKind::Bytes, &[][..])) };
        let kind = u8::try_from(kind).ok().and_then(PayloadKind::from_number);
        let kind = kind.ok_or(WireError::Envelope("it has a value of an undefined kind"))?;
        let parts = payload.split_at_checked(length as usize);
        let (value, rest) = parts.ok_or(WireError::Envelope("its values are longer than its payload"))?;
        payload = rest;
        Ok((kind, value))
    };
    let values = request.steps.0.iter().map(&mut value).collect::<Result<Vec<_>, _>>()?;
    if payload.is_empty() {
        Ok(values)
    } else {
        Err(WireError::Envelope("its values are shorter than its payload"))
    }
}
