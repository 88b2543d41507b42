//! Keys: requests taken apart, changes told.

use std::sync::Arc;

use bytes::Bytes;
use ipc_core::limits::{KEYS_LISTED_MAX, RESOURCE_NAME_MAX_BYTES};
use ipc_core::name::ResourceName;
use ipc_core::payload::{Payload, PayloadKind};
use ipc_core::time::Instant;
use ipc_core::wire::codec::{List, Text};
use ipc_core::wire::coordination::{
    self as wire, ChangeKind, Changed, DeleteKey, Durability, GetKey, Got, KeyChanged, KeyState, ListHistory,
    ListKeys, ListRange, Listed, ListedKey, Operation, PutKey, Told, Transacted, UnwatchKeys, WatchKeys,
    Watching,
};
use ipc_core::wire::{Frame, HEADER_BYTES, Header};
use ipc_core::{Error, ErrorCode};

use super::coordinate::{Done, invalid, notice, outcome, ttl};
use crate::broker::Broker;
use crate::broker::coordination::{
    Act, Ask, Asker, Change, Condition, Entry, Fence, Request, Selection, Value, WaitId,
};
use crate::broker::keys::PeerKey;

/// Values of one answer to a list, in bytes: one that is longer comes alone.
pub(super) const LISTED_MAX_BYTES: usize = 256 * 1024;

impl Broker {
    pub(super) fn put_key(&mut self, now: Instant, asker: Asker, request: PutKey, frame: &Frame<'_>) -> Done {
        let key = self.check_key(asker, &request.key.0)?;
        let payload = self.key_value(frame.header.payload_kind, frame.body.as_slice())?;
        let value = Value { payload, ttl: ttl(request.ttl_us)?, lease: request.lease };
        let ask = Ask { key, condition: condition(request.condition), act: Act::Put(value) };
        self.change_keys(now, asker, vec![ask], request.fence, request.durability)
    }

    pub(super) fn delete_key(&mut self, now: Instant, asker: Asker, request: DeleteKey) -> Done {
        let key = self.check_key(asker, &request.key.0)?;
        let ask = Ask { key, condition: condition(request.condition), act: Act::Delete };
        self.change_keys(now, asker, vec![ask], request.fence, request.durability)
    }

    /// The value of a put, in memory of its own.
    pub(super) fn key_value(&self, kind: PayloadKind, body: &[u8]) -> Result<Payload, Error> {
        let max = self.config.limits.key_value_max_bytes;
        if body.len() > max as usize {
            let mut error = Error::quota("key_value_max_bytes", max.into());
            error.code = ErrorCode::PayloadTooLarge;
            return Err(error);
        }
        Ok(Payload { kind, body: Bytes::copy_from_slice(body) })
    }

    pub(super) fn change_keys(
        &mut self,
        now: Instant,
        asker: Asker,
        asks: Vec<Ask>,
        under: Option<wire::Fence>,
        durability: Option<Durability>,
    ) -> Done {
        let durability = self.durability_of(durability)?;
        let fence = self.fence(asker.peer, under)?;
        let hand = self.hand(asker.peer);
        let limits = self.own_limits(asker.peer);
        let asker = Some(asker);
        let request = Request { asker, hand, asks, fence, durability, limits: Some(Arc::clone(&limits)) };
        Ok(self.coordination.ask(now, request, &limits)?)
    }

    /// The token of a lock under which something is asked for. What is under way under it keeps the lock from the next holder, so
    /// that this is for those who may have to do with the lock.
    pub(super) fn fence(&self, peer: PeerKey, fence: Option<wire::Fence>) -> Result<Option<Fence>, Error> {
        let Some(wire::Fence { lock, token }) = fence else { return Ok(None) };
        let lock = ResourceName::parse(&lock.0)?;
        self.check_coordinate(peer, &lock)?;
        Ok(Some(Fence { lock, token }))
    }

    /// What keys and entries are to survive: the disk, where there is one, unless something else is asked for.
    pub(super) fn durability_of(&self, wanted: Option<Durability>) -> Result<Durability, Error> {
        if self.journal.has_store() {
            let durability = wanted.unwrap_or(Durability::Disk);
            return match durability {
                Durability::Memory => Ok(durability),
                Durability::Os | Durability::Disk => self.journal.check().map(|()| durability),
            };
        }
        match wanted.unwrap_or(Durability::Memory) {
            Durability::Memory => Ok(Durability::Memory),
            more => {
                let message =
                    format!("this daemon keeps everything in memory, {} was asked for", more.name());
                Err(Error::new(ErrorCode::Unsupported, message)
                    .with_hint("ask for memory, or for nothing in particular"))
            }
        }
    }

    /// Tells what came of a request for changes.
    pub(super) fn tell_keys_changed(
        &mut self,
        to: WaitId,
        operation: Operation,
        revisions: &[u64],
        durability: Durability,
    ) {
        if to.correlation == 0 {
            return;
        }
        if operation == Operation::TRANSACT {
            let done = Transacted { revisions: List(revisions.to_vec()), durability };
            self.answer(to.peer, outcome(to, operation), &done, &[]);
        } else {
            let revision = revisions.last().copied().unwrap_or_default();
            self.answer(to.peer, outcome(to, operation), &KeyChanged { revision, durability }, &[]);
        }
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
        let entries = self.coordination.list(&selection, &request.after.0);
        self.answer_page(asker, Page::of_entries(request.count, entries));
        Ok(())
    }

    pub(super) fn list_range(&mut self, asker: Asker, request: ListRange) -> Done {
        self.check_asker(asker, None)?;
        let to = Some(&*request.to.0).filter(|to| !to.is_empty());
        let entries = self.coordination.list_between(&request.from.0, to, &request.after.0);
        self.answer_page(asker, Page::of_entries(request.count, entries));
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

    pub(super) fn check_key(&self, asker: Asker, name: &str) -> Result<ResourceName, Error> {
        let key = ResourceName::parse(name)?;
        self.check_asker(asker, Some(&key))?;
        Ok(key)
    }

    fn check_selection(&self, asker: Asker, selection: wire::Selection) -> Result<Selection, Error> {
        match selection {
            wire::Selection::Key { key } => Ok(Selection::Key(self.check_key(asker, &key.0)?)),
            wire::Selection::Prefix { prefix } => {
                self.check_asker(asker, None)?;
                if prefix.0.len() > RESOURCE_NAME_MAX_BYTES {
                    let message = format!("no key begins with {} bytes", prefix.0.len());
                    return Err(Error::new(ErrorCode::InvalidArgument, message)
                        .with_hint("names have at most 512 bytes"));
                }
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
    /// The same of what is there.
    fn of_entries<'a>(count: u32, entries: impl Iterator<Item = (&'a ResourceName, &'a Entry)>) -> Self {
        Self::of(count, entries.map(|(key, entry)| (key, entry.revision, Some(entry))))
    }

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
    let Entry { revision, created, version, .. } = *entry;
    KeyState { revision, created, version, lease: entry.lease() }
}

pub(super) fn condition(condition: wire::Condition) -> Condition {
    match condition {
        wire::Condition::Any => Condition::Any,
        wire::Condition::Absent => Condition::Absent,
        wire::Condition::Revision { revision } => Condition::Revision(revision),
    }
}
