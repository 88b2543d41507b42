//! Barriers: parties that wait for one another.

use core::time::Duration;

use ipc_core::error::ErrorCode;
use ipc_core::wire::coordination::{Arrive, Durability};

use super::Model;
use super::came::Came;
use super::coordination::{Gate, Share, Wait, until};
use super::expect::Refusal;
use crate::world::Seen;

impl Model {
    /// A party arrives: it waits, or all go on.
    pub(super) fn arrive(&mut self, from: usize, seen: &Seen, body: &Arrive) -> Result<(), Refusal> {
        let (correlation, operation) = (seen.header.correlation, seen.header.handle.index);
        if body.parties == 0 || body.parties > 65_536 {
            return Err(Refusal::of(ErrorCode::InvalidArgument));
        }
        self.may_ask(from, correlation, Some(&body.name.0))?;
        self.may_wait(from, correlation)?;
        let gate: Gate = (operation, body.name.0.clone());
        let arrived: Vec<Wait> =
            self.coordination.waits.iter().filter(|wait| wait.gate == gate).cloned().collect();
        let max = self.limits.waiters_per_resource_max;
        match arrived.first() {
            Some(first) if first.of != body.parties => return Err(Refusal::of(ErrorCode::Conflict)),
            Some(_) if arrived.len() >= max as usize => {
                return Err(Refusal::quota("waiters_per_resource_max", max));
            }
            None if body.parties > 1 => self.make_resource(from, &gate)?,
            _ => {}
        }
        let is_last = arrived.len() + 1 == body.parties as usize;
        if is_last {
            let generation = self.number();
            self.coordination.waits.retain(|wait| wait.gate != gate);
            for (place, wait) in arrived.iter().enumerate() {
                self.came(wait.connection, wait.correlation, operation, Came::Passed { generation, place });
            }
            let place = arrived.len();
            self.came(from, correlation, operation, Came::Passed { generation, place });
            return Ok(());
        }
        if !body.wait {
            return Err(Refusal::of(ErrorCode::Busy));
        }
        self.coordination.waits.push(Wait {
            connection: from,
            correlation,
            operation,
            owner: 0,
            until: until(self.now, seen),
            gate,
            share: Share::All,
            of: body.parties,
            ttl: None,
            delay: Duration::ZERO,
            value: Vec::new(),
            durability: Durability::Memory,
        });
        let missing = body.parties as usize - arrived.len() - 1;
        self.came(from, correlation, operation, Came::Waits { ahead: 0, holders: 0, holder: None, missing });
        Ok(())
    }
}
