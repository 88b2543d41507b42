//! PURE. One connection, as the broker sees it: what it may, what it holds, what is on its way to it.

mod backlog;
mod known;
mod outbound;
mod pool;
mod shares;

use std::collections::{BTreeMap, BTreeSet};

use ipc_core::id::Handle;
use ipc_core::identity::Peer as PeerIdentity;
use ipc_core::name::ServiceName;
use ipc_core::time::Instant;
use ipc_core::{Error, ErrorCode};

use super::coordination::Fence;
use super::event::{Access, Transport};
use super::keys::{AccountKey, DeadlineKey, ServiceKey, SubscriptionKey, TopicKey};

pub(super) use self::backlog::{EventRule, GAP_BYTES};
pub(super) use self::known::{Announce, Known};
pub(super) use self::outbound::Outbound;
pub(super) use self::pool::BufferPool;
pub(super) use self::shares::Shares;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The hello is due.
    Greeting,
    /// Everything goes.
    Active,
    /// It will send nothing more, and waits for the outcomes of its calls.
    InputEnded,
    /// Departed from the bus; what is queued is still written.
    Closing,
}

/// What a client's handle stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Nothing,
    Method {
        service: ServiceKey,
        method: u16,
    },
    Topic(TopicKey),
    /// Binding it was refused with this code, which everything sent through it gets too.
    Failed(ErrorCode),
}

#[derive(Clone, Copy, Debug)]
struct HandleSlot {
    generation: u16,
    target: Target,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Peer {
    /// Number and verified identity.
    pub(super) who: PeerIdentity,
    pub(super) transport: Transport,
    pub(super) access: Access,
    /// Supplementary groups of its user.
    pub(super) groups: Box<[u32]>,
    pub(super) account: AccountKey,
    pub(super) phase: Phase,
    /// What it held is being released, or is.
    pub(super) is_departing: bool,
    /// What the client calls itself.
    pub(super) program: String,
    /// What it knows beyond the version.
    pub(super) features: u64,
    pub(super) accepted_at: Instant,
    pub(super) hello_deadline: Option<DeadlineKey>,
    pub(super) outbound: Outbound,
    /// Whether an output for it is waiting to be polled.
    pub(super) is_touched: bool,
    /// What the next call is made under, or why it cannot be.
    pub(super) fence: Option<Box<Result<Option<Fence>, Error>>>,
    /// Memory of a frame of which a part has come.
    pub(super) receiving_bytes: usize,
    /// Whether the shell watches the process that opened it.
    pub(super) is_process_watched: bool,
    handles: Vec<HandleSlot>,
    pub(super) known: Known,
    /// Registrations by number.
    pub(super) registrations: BTreeMap<u32, ServiceName>,
    pub(super) next_registration: u32,
    /// Subscriptions by the correlation of their subscribe.
    pub(super) subscriptions: BTreeMap<u64, SubscriptionKey>,
    /// Correlations of its name watches.
    pub(super) watches: BTreeSet<u64>,
}

impl Peer {
    pub(super) fn new(
        who: PeerIdentity,
        transport: Transport,
        access: Access,
        groups: Box<[u32]>,
        account: AccountKey,
        accepted_at: Instant,
        hello_deadline: DeadlineKey,
    ) -> Self {
        Self {
            who,
            transport,
            access,
            groups,
            account,
            phase: Phase::Greeting,
            is_departing: false,
            program: String::new(),
            features: 0,
            accepted_at,
            hello_deadline: Some(hello_deadline),
            outbound: Outbound::default(),
            is_touched: false,
            fence: None,
            receiving_bytes: 0,
            is_process_watched: false,
            handles: Vec::new(),
            known: Known::default(),
            registrations: BTreeMap::new(),
            next_registration: 1,
            subscriptions: BTreeMap::new(),
            watches: BTreeSet::new(),
        }
    }

    /// What a handle stands for; `Nothing` for one that is not bound or bound to another use.
    pub(super) fn target(&self, handle: Handle) -> Target {
        match self.handles.get(handle.index as usize) {
            Some(slot) if slot.generation == handle.generation => slot.target,
            _ => Target::Nothing,
        }
    }

    /// Places that its table of handles would have to gain for that handle.
    pub(super) fn places_for(&self, handle: Handle) -> u32 {
        (handle.index as usize + 1).saturating_sub(self.handles.len()) as u32
    }

    /// Places of its table of handles.
    pub(super) fn places(&self) -> u32 {
        self.handles.len() as u32
    }

    /// Binds a handle below `handles_max` and returns what its index stood for.
    pub(super) fn bind(&mut self, handle: Handle, target: Target) -> Target {
        let index = handle.index as usize;
        if index >= self.handles.len() {
            self.handles.resize(index + 1, HandleSlot { generation: 0, target: Target::Nothing });
        }
        let slot = &mut self.handles[index];
        slot.generation = handle.generation;
        core::mem::replace(&mut slot.target, target)
    }

    /// Every target with the place of its handle.
    pub(super) fn targets(&self) -> impl Iterator<Item = (usize, &Target)> {
        self.handles.iter().map(|slot| &slot.target).enumerate()
    }

    /// Has whatever is sent through the handle at that place refused, and returns what it stood for.
    pub(super) fn fail_target(&mut self, at: usize, code: ErrorCode) -> Option<Target> {
        let slot = self.handles.get_mut(at)?;
        Some(core::mem::replace(&mut slot.target, Target::Failed(code)))
    }

    /// Takes every target away.
    pub(super) fn take_targets(&mut self) -> Vec<Target> {
        core::mem::take(&mut self.handles).into_iter().map(|slot| slot.target).collect()
    }

    pub(super) fn is_departed(&self) -> bool {
        self.phase == Phase::Closing
    }
}
