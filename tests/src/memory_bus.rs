//! A broker with connections in memory, for tests that speak in frames: every byte arrives whole and at once.

use core::time::Duration;
use ipc_core::id::Epoch;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_core::wire::codec::{self, Wire};
use ipc_core::wire::{Decoder, FrameLimits, Header, Kind, encode_frame};
use ipc_daemon::broker::{Access, Broker, Config, Output, PeerKey, Policy, Transport};

use crate::disk::Disk;

/// The life of every daemon in memory.
pub const EPOCH: Epoch = Epoch(0x0123_4567_89ab_cdef);

/// A frame that a client has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its header.
    pub header: Header,
    /// Its envelope, encoded.
    pub envelope: Vec<u8>,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Received {
    /// The envelope as a value.
    ///
    /// # Panics
    /// When it is something else: the daemon has broken the protocol.
    pub fn decode<T: Wire>(&self) -> T {
        codec::decode(&self.envelope).unwrap_or_else(|error| panic!("{:?}: {error}", self.header.kind))
    }
}

/// One end of a connection.
pub struct Client {
    key: PeerKey,
    /// Cuts what this client sends.
    sent: Decoder,
    /// Cuts what the daemon sends.
    received: Decoder,
    /// Frames that have arrived, oldest first.
    pub inbox: Vec<Received>,
    /// True once the daemon has closed the connection.
    pub is_closed: bool,
    /// True once the daemon has asked to be told of the end of its process.
    pub is_process_watched: bool,
    /// While false, nothing is read of what the daemon sends.
    pub reads: bool,
}

impl Client {
    /// Takes the frames of one kind out of the inbox.
    pub fn take(&mut self, kind: Kind) -> Vec<Received> {
        self.inbox.extract_if(.., |frame| frame.header.kind == kind).collect()
    }

    /// The connection's name at the broker.
    pub fn key(&self) -> PeerKey {
        self.key
    }
}

/// The bus.
pub struct MemoryBus {
    /// The broker, to look at.
    pub broker: Broker,
    /// The time, which passes by hand.
    pub now: Instant,
    /// Its store, if it has one.
    pub disk: Option<Disk>,
    clients: Vec<Client>,
}

impl MemoryBus {
    /// A bus with these limits, in a life of the daemon that is the same every time.
    pub fn new(limits: Limits) -> Self {
        Self::with_policy(limits, Policy::open(Vec::new()))
    }

    /// The same with a policy.
    pub fn with_policy(limits: Limits, policy: Policy) -> Self {
        let config = Config { limits, policy, epoch: EPOCH, server: "ipc-daemon".to_owned() };
        let mut broker = Broker::new(config);
        let now = Instant::from_nanos(1_000_000_000);
        broker.tick(now);
        Self { broker, now, disk: None, clients: Vec::new() }
    }

