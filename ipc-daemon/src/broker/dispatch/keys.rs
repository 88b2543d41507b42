//! Keys: requests taken apart, changes told.

use bytes::Bytes;
use ipc_core::limits::KEYS_LISTED_MAX;
use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use ipc_core::wire::codec::{List, Text};
use ipc_core::wire::coordination::{
    self as wire, ChangeKind, Changed, DeleteKey, GetKey, Got, KeyChanged, KeyState, ListHistory, ListKeys,
    Listed, ListedKey, Operation, PutKey, Told, UnwatchKeys, WatchKeys, Watching,
};
use ipc_core::wire::{Frame, HEADER_BYTES, Header};
use ipc_core::{Error, ErrorCode};

use super::coordinate::{DURABILITY, Done, check_durability, invalid, notice, outcome, ttl};
use crate::broker::Broker;
use crate::broker::coordination::{
    Asker, Change, Condition, Entry, Fence, KeyTerms, Selection, Value, WaitId,
};

/// Values of one answer to a list, in bytes: one that is longer comes alone.
const LISTED_MAX_BYTES: usize = 256 * 1024;

impl Broker {
    pub(super) fn put_key(&mut self, now: Instant, asker: Asker, request: PutKey, frame: &Frame<'_>) -> Done {
        let key = self.check_key(asker, &request.key.0)?;
        check_durability(request.durability)?;
        let body = frame.body.as_slice();
        let max = self.config.limits.key_value_max_bytes;
        if body.len() > max as usize {
            let mut error = Error::quota("key_value_max_bytes", max.into());
            error.code = ErrorCode::PayloadTooLarge;
            return Err(error.into());
        }
        let payload = Payload { kind: frame.header.payload_kind, body: Bytes::copy_from_slice(body) };
        let value = Value { payload, ttl: ttl(request.ttl_us)?, lease: request.lease };
        let terms = terms(request.condition, request.fence)?;
        let hand = self.hand(asker.peer);
        let revision = self.coordination.put(now, hand, &key, value, &terms, &self.config.limits)?;
        self.conclude_request(asker, &KeyChanged { revision, durability: DURABILITY });
        Ok(())
    }

    pub(super) fn delete_key(&mut self, now: Instant, asker: Asker, request: DeleteKey) -> Done {
        let key = self.check_key(asker, &request.key.0)?;
        check_durability(request.durability)?;
        let terms = terms(request.condition, request.fence)?;
        let revision = self.coordination.delete(now, &key, &terms, &self.config.limits)?;
        self.conclude_request(asker, &KeyChanged { revision, durability: DURABILITY });
        Ok(())
    }

    pub(super) fn get_key(&mut self, asker: Asker, request: &GetKey) -> Done {
        let key = self.check_key(asker, &request.key.0)?;
        let entry = self.coordination.get(&key)?;
        let got = Got { key: Text(key.to_string()), state: state(entry) };
        let value = entry.value.clone();
        let header = Header { payload_kind: value.kind, ..outcome(asker.id(), asker.operation) };
        self.answer(asker.peer, header, &got, &value.body);
        Ok(())
    }

    pub(super) fn list_keys(&mut self, asker: Asker, request: ListKeys) -> Done {
        let selection = self.check_selection(asker, request.selection)?;
        let after = request.after.0;
        let page = Page::of(
            request.count,
            self.coordination.list(&selection, &after).map(|(key, entry)| (key, entry.revision, Some(entry))),
        );
        self.answer_page(asker, page);
        Ok(())
    }

    pub(super) fn list_history(&mut self, now: Instant, asker: Asker, request: ListHistory) -> Done {
        let selection = self.check_selection(asker, request.selection)?;
        let changes = self.coordination.changes(now, &selection, request.from, &self.config.limits)?;
        let page = Page::of(
            request.count,
            changes.map(|change| (&change.key, change.revision, change.entry.as_ref())),
        );
        self.answer_page(asker, page);
        Ok(())
    }

    fn answer_page(&mut self, asker: Asker, page: Page) {
        let listed = Listed { more: page.more, keys: List(page.keys) };
        self.answer(asker.peer, outcome(asker.id(), asker.operation), &listed, &page.values);
    }

    pub(super) fn watch_keys(&mut self, now: Instant, asker: Asker, request: WatchKeys) -> Done {
        let selection = self.check_selection(asker, request.selection)?;
        Ok(self.coordination.watch(now, &asker, selection, request.from, &self.config.limits)?)
    }

