//! A daemon played by a script on a thread of its own.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use crate::blocking::{Client, ConnectOptions};
use crate::error::Error;
use crate::id::Handle;
use crate::transport::Address;
use crate::wire::codec::{Text, Wire};
use crate::wire::message::{ErrorBody, IdentityInfo, PeerInfo, Registered, Subscribed, TopicInfo, Welcome};
use crate::wire::{Decoder, Flags, FrameLimits, Header, Kind, encode_frame};

/// No test waits longer for what is bound to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// The peer that fake daemons announce.
pub(super) const SENDER: u32 = 7;
/// The topic that fake daemons announce.
pub(super) const TOPIC: Handle = Handle { index: 3, generation: 1 };

/// A frame that the fake daemon received.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) header: Header,
    pub(super) envelope: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl Received {
    pub(super) fn decode<T: Wire>(&self) -> T {
        crate::wire::codec::decode(&self.envelope).unwrap()
    }
}

/// The fake daemon's end of one connection.
pub(super) struct Fake {
    pub(super) stream: UnixStream,
    decoder: Decoder,
    read: Vec<u8>,
    at: usize,
}

impl Fake {
    pub(super) fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let limits = FrameLimits { payload_max_bytes: 64 << 20, frame_max_bytes: None };
        Self { stream, decoder: Decoder::after_preamble(limits), read: Vec::new(), at: 0 }
    }

    /// Accepts, and answers the hello.
    pub(super) fn greet(listener: &UnixListener) -> Self {
        Self::greet_as(listener, 1)
    }

    pub(super) fn greet_as(listener: &UnixListener, epoch: u64) -> Self {
        let mut fake = Self::accept(listener);
        assert_eq!(fake.expect().header.kind, Kind::HELLO);
        fake.welcome(epoch);
        fake
    }

    /// Accepts, and answers the hello only when a request is there too.
    pub(super) fn greet_late(listener: &UnixListener) -> Self {
        let mut fake = Self::accept(listener);
        assert_eq!(fake.expect().header.kind, Kind::HELLO);
        assert_eq!(fake.expect().header.kind, Kind::RESOLVE);
        fake.welcome(1);
        fake
    }

    fn welcome(&mut self, epoch: u64) {
        let welcome = Welcome {
            version: 1,
            features: 0,
            epoch,
            peer: 1,
            payload_max_bytes: 16 << 20,
            handles_max: 64,
            pending_calls_max: 64,
            server: Text::from("fake"),
        };
        let peer = PeerInfo { peer: 99, identity: IdentityInfo::Local { uid: 5, gid: 6, pid: 7 } };
        // In one write: a client that only sends may be gone before a second.
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, Header::new(Kind::WELCOME), &welcome, b"").unwrap();
        let announced = Header { sender: SENDER, ..Header::new(Kind::PEER_ANNOUNCED) };
        encode_frame(&mut bytes, announced, &peer, b"").unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next frame; `None` at the end of the connection.
    pub(super) fn next(&mut self) -> Option<Received> {
        loop {
            let mut rest = &self.read[self.at..];
            let before = rest.len();
            let frame = self.decoder.next(&mut rest).unwrap().map(|frame| Received {
                header: frame.header,
                envelope: frame.envelope.to_vec(),
                body: frame.body.as_slice().to_vec(),
            });
            self.at += before - rest.len();
            if frame.is_some() {
                return frame;
            }
            let mut buffer = [0; 65_536];
            let count = self.stream.read(&mut buffer).unwrap();
            if count == 0 {
                return None;
            }
            self.read = buffer[..count].to_vec();
            self.at = 0;
        }
    }

    pub(super) fn expect(&mut self) -> Received {
        self.next().expect("another frame")
    }

    /// The next frame of that kind; those before are passed over.
    pub(super) fn expect_kind(&mut self, kind: Kind) -> Received {
        loop {
            let frame = self.expect();
            if frame.header.kind == kind {
                return frame;
            }
        }
    }

    pub(super) fn send<T: Wire>(&mut self, header: Header, envelope: &T, body: &[u8]) {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, header, envelope, body).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    pub(super) fn send_bare(&mut self, header: Header, body: &[u8]) {
        self.stream.write_all(&plain(header, body)).unwrap();
    }

    /// Answers a call.
    pub(super) fn reply(&mut self, call: &Received, body: &[u8]) {
        self.send_bare(reply_header(call), body);
    }

    pub(super) fn reply_error(&mut self, call: &Received, error: &Error) {
        let header = Header { flags: Flags::ERROR, ..reply_header(call) };
        self.send(header, &ErrorBody::from(error), b"");
    }

    /// Answers a `subscribe` and announces [`TOPIC`] as `a.b`.
    pub(super) fn subscribed(&mut self) -> u64 {
        let correlation = self.expect_kind(Kind::SUBSCRIBE).header.correlation;
        self.send(
            Header::new(Kind::TOPIC_ANNOUNCED).with_handle(TOPIC),
            &TopicInfo { name: "a.b".into() },
            b"",
        );
        let done = Header::new(Kind::DONE).with_correlation(correlation);
        self.send(done, &Subscribed { sequence: 0 }, b"");
        correlation
    }

    /// Answers a `register` with the number 4.
    pub(super) fn registered(&mut self) {
        let correlation = self.expect_kind(Kind::REGISTER).header.correlation;
        let done = Header::new(Kind::DONE).with_correlation(correlation);
        self.send(done, &Registered { registration: 4, queued: false }, b"");
    }

    /// Answers a `ping`.
    pub(super) fn pong(&mut self) {
        let correlation = self.expect_kind(Kind::PING).header.correlation;
        self.send_bare(Header::new(Kind::PONG).with_correlation(correlation), b"");
    }
}

pub(super) fn plain(header: Header, body: &[u8]) -> Vec<u8> {
    let header = Header { payload_len: u32::try_from(body.len()).unwrap(), ..header };
    [&header.to_bytes(), body].concat()
}

pub(super) fn reply_header(call: &Received) -> Header {
    let header = Header::new(Kind::REPLY).with_correlation(call.header.correlation);
    Header { sender: SENDER, ..header }
}

/// An event of [`TOPIC`] for a subscription.
pub(super) fn event(subscription: u64, sequence: u64, body: &[u8]) -> Vec<u8> {
    let header = Header::new(Kind::EVENT).with_correlation(subscription).with_handle(TOPIC);
    plain(Header { sender: SENDER, sequence, ..header }, body)
}

/// A call to method 0 of registration 4.
pub(super) fn call(correlation: u64, deadline_us: u32, body: &[u8]) -> Vec<u8> {
    let handle = Handle { index: 4, generation: 0 };
    let header = Header::new(Kind::CALL).with_correlation(correlation).with_handle(handle);
    plain(Header { sender: SENDER, deadline_us, ..header }, body)
}

/// Runs `script` as the daemon and `client` beside it, with options that lead there.
pub(super) fn with_fake<T>(
    script: impl FnOnce(UnixListener) + Send,
    client: impl FnOnce(ConnectOptions) -> T,
) -> T {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        let daemon = scope.spawn(move || script(listener));
        let result = client(ConnectOptions::new().address(Address::Unix(path)).connect_timeout(PATIENCE));
        daemon.join().unwrap();
        result
    })
}

/// The same with a client that has connected; the script starts after the hello.
pub(super) fn with_client<T>(script: impl FnOnce(Fake) + Send, client: impl FnOnce(Client) -> T) -> T {
    with_fake(|listener| script(Fake::greet(&listener)), |options| client(Client::connect(options).unwrap()))
}
