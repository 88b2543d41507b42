//! A client made of bytes, for end-to-end tests of what no library would send. Every wait is bounded.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use ipc_core::id::Handle;
use ipc_core::limits::PAYLOAD_MAX_CEILING_BYTES;
use ipc_core::wire::codec::{List, Wire};
use ipc_core::wire::message::{
    Close, ErrorBody, Hello, MethodInfo, Register, RegisterMode, Resolve, Welcome,
};
use ipc_core::wire::{
    Decoder, FEATURES, Flags, FrameLimits, Header, Kind, PREAMBLE, VERSION_MAX, VERSION_MIN, encode_frame,
};
use ipc_core::{Error, ErrorCode};

use crate::daemon::PATIENCE;

/// A frame that was received.
#[derive(Clone, Debug)]
pub struct RawFrame {
    /// The fixed part.
    pub header: Header,
    /// The encoded envelope.
    pub envelope: Vec<u8>,
    /// The payload.
    pub body: Vec<u8>,
}

impl RawFrame {
    /// The envelope, which must be a `T`.
    pub fn decode<T: Wire>(&self) -> T {
        ipc_core::wire::codec::decode(&self.envelope).expect("the envelope is what the kind says")
    }

    /// The reason in a `close`.
    ///
    /// # Panics
    /// When it is another frame.
    pub fn close_reason(&self) -> (ErrorCode, String) {
        assert_eq!(self.header.kind, Kind::CLOSE, "{self:?}");
        let close: Close = self.decode();
        (ErrorCode::from_number(close.code).expect("a known code"), close.message.0)
    }

    /// The error of a `reply` or `done`, if it carries one.
    pub fn error(&self) -> Option<Error> {
        self.header.flags.contains(Flags::ERROR).then(|| self.decode::<ErrorBody>().into())
    }
}

/// Bytes of one frame.
pub fn frame<T: Wire>(header: Header, envelope: &T, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, header, envelope, payload).expect("the frame is a legal one");
    bytes
}

/// The preamble and a hello.
pub fn greeting(name: &str) -> Vec<u8> {
    let hello =
        Hello { version_min: VERSION_MIN, version_max: VERSION_MAX, features: FEATURES, name: name.into() };
    let mut bytes = PREAMBLE.to_vec();
    bytes.extend(frame(Header::new(Kind::HELLO), &hello, &[]));
    bytes
}

/// A connection to a daemon, byte by byte.
#[derive(Debug)]
pub struct RawPeer {
    stream: UnixStream,
    decoder: Decoder,
    unread: Vec<u8>,
    /// The correlation of the last call that has come.
    asked: Option<u64>,
}

impl RawPeer {
    /// Connects, and says nothing.
    pub fn connect(socket: &Path) -> Self {
        Self::over(UnixStream::connect(socket).expect("the daemon listens"))
    }

    /// A peer over a connected socket of any family, which has said nothing yet.
    pub fn over(stream: impl Into<OwnedFd>) -> Self {
        // What std's type does, it does with any stream socket.
        let stream = UnixStream::from(stream.into());
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let limits = FrameLimits { payload_max_bytes: PAYLOAD_MAX_CEILING_BYTES, frame_max_bytes: None };
        Self { stream, decoder: Decoder::new(limits), unread: Vec::new(), asked: None }
    }

    /// Connects and says hello.
    pub fn greeted(socket: &Path) -> (Self, Welcome) {
        let mut peer = Self::connect(socket);
        peer.send(&greeting("raw"));
        let frame = peer.receive().expect("the daemon answers the hello");
        assert_eq!(frame.header.kind, Kind::WELCOME, "{frame:?}");
        (peer, frame.decode())
    }

    /// The socket.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When the daemon does not take them in time, or has closed the connection.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the daemon takes the bytes");
    }

    /// Sends bytes; false when the daemon has closed the connection.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => false,
            Err(error) => panic!("sending: {error}"),
        }
    }

    /// The next frame; `None` when the daemon has closed the connection.
    ///
    /// # Panics
    /// When neither happens in time, or the daemon sends something else.
    pub fn receive(&mut self) -> Option<RawFrame> {
        loop {
            let mut rest = &self.unread[..];
            let frame = self.decoder.next(&mut rest).expect("the daemon keeps to the protocol");
            let found = frame.map(|frame| RawFrame {
                header: frame.header,
                envelope: frame.envelope.to_vec(),
                body: frame.body.as_slice().to_vec(),
            });
            let taken = self.unread.len() - rest.len();
            self.unread.drain(..taken);
            if let Some(frame) = &found {
                if frame.header.kind == Kind::CALL {
                    self.asked = Some(frame.header.correlation);
                }
                return found;
            }
            let more = self.receive_bytes();
            if more.is_empty() {
                return None;
            }
            self.unread = more;
        }
    }

    /// Answers the last call that has come.
    ///
    /// # Panics
    /// When none has.
    pub fn answer(&mut self, body: &[u8]) {
        let asked = self.asked.expect("a call has come");
        self.send(&frame(Header::new(Kind::REPLY).with_correlation(asked), &(), body));
    }

    /// What one read gives; nothing when the daemon has closed the connection.
    pub fn receive_bytes(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(count) => {
                    buffer.truncate(count);
                    return buffer;
                }
                // With a timeout it is so after SIGCONT, whatever is handled (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Vec::new(),
                Err(error) => panic!("receiving: {error}"),
            }
        }
    }

    /// Calls a method, for which the first handle is bound. Nothing is waited for but that.
    pub fn call(&mut self, service: &str, method: &str, payload: &[u8]) {
        let handle = Handle { index: 0, generation: 1 };
        let resolve = Resolve { service: service.into(), method: method.into() };
        let header = Header::new(Kind::RESOLVE).with_correlation(1).with_handle(handle);
        self.send(&frame(header, &resolve, &[]));
        assert_eq!(self.receive().expect("a frame").error(), None);
        let header = Header::new(Kind::CALL).with_correlation(2).with_handle(handle);
        self.send(&frame(header, &(), payload));
    }

    /// A round trip, which shows that the daemon serves this connection.
    pub fn ping(&mut self, correlation: u64) {
        self.send(&frame(Header::new(Kind::PING).with_correlation(correlation), &(), b"ping"));
        let pong = self.receive().expect("the daemon answers the ping");
        assert_eq!((pong.header.kind, pong.header.correlation), (Kind::PONG, correlation), "{pong:?}");
        assert_eq!(pong.body, b"ping");
    }
}

/// A service that never answers, and a caller whose call waits there.
///
/// # Panics
/// When the daemon does not bring them together.
pub fn open_call(socket: &Path) -> (RawPeer, RawPeer) {
    let (mut service, _) = RawPeer::greeted(socket);
    let register = Register {
        service: "test.silent".into(),
        mode: RegisterMode::Exclusive,
        queue: false,
        methods: List(vec![MethodInfo { name: "wait".into(), description: "".into() }]),
    };
    service.send(&frame(Header::new(Kind::REGISTER).with_correlation(1), &register, &[]));
    assert_eq!(service.receive().expect("a frame").header.kind, Kind::DONE);
    let (mut caller, _) = RawPeer::greeted(socket);
    caller.call("test.silent", "wait", b"?");
    let announced = service.receive().expect("a frame");
    assert_eq!(announced.header.kind, Kind::PEER_ANNOUNCED);
    assert_eq!(service.receive().expect("a frame").header.kind, Kind::CALL);
    (service, caller)
}