    pub(super) fn unwatch_keys(&mut self, asker: Asker, UnwatchKeys { watch }: UnwatchKeys) -> Done {
        if !self.coordination.unwatch(asker.peer, watch) {
            return Err(invalid(&format!("this connection has no watch {watch} over keys")));
        }
        self.conclude_request(asker, &());
        Ok(())
    }

    fn check_key(&self, asker: Asker, name: &str) -> Result<ResourceName, Error> {
        let key = ResourceName::parse(name)?;
        self.check_asker(asker, Some(&key))?;
        Ok(key)
    }

    fn check_selection(&self, asker: Asker, selection: wire::Selection) -> Result<Selection, Error> {
        match selection {
            wire::Selection::Key { key } => Ok(Selection::Key(self.check_key(asker, &key.0)?)),
            wire::Selection::Prefix { prefix } => {
                self.check_asker(asker, None)?;
                Ok(Selection::Prefix(prefix.0))
            }
        }
    }

    /// Tells one watch of a change. One that has no room loses the watch, and is told that.
    pub(super) fn tell_key_change(&mut self, to: WaitId, change: &Change) {
        // It may have been lost to the change before.
        if !self.coordination.has_watch(to) {
            return;
        }
        let value = change.entry.as_ref().map(|entry| entry.value.clone()).unwrap_or_default();
        let bytes = value.len() + change.key.as_str().len() + 2 * HEADER_BYTES;
        if self.check_room(to.peer, bytes).is_err() {
            self.coordination.unwatch(to.peer, to.correlation);
            self.answer(to.peer, notice(to, Told::WATCH_LOST), &(), &[]);
            return;
        }
        let gone = KeyState { revision: change.revision, created: 0, version: 0, lease: 0 };
        let changed = Changed {
            change: if change.entry.is_some() { ChangeKind::Put } else { ChangeKind::Delete },
            key: Text(change.key.to_string()),
            state: change.entry.as_ref().map_or(gone, state),
        };
        let header = Header { payload_kind: value.kind, ..notice(to, Told::CHANGED) };
        self.answer(to.peer, header, &changed, &value.body);
    }

    /// Everything that was asked for at first has been told, unless the watch was lost meanwhile.
    pub(super) fn tell_watching(&mut self, to: WaitId, revision: u64) {
        self.answer(to.peer, outcome(to, Operation::WATCH), &Watching { revision }, &[]);
    }
}

/// Part of a list.
struct Page {
    keys: Vec<ListedKey>,
    values: Vec<u8>,
    more: bool,
}

impl Page {
    /// As many as were asked for and as fit, but at least one.
    fn of<'a>(count: u32, items: impl Iterator<Item = (&'a ResourceName, u64, Option<&'a Entry>)>) -> Self {
        let most = (count as usize).clamp(1, KEYS_LISTED_MAX);
        let mut page = Self { keys: Vec::new(), values: Vec::new(), more: false };
        for (key, revision, entry) in items {
            let value = entry.map(|entry| &entry.value.body[..]).unwrap_or_default();
            let is_full = page.keys.len() >= most || page.values.len() + value.len() > LISTED_MAX_BYTES;
            if is_full && !page.keys.is_empty() {
                page.more = true;
                break;
            }
            page.values.extend_from_slice(value);
            page.keys.push(ListedKey {
                change: if entry.is_some() { ChangeKind::Put } else { ChangeKind::Delete },
                key: Text(key.to_string()),
                kind: entry.map_or(0, |entry| entry.value.kind.number().into()),
                length: value.len() as u32,
                state: entry.map_or(KeyState { revision, created: 0, version: 0, lease: 0 }, state),
            });
        }
        page
    }
}

fn state(entry: &Entry) -> KeyState {
    let Entry { revision, created, version, lease, .. } = *entry;
    KeyState { revision, created, version, lease }
}

fn terms(condition: wire::Condition, fence: Option<wire::Fence>) -> Result<KeyTerms, Error> {
    let condition = match condition {
        wire::Condition::Any => Condition::Any,
        wire::Condition::Absent => Condition::Absent,
        wire::Condition::Revision { revision } => Condition::Revision(revision),
    };
    let fence = match fence {
        Some(wire::Fence { lock, token }) => Some(Fence { lock: ResourceName::parse(&lock.0)?, token }),
        None => None,
    };
    Ok(KeyTerms { condition, fence })
}
