//! Frames of keys.

use ipc_core::PayloadKind;
use ipc_core::wire::codec::List;
use ipc_core::wire::coordination::{
    ChangeKind, Changed, Condition, DeleteKey, Durability, Fence, GetKey, Got, KeyChanged, KeyState,
    ListHistory, ListKeys, ListRange, Listed, ListedKey, Operation, PutKey, Selection, Step, StepAct, Told,
    Transact, Transacted, UnwatchKeys, WatchKeys, Watching,
};
use ipc_core::wire::{Header, Kind};

use super::coordination::{asked, numbered};
use super::{Vector, vector};

pub(super) fn all() -> Vec<Vector> {
    [asked_for(), asked_of_several(), answered()].into_iter().flatten().collect()
}

fn asked_for() -> Vec<Vector> {
    let value = |header: Header| Header { payload_kind: PayloadKind::Text, ..header };
    let prefix = || Selection::Prefix { prefix: "config/".into() };
    let fence = Some(Fence { lock: "deploy/web".into(), token: 81_985_529 });
    let key = || "config/color".into();
    vec![
        vector(
            "coordinate_put",
            "coordinate: put config/color, if its revision is 81985540, for as long as the lease 81985530",
            value(asked(Operation::PUT, 30)),
            PutKey {
                key: key(),
                condition: Condition::Revision { revision: 81_985_540 },
                ttl_us: 0,
                lease: 81_985_530,
                fence,
                durability: None,
            },
            b"blue",
        ),
        vector(
            "coordinate_get",
            "coordinate: get config/color",
            asked(Operation::GET, 31),
            GetKey { key: key() },
            b"",
        ),
        vector(
            "coordinate_delete",
            "coordinate: delete config/color",
            asked(Operation::DELETE, 32),
            DeleteKey {
                key: key(),
                condition: Condition::Any,
                fence: None,
                durability: Some(Durability::Memory),
            },
            b"",
        ),
        vector(
            "coordinate_list",
            "coordinate: list at most 100 keys that begin with config/ behind config/color",
            asked(Operation::LIST, 33),
            ListKeys { selection: prefix(), after: key(), count: 100 },
            b"",
        ),
        vector(
            "coordinate_watch",
            "coordinate: watch the keys that begin with config/, beginning with what is there",
            asked(Operation::WATCH, 34),
            WatchKeys { selection: prefix(), from: None },
            b"",
        ),
        vector(
            "coordinate_unwatch",
            "coordinate: the watch 34 ends",
            asked(Operation::UNWATCH, 35),
            UnwatchKeys { watch: 34 },
            b"",
        ),
        vector(
            "coordinate_history",
            "coordinate: list the changes of config/color from revision 81985541 on",
            asked(Operation::HISTORY, 36),
            ListHistory { selection: Selection::Key { key: key() }, from: 81_985_541, count: 100 },
            b"",
        ),
    ]
}

/// What concerns several keys.
fn asked_of_several() -> Vec<Vector> {
    let fence = Some(Fence { lock: "deploy/web".into(), token: 81_985_529 });
    vec![
        vector(
            "coordinate_transact",
            "coordinate: delete config/color if its revision is 81985541, and put config/colors, if lock deploy/web is still at 81985529",
            asked(Operation::TRANSACT, 37),
            Transact {
                steps: List(vec![
                    step("config/color", Condition::Revision { revision: 81_985_541 }, StepAct::Delete),
                    step(
                        "config/colors",
                        Condition::Absent,
                        StepAct::Put { ttl_us: 0, lease: 0, kind: 1, length: 9 },
                    ),
                    step("config/theme", Condition::Absent, StepAct::Check),
                ]),
                fence,
                durability: Some(Durability::Disk),
            },
            b"blue, red",
        ),
        vector(
            "coordinate_list_range",
            "coordinate: list at most 100 keys from config/a to before config/m",
            asked(Operation::LIST_RANGE, 38),
            ListRange { from: "config/a".into(), to: "config/m".into(), after: "".into(), count: 100 },
            b"",
        ),
    ]
}

fn step(key: &str, condition: Condition, act: StepAct) -> Step {
    Step { key: key.into(), condition, act }
}

fn answered() -> Vec<Vector> {
    let outcome = |operation: Operation, correlation| numbered(Kind::OUTCOME, operation.0, correlation);
    let told = |told: Told, correlation| numbered(Kind::NOTICE, told.0, correlation);
    let value = |header: Header| Header { payload_kind: PayloadKind::Text, ..header };
    let state = KeyState { revision: 81_985_541, created: 81_985_540, version: 2, lease: 0 };
    let gone = KeyState { revision: 81_985_545, created: 0, version: 0, lease: 0 };
    let listed =
        |change, state, length| ListedKey { change, key: "config/color".into(), kind: 1, length, state };
    vec![
        vector(
            "outcome_changed",
            "outcome of a put or a delete: it has the revision 81985541",
            outcome(Operation::PUT, 30),
            KeyChanged { revision: 81_985_541, durability: Durability::Memory },
            b"",
        ),
        vector(
            "outcome_transacted",
            "outcome of a transaction: its changes have the revisions 81985546 and 81985547",
            outcome(Operation::TRANSACT, 37),
            Transacted { revisions: List(vec![81_985_546, 81_985_547, 0]), durability: Durability::Disk },
            b"",
        ),
        vector(
            "outcome_got",
            "outcome of a get",
            value(outcome(Operation::GET, 31)),
            Got { key: "config/color".into(), state },
            b"blue",
        ),
        vector(
            "outcome_listed",
            "outcome of a history: a put, a delete, and no more",
            outcome(Operation::HISTORY, 36),
            Listed {
                more: false,
                keys: List(vec![
                    listed(ChangeKind::Put, state, 4),
                    ListedKey { kind: 0, ..listed(ChangeKind::Delete, gone, 0) },
                ]),
            },
            b"blue",
        ),
        vector(
            "outcome_watching",
            "outcome of a watch: all up to revision 81985541 has been told",
            outcome(Operation::WATCH, 34),
            Watching { revision: 81_985_541 },
            b"",
        ),
        vector(
            "notice_changed",
            "notice: config/color was put",
            value(told(Told::CHANGED, 34)),
            Changed { change: ChangeKind::Put, key: "config/color".into(), state },
            b"blue",
        ),
        vector(
            "notice_changed_delete",
            "notice: config/color was deleted",
            told(Told::CHANGED, 34),
            Changed { change: ChangeKind::Delete, key: "config/color".into(), state: gone },
            b"",
        ),
        vector("notice_watch_lost", "notice: the watch was not read", told(Told::WATCH_LOST, 34), (), b""),
    ]
}
