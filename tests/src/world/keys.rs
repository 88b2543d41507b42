//! What a simulated client asks of keys.

use ipc_core::wire::Kind;
use ipc_core::wire::codec::List;
use ipc_core::wire::coordination::{
    Condition, DeleteKey, Durability, GetKey, ListKeys, Operation, PutKey, Selection, Step, StepAct,
    Transact, UnwatchKeys, WatchKeys,
};

use super::apply::{NOWHERE, position};
use super::{Client, Draft};
use crate::generator::{Action, KEYS, Since, When, Will};
use crate::model::Model;
use crate::rng::Rng;

/// How keys begin that are watched together.
const PREFIXES: [&str; 3] = ["", "a", "a/"];

pub(super) fn speak(client: &mut Client, model: &Model, action: &Action, rng: &mut Rng) -> Option<Vec<u8>> {
    let correlation = client.next_correlation();
    let draft =
        |operation: Operation| Draft::new(Kind::COORDINATE).correlation(correlation).handle(operation.0, 0);
    let draft = match action {
        Action::Put { key, when, durability, payload } => {
            let (key, condition) = (KEYS[*key].into(), condition(model, *key, *when));
            let put = PutKey { key, condition, ttl_us: 0, lease: 0, fence: None, durability: *durability };
            draft(Operation::PUT).envelope(&put).payload(&rng.bytes(*payload))
        }
        Action::DeleteKey { key, when, durability } => {
            let (key, condition) = (KEYS[*key].into(), condition(model, *key, *when));
            let delete = DeleteKey { key, condition, fence: None, durability: *durability };
            draft(Operation::DELETE).envelope(&delete)
        }
        Action::Transact { steps, durability, payload } => {
            let (transact, values) = transact(model, steps, *durability, *payload, rng);
            draft(Operation::TRANSACT).envelope(&transact).payload(&values)
        }
        Action::GetKey { key } => draft(Operation::GET).envelope(&GetKey { key: KEYS[*key].into() }),
        Action::ListKeys => {
            let selection = Selection::Prefix { prefix: "".into() };
            draft(Operation::LIST).envelope(&ListKeys { selection, after: "".into(), count: 100 })
        }
        Action::WatchKeys { key, since } => {
            let selection = match key {
                Some(key) => Selection::Key { key: KEYS[*key].into() },
                None => Selection::Prefix { prefix: (*rng.pick(&PREFIXES)).into() },
            };
            let from = match since {
                Since::Present => None,
                Since::Beginning => Some(1),
                Since::Known(nth) => Some(model.known_revision(*nth)? + 1),
                Since::Future => Some(NOWHERE),
            };
            client.knows.key_watches.push(correlation);
            draft(Operation::WATCH).envelope(&WatchKeys { selection, from })
        }
        Action::UnwatchKeys { nth } => {
            let watch = client.knows.key_watches.remove(position(&client.knows.key_watches, *nth)?);
            draft(Operation::UNWATCH).envelope(&UnwatchKeys { watch })
        }
        _ => return None,
    };
    Some(draft.to_bytes())
}

fn transact(
    model: &Model,
    steps: &[(usize, When, Will)],
    durability: Option<Durability>,
    payload: usize,
    rng: &mut Rng,
) -> (Transact, Vec<u8>) {
    let mut values = Vec::new();
    let steps = steps.iter().map(|(key, when, will)| {
        let act = match will {
            Will::Check => StepAct::Check,
            Will::Delete => StepAct::Delete,
            Will::Put => {
                values.extend(rng.bytes(payload));
                StepAct::Put { ttl_us: 0, lease: 0, kind: 0, length: payload as u32 }
            }
        };
        Step { key: KEYS[*key].into(), condition: condition(model, *key, *when), act }
    });
    let steps = List(steps.collect());
    (Transact { steps, fence: None, durability }, values)
}

fn condition(model: &Model, key: usize, when: When) -> Condition {
    match when {
        When::Always => Condition::Any,
        When::Absent => Condition::Absent,
        When::Current => Condition::Revision { revision: model.revision_of(KEYS[key]).unwrap_or(NOWHERE) },
        When::Never => Condition::Revision { revision: NOWHERE },
    }
}
