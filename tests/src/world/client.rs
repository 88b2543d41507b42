//! A simulated client: it speaks the wire by itself, so that it can also misbehave, and remembers what it was told.

use std::collections::BTreeMap;

use ipc_core::limits::PAYLOAD_MAX_CEILING_BYTES;
use ipc_core::wire::coordination::{Granted, Lost, Operation, TakenUp, Told};
use ipc_core::wire::message::{Registered, Revoked, RevokedWhat, Welcome};
use ipc_core::wire::{Decoder, Flags, FrameLimits, Kind};

use super::seen::Seen;

/// What is answered with something held.
const GRANTS: [Operation; 4] = [Operation::LEASE, Operation::LOCK, Operation::ACQUIRE, Operation::CAMPAIGN];

/// A registration as its owner knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The number that names it in calls.
    pub id: u32,
    /// Whether it waits its turn.
    pub is_queued: bool,
}

/// What a client has been told so far; the generator draws from it, nothing is judged by it.
#[derive(Debug, Default)]
pub struct Knowledge {
    /// Own connection number, once welcomed.
    pub peer: Option<u64>,
    /// Calls received and not answered: the daemon's numbers.
    pub inbound: Vec<u64>,
    /// Calls made and not answered: own correlations.
    pub outbound: Vec<u64>,
    /// Registrations that were confirmed, and those asked for, by correlation.
    pub registrations: Vec<Registration>,
    /// Registrations asked for and not answered yet, by correlation.
    pub asked: Vec<u64>,
    /// Subscriptions asked for and not ended.
    pub subscriptions: Vec<u64>,
    /// Watches asked for and not ended.
    pub watches: Vec<u64>,
    /// Own handles: generation by index.
    pub handles: BTreeMap<u32, u16>,
    /// Which of them stand for topics.
    pub topic_handles: Vec<u32>,
    /// Whether it has said who it is.
    pub has_identified: bool,
    /// Tokens of what is held.
    pub holds: Vec<u64>,
    /// Observations of elections asked for and not ended.
    pub observations: Vec<u64>,
    /// Watches over keys asked for and not ended.
    pub key_watches: Vec<u64>,
    /// Requests of coordination that wait, by correlation.
    pub waits: Vec<u64>,
    /// The last correlation used.
    pub correlation: u64,
    /// Whether a hello was sent.
    pub has_greeted: bool,
    /// The reason the daemon gave for closing.
    pub closed: bool,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Client {
    decoder: Decoder,
    /// What it was told.
    pub knows: Knowledge,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Knowledge {
    /// Something was taken away from it.
    fn forget(&mut self, frame: &Seen) {
        let correlation = frame.header.correlation;
        match frame.decode::<Revoked>().map(|revoked| revoked.what) {
            Some(RevokedWhat::Name) => {
                self.registrations.retain(|own| own.id != frame.header.handle.index);
            }
            Some(RevokedWhat::Subscription) => self.subscriptions.retain(|own| *own != correlation),
            Some(RevokedWhat::Observation) => self.observations.retain(|own| *own != correlation),
            Some(RevokedWhat::KeyWatch) => self.key_watches.retain(|own| *own != correlation),
            None => {}
        }
    }
}

impl Client {
    /// A client that has said and heard nothing.
    pub fn new() -> Self {
        let limits = FrameLimits { payload_max_bytes: PAYLOAD_MAX_CEILING_BYTES, frame_max_bytes: None };
        Self { decoder: Decoder::new(limits), knows: Knowledge::default() }
    }

    /// Whether the beginning of a frame has come and not its end.
    pub fn is_mid_frame(&self) -> bool {
        self.decoder.is_mid_frame()
    }

    /// A correlation that was not used before.
    pub fn next_correlation(&mut self) -> u64 {
        self.knows.correlation += 1;
        self.knows.correlation
    }

    /// Cuts received bytes into frames and remembers what they say.
    ///
    /// # Errors
    /// A sentence, when the daemon sent bytes that are no frames.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<Vec<Seen>, String> {
        let mut frames = Vec::new();
        loop {
            match self.decoder.next(&mut bytes) {
                Ok(Some(frame)) => frames.push(Seen::of(&frame)),
                Ok(None) => break,
                Err(error) => return Err(format!("the daemon sent bytes that are no frame: {error}")),
            }
        }
        for frame in &frames {
            self.remember(frame);
        }
        Ok(frames)
    }

    fn remember(&mut self, frame: &Seen) {
        let correlation = frame.header.correlation;
        let knows = &mut self.knows;
        match frame.kind() {
            Kind::WELCOME => knows.peer = frame.decode::<Welcome>().map(|welcome| welcome.peer),
            Kind::CALL if !frame.has(Flags::ONEWAY) => knows.inbound.push(correlation),
            Kind::CANCEL => knows.inbound.retain(|call| *call != correlation),
            Kind::REPLY => {
                if let Some(at) = knows.outbound.iter().position(|call| *call == correlation) {
                    knows.outbound.remove(at);
                }
            }
            Kind::ACQUIRED => {
                for own in knows.registrations.iter_mut().filter(|own| own.id == frame.header.handle.index) {
                    own.is_queued = false;
                }
            }
            Kind::DONE => {
                if knows.asked.contains(&correlation) {
                    knows.asked.retain(|asked| *asked != correlation);
                    let registered =
                        if frame.has(Flags::ERROR) { None } else { frame.decode::<Registered>() };
                    knows.registrations.extend(
                        registered.map(|done| Registration { id: done.registration, is_queued: done.queued }),
                    );
                }
                if frame.has(Flags::ERROR) {
                    knows.subscriptions.retain(|subscription| *subscription != correlation);
                    knows.watches.retain(|watch| *watch != correlation);
                }
            }
            Kind::WAITING => knows.waits.push(correlation),
            Kind::OUTCOME => {
                knows.waits.retain(|wait| *wait != correlation);
                let operation = Operation(frame.header.handle.index);
                if frame.has(Flags::ERROR) {
                    knows.observations.retain(|observation| *observation != correlation);
                    knows.key_watches.retain(|watch| *watch != correlation);
                } else if GRANTS.contains(&operation) {
                    knows.holds.extend(frame.decode::<Granted>().map(|granted| granted.token));
                }
            }
            Kind::NOTICE => match Told(frame.header.handle.index) {
                Told::LOST => {
                    let lost = frame.decode::<Lost>().map(|lost| lost.token);
                    knows.holds.retain(|hold| Some(*hold) != lost);
                }
                Told::TAKEN_UP => {
                    knows.holds.extend(frame.decode::<TakenUp>().map(|taken_up| taken_up.token));
                }
                Told::OBSERVATION_LOST => {
                    knows.observations.retain(|observation| *observation != correlation);
                }
                Told::WATCH_LOST => knows.key_watches.retain(|watch| *watch != correlation),
                _ => {}
            },
            Kind::REVOKED => knows.forget(frame),
            Kind::CLOSE => knows.closed = true,
            _ => {}
        }
    }
}