    /// A bus that starts at `now` with what is on a disk.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn with_disk(limits: Limits, now: Instant, disk: Disk) -> Self {
        let mut bus = Self::new(limits);
        bus.now = now;
        bus.broker.tick(now);
        for (key, value) in &disk.records {
            bus.broker.restore(now, key, value).expect("what was written is read");
        }
        bus.broker.open_store(now).expect("what was written fits together");
        bus.disk = Some(disk);
        bus.flush();
        bus
    }

    /// The commit that is under way ends. Says whether there was one.
    ///
    /// # Panics
    /// Without a disk.
    pub fn finish_commit(&mut self) -> bool {
        let disk = self.disk.as_mut().expect("a disk");
        let Some((sequence, result)) = disk.finish() else { return false };
        self.broker.handle_stored(self.now, sequence, result);
        self.flush();
        true
    }

    /// Opens a connection of a local process; gives its place among the clients.
    pub fn connect(&mut self, uid: u32) -> usize {
        self.connect_as(Identity::Local { uid, gid: uid, pid: 100 + self.clients.len() as u32 })
    }

    /// Opens a connection of whoever it is; gives its place among the clients.
    pub fn connect_as(&mut self, identity: Identity) -> usize {
        let transport = match identity {
            Identity::Local { .. } => Transport::UnixStream,
            Identity::Remote { .. } => Transport::Tcp,
        };
        let connected = self.broker.connect(self.now, identity, transport, Access::Granted);
        let key = connected.expect("there is room for another connection");
        let limits = self.broker.frame_limits(key);
        let any = FrameLimits { payload_max_bytes: u32::MAX, frame_max_bytes: None };
        self.clients.push(Client {
            key,
            sent: Decoder::after_preamble(limits),
            received: Decoder::new(any),
            inbox: Vec::new(),
            is_closed: false,
            is_process_watched: false,
            reads: true,
        });
        self.clients.len() - 1
    }

    /// One of the clients, in the order they connected.
    pub fn client(&mut self, at: usize) -> &mut Client {
        &mut self.clients[at]
    }

    /// Sends one frame.
    pub fn say<T: Wire>(&mut self, from: usize, header: Header, envelope: &T, payload: &[u8]) {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, header, envelope, payload).expect("the frame is within the limits");
        self.send(from, &bytes);
    }

    /// Sends bytes, whatever they are, and has the daemon do all that follows from them.
    pub fn send(&mut self, from: usize, bytes: &[u8]) {
        let mut input = bytes;
        loop {
            let client = &mut self.clients[from];
            if client.is_closed {
                return;
            }
            match client.sent.next(&mut input) {
                Ok(Some(frame)) => self.broker.handle_frame(self.now, client.key, frame),
                Ok(None) => break,
                Err(error) => self.broker.handle_violation(client.key, error),
            }
            let limits = self.broker.frame_limits(self.clients[from].key);
            self.clients[from].sent.set_limits(limits);
            self.flush();
        }
    }

    /// Gives the daemon another policy.
    pub fn set_policy(&mut self, policy: Policy) {
        self.broker.set_policy(policy);
        self.flush();
    }

    /// Lets time pass.
    pub fn wait(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.broker.tick(self.now);
        self.broker.handle_timeout(self.now);
        self.flush();
    }

    /// Ends a connection from its own side.
    pub fn leave(&mut self, at: usize) {
        self.clients[at].is_closed = true;
        self.broker.disconnect(self.clients[at].key);
        self.flush();
    }

    /// The daemon keeps that many bytes for a frame of which a part has come from a client.
    pub fn keep_part(&mut self, at: usize, bytes: usize) {
        self.broker.note_receiving(self.clients[at].key, bytes);
        self.flush();
    }

    /// Ends the process of a client, while somebody else keeps its connection.
    pub fn end_process(&mut self, at: usize) {
        self.broker.handle_process_end(self.clients[at].key);
        self.flush();
    }

    /// Ends what a client sends, while it still receives.
    pub fn end_input(&mut self, at: usize) {
        self.broker.handle_eof(self.clients[at].key);
        self.flush();
    }

    /// Moves what waits for a client that reads again.
    pub fn resume(&mut self, at: usize) {
        self.clients[at].reads = true;
        let key = self.clients[at].key;
        self.broker.writable(self.now, key);
        self.transmit(at);
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(output) = self.broker.poll_output() {
            let (Output::Flush(key) | Output::Close(key) | Output::WatchProcess(key)) = output else {
                let commit = self.broker.take_commit().expect("a commit");
                let disk = self.disk.as_mut().expect("a daemon without a disk commits nothing");
                disk.begin(commit);
                if !disk.holds {
                    self.finish_commit();
                }
                continue;
            };
            let Some(at) = self.clients.iter().position(|client| client.key == key) else { continue };
            self.clients[at].is_process_watched |= matches!(output, Output::WatchProcess(_));
            self.transmit(at);
            if matches!(output, Output::Close(_)) && !self.clients[at].is_closed {
                self.leave(at);
            }
        }
    }

    fn transmit(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if !client.reads {
            self.broker.transmitted(self.now, client.key, 0);
            return;
        }
        while self.broker.has_pending(client.key) {
            let bytes: Vec<u8> = self.broker.transmit(client.key).flatten().copied().collect();
            assert!(!bytes.is_empty(), "something is pending and there is nothing to transmit");
            self.broker.transmitted(self.now, client.key, bytes.len());
            let mut input = &bytes[..];
            while let Some(frame) = client.received.next(&mut input).expect("the daemon speaks the protocol")
            {
                let (envelope, payload) = (frame.envelope.to_vec(), frame.body.as_slice().to_vec());
                client.inbox.push(Received { header: frame.header, envelope, payload });
            }
        }
    }
}
