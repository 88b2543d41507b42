//! Connecting, closing, and what the daemon said about itself.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::call::Started;
use super::link::Link;
use super::serve::Services;
use crate::error::{Error, ErrorCode};
use crate::limits::{DEADLINE_MAX, PAYLOAD_BEFORE_WELCOME_MAX_BYTES};
use crate::options::{ConnectOptions, new_session, secret};
use crate::payload::Payload;
use crate::session::{Config, DaemonInfo, Session, State};
use crate::transport::{Address, clock, connect, datagrams};

/// The next client's number.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);
/// How long closing waits for the daemon to take the last bytes.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// A connection to the daemon, for one thread at a time.
///
/// It can be sent to another thread and not shared: threads that call at the same time each open their own, which costs the
/// daemon little. Dropping it closes the connection at once; open calls are then cancelled and services taken back.
#[derive(Debug)]
pub struct Client {
    pub(super) link: Link,
    pub(super) session: Session,
    /// What was read last; its memory is used again.
    pub(super) read_buffer: Vec<u8>,
    pub(super) options: ConnectOptions,
    pub(super) services: Services,
    /// How often something was read.
    pub(super) reads: u64,
    pub(super) started: Started,
    /// Whether the daemon was another one after the last reconnect.
    pub(super) epoch_changed: bool,
    /// Tells what was made by this client from what was made by another.
    pub(super) id: u64,
}

impl Client {
    /// Connects to the daemon and exchanges the first messages with it.
    ///
    /// # Errors
    /// - `unreachable`: no daemon there, or it does not answer within [`ConnectOptions::connect_timeout`];
    /// - `unauthenticated`, `unsafe_path`: it is not one's own daemon or the system's; nothing was sent;
    /// - `permission_denied`: it does not let this user in;
    /// - `unsupported_version`, `protocol_violation`: it speaks another language.
    pub fn connect(options: ConnectOptions) -> Result<Self, Error> {
        let mut client = Self::open(options)?;
        client.greet()?;
        Ok(client)
    }

    /// Connects and does not wait for the daemon's first answer: the hello travels with the first request, and what is wrong
    /// with it shows there. Saves a program with one question a round trip.
    ///
    /// # Errors
    /// As [`connect`](Client::connect), for what is known before anything was sent.
    pub fn open(options: ConnectOptions) -> Result<Self, Error> {
        let deadline = clock::now() + options.connect_timeout;
        let (address, link) = open_link(&options)?;
        let now = clock::now();
        let config = Config {
            name: options.name.clone(),
            preamble: true,
            hello_timeout: deadline.since(now),
            operation_timeout: options.call_timeout,
            reports_completions: true,
            secret: Some(secret()?),
        };
        Ok(Self {
            link,
            session: new_session(&address, config, now),
            read_buffer: Vec::new(),
            options,
            services: Services::default(),
            reads: 0,
            started: Started::default(),
            epoch_changed: false,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Waits until the daemon has answered the hello.
    pub(super) fn greet(&mut self) -> Result<(), Error> {
        while self.session.state() == State::Greeting {
            self.step(None)?;
        }
        self.check_connected()
    }

    /// Waits until the daemon has answered the hello, unless what is to be sent may go before that.
    pub(super) fn greet_before(&mut self, payload: &Payload) -> Result<(), Error> {
        let is_large = payload.len() > PAYLOAD_BEFORE_WELCOME_MAX_BYTES as usize;
        if is_large { self.greet_if_needed() } else { Ok(()) }
    }

    /// Waits until the daemon has answered the hello, so that it is known what it understands.
    pub(super) fn greet_if_needed(&mut self) -> Result<(), Error> {
        if self.session.state() == State::Greeting { self.greet() } else { Ok(()) }
    }

    /// What the daemon said about itself; nothing is known before its first answer to an [opened](Client::open) client.
    pub fn daemon(&self) -> Option<&DaemonInfo> {
        self.session.daemon()
    }

    /// The options it was connected with.
    pub fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// Whether the connection stands, as far as was read. When it does not, requests fail with `unreachable` until
    /// [`reconnect`](Client::reconnect).
    pub fn is_connected(&self) -> bool {
        self.session.state() == State::Open
    }

    /// Deadline of calls that do not have their own.
    pub fn timeout(&self) -> Duration {
        self.options.call_timeout
    }

    /// Another deadline for calls that do not have their own; at most an hour counts. Other answers of the daemon are waited
    /// for as long as [`ConnectOptions::call_timeout`] said when it was connected.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.options.call_timeout = timeout.min(DEADLINE_MAX);
    }

    /// Tells the daemon that this is the end, and closes. Open calls are cancelled, services taken back.
    ///
    /// # Errors
    /// `unreachable` when the connection was lost before.
    pub fn close(mut self) -> Result<(), Error> {
        if let Some(error) = self.session.ended() {
            return Err(Error::new(ErrorCode::Unreachable, error.message.clone()));
        }
        self.session.close();
        // What the daemon does not take in that time it learns from the end of the connection.
        self.flush_until(clock::now() + CLOSE_TIMEOUT)?;
        Ok(())
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// A connection to the daemon that the options lead to, on which nothing was said yet, and where that is.
pub(super) fn open_link(options: &ConnectOptions) -> Result<(Address, Link), Error> {
    let address = options.find_daemon()?;
    let link = match &address {
        Address::Dgram(_) | Address::Udp(_) => {
            let socket = datagrams::connect(&address, &options.trust())?;
            rustix::io::ioctl_fionbio(&socket, false).map_err(|errno| {
                Error::new(ErrorCode::Io, format!("cannot make the socket a blocking one: {errno}"))
            })?;
            Link::new(socket)
        }
        Address::Unix(_) | Address::Tcp(_) => {
            Link::new(connect::connect(&address, &options.trust(), options.connect_timeout)?)
        }
    };
    Ok((address, link))
}
