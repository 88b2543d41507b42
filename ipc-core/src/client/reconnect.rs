//! Connecting, and connecting again.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant as Timer, sleep, timeout, timeout_at};

use super::shared::State;
use super::socket::Socket;
use super::wakers::Wakes;
use crate::error::{Error, ErrorCode};
use crate::options::{ConnectOptions, new_session, random, secret};
use crate::session::{Config, DaemonInfo, State as Stage};
use crate::transport::{Address, clock, connect, datagrams};

/// Pauses while the daemon's queue of new connections is full.
const FULL_PAUSE_FIRST: Duration = Duration::from_millis(1);
const FULL_PAUSE_MAX: Duration = Duration::from_millis(50);

/// One attempt; `None` when the daemon's queue is full just now. Over TCP the connection is under way, and how that ends
/// shows when it is written to.
pub(super) fn try_socket(options: &ConnectOptions) -> Result<Option<Socket>, Error> {
    try_address(&options.find_daemon()?, options)
}

fn try_address(address: &Address, options: &ConnectOptions) -> Result<Option<Socket>, Error> {
    let connected = match address {
        Address::Dgram(_) | Address::Udp(_) => Some(datagrams::connect(address, &options.trust())?),
        Address::Unix(_) | Address::Tcp(_) => {
            connect::try_connect(address, &options.trust())?.map(Into::into)
        }
    };
    let Some(connected) = connected else { return Ok(None) };
    let socket = Socket::new(connected)
        .map_err(|error| Error::new(ErrorCode::Io, format!("cannot wait for the connection: {error}")))?;
    Ok(Some(socket))
}

/// A connection whose hello was answered. A name that was looked up for it stays looked up in the options.
pub(super) async fn connect(options: &mut ConnectOptions) -> Result<(State, DaemonInfo), Error> {
    let end = Timer::now() + options.connect_timeout;
    let socket = socket(options, end).await?;
    let config = Config {
        name: options.name.clone(),
        preamble: true,
        hello_timeout: options.connect_timeout,
        operation_timeout: options.call_timeout,
        reports_completions: true,
        secret: Some(secret()?),
    };
    let session = new_session(&options.find_daemon()?, config, clock::now());
    // On a single processor, what is waited for needs the one that looks for it.
    let spins = options.poll_before_park && processors() > 1;
    let mut state = State::new(session, socket, spins);
    let greeted = timeout_at(end, greet(&mut state)).await;
    if greeted.is_err() {
        state.session.handle_timeout(clock::now() + options.connect_timeout);
    }
    match (state.session.daemon().cloned(), state.session.ended()) {
        (_, Some(error)) => Err(error.clone()),
        (Some(welcome), None) => Ok((state, welcome)),
        (None, None) => Err(Error::new(ErrorCode::Unreachable, "the daemon did not answer the hello")),
    }
}

async fn socket(options: &mut ConnectOptions, end: Timer) -> Result<Socket, Error> {
    let address = options.find_daemon()?;
    let found = look_up(&address, options.connect_timeout, end).await?;
    let mut last = None;
    for found in found {
        match socket_at(&found, options, end).await {
            Ok(socket) => {
                if found != address {
                    options.address = Some(found);
                }
                return Ok(socket);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| connect::failed(&address, None, options.connect_timeout)))
}

/// The address with its name looked up, on a thread for what may take its time.
async fn look_up(address: &Address, timeout: Duration, end: Timer) -> Result<Vec<Address>, Error> {
    let named = match address {
        Address::Tcp(place) | Address::Udp(place) if place.socket_addr().is_none() => address.clone(),
        known => return Ok(vec![known.clone()]),
    };
    let found = tokio::task::spawn_blocking(move || connect::look_up(&named));
    match timeout_at(end, found).await {
        Ok(Ok(found)) => found,
        // The runtime is going away, or the resolver does not answer.
        Ok(Err(_)) | Err(_) => Err(connect::failed(address, None, timeout)),
    }
}

async fn socket_at(address: &Address, options: &ConnectOptions, end: Timer) -> Result<Socket, Error> {
    let socket = match timeout_at(end, waiting_in_line(address, options)).await {
        Ok(socket) => socket?,
        Err(_) => return Err(connect::failed(address, None, options.connect_timeout)),
    };
    if !matches!(address, Address::Tcp(_)) {
        return Ok(socket);
    }
    match timeout_at(end, socket.connected()).await {
        Ok(Ok(())) => Ok(socket),
        Ok(Err(error)) => Err(connect::failed(address, Some(error), options.connect_timeout)),
        Err(_) => Err(connect::failed(address, None, options.connect_timeout)),
    }
}

async fn waiting_in_line(address: &Address, options: &ConnectOptions) -> Result<Socket, Error> {
    let mut pause = FULL_PAUSE_FIRST;
    loop {
        if let Some(socket) = try_address(address, options)? {
            return Ok(socket);
        }
        sleep(pause).await;
        pause = (pause * 2).min(FULL_PAUSE_MAX);
    }
}

/// Waits until the daemon has answered the hello, or it is clear that it will not. What is lost is sent again.
async fn greet(state: &mut State) {
    while state.session.state() == Stage::Greeting {
        let due = state.session.poll_timeout().map(|due| due.since(clock::now()));
        let greeting = poll_fn(|cx| poll_greeting(state, cx));
        match due {
            None => greeting.await,
            Some(due) => {
                if timeout(due, greeting).await.is_err() {
                    state.session.handle_timeout(clock::now());
                }
            }
        }
    }
}

/// Moves bytes until the daemon has answered the hello, or it is clear that it will not.
fn poll_greeting(state: &mut State, cx: &mut Context<'_>) -> Poll<()> {
    // Nobody waits for anything yet but this future.
    let mut wakes = Wakes::new();
    while state.session.state() == Stage::Greeting {
        state.flush(cx, &mut wakes);
        if !state.read_once(cx, &mut wakes) {
            return Poll::Pending;
        }
    }
    Poll::Ready(())
}

/// How many processors this thread may run on.
fn processors() -> u32 {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count())
}

/// Where a lost connection stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// There is a connection.
    Connected,
    /// The next attempt comes at `until`; so many have failed.
    Pausing { until: crate::time::Instant, failed: u32 },
    /// There is a connection whose hello was not answered yet; so many attempts have failed before.
    Greeting { failed: u32 },
    /// It is over.
    Over,
}

impl Phase {
    /// How many attempts have failed since there was a connection.
    pub(super) fn failed(&self) -> u32 {
        match self {
            Phase::Connected | Phase::Over => 0,
            Phase::Pausing { failed, .. } | Phase::Greeting { failed } => *failed,
        }
    }

    /// The next phase after one more failure, or `Over` when it is given up.
    pub(super) fn after_failure(options: &ConnectOptions, failed: u32) -> Self {
        let pause = options.reconnect.and_then(|backoff| backoff.pause(failed, random() as u32));
        match pause {
            Some(pause) => Phase::Pausing { until: clock::now() + pause, failed },
            None => Phase::Over,
        }
    }
}
