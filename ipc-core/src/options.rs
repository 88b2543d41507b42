//! SHELL. What both clients, the async and the blocking one, can be told.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
#[cfg(any(feature = "client", feature = "blocking"))]
use crate::error::ErrorCode;
use crate::name::ResourceName;
#[cfg(any(feature = "client", feature = "blocking"))]
use crate::session::{self, Session};
#[cfg(any(feature = "client", feature = "blocking"))]
use crate::time::Instant;
use crate::transport::{Address, Environment, Trust, runtime_dir};

/// Time for connecting and for the first exchange, when the options do not say.
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Deadline of a call, when the options do not say.
const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// How to find the daemon, and how long to wait for what.
///
/// ```
/// use ipc_core::ConnectOptions;
/// use std::time::Duration;
///
/// let options = ConnectOptions::new().name("thermostat").call_timeout(Duration::from_secs(1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Where the daemon is. Default: as [`Address::discover`] finds it.
    pub address: Option<Address>,
    /// The runtime directory to look for the daemon in, when there is no address. Default: the documented order.
    pub runtime_dir: Option<PathBuf>,
    /// What this program calls itself, for people; at most 64 bytes, longer ones are cut. Default: the program's file name.
    pub name: String,
    /// Time for connecting and the first exchange together. Default: 5 s.
    pub connect_timeout: Duration,
    /// Deadline of calls that do not have their own, and time for each other answer of the daemon. Default: 5 s.
    pub call_timeout: Duration,
    /// How to connect again when the connection is lost. Default: not at all; requests then fail with `unreachable`. The
    /// blocking client does so while it serves, and when it is told to.
    pub reconnect: Option<Backoff>,
    /// A user whose daemon is trusted besides one's own and root's. Default: none.
    pub trusted_owner: Option<u32>,
    /// Async client: whether a task that waits for an answer looks again for up to 50 us, giving way to others in between,
    /// before it sleeps. Halves round trips where there is more than one processor, for some processor time; it turns itself
    /// off where answers take longer, and is off for a program that is bound to one processor. Default: yes.
    pub poll_before_park: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            address: None,
            runtime_dir: None,
            name: program_name(),
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            call_timeout: CALL_TIMEOUT_DEFAULT,
            reconnect: None,
            trusted_owner: None,
            poll_before_park: true,
        }
    }
}

impl ConnectOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with that address.
    #[must_use]
    pub fn address(mut self, address: Address) -> Self {
        self.address = Some(address);
        self
    }

    /// The same with that runtime directory.
    #[must_use]
    pub fn runtime_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.runtime_dir = Some(directory.into());
        self
    }

    /// The same with that name of the program.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same with that time for connecting.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The same with that default deadline of calls.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// The same, connecting again when the connection is lost.
    #[must_use]
    pub fn reconnect(mut self, backoff: Backoff) -> Self {
        self.reconnect = Some(backoff);
        self
    }

    /// The same, looking again before sleeping, or not.
    #[must_use]
    pub fn poll_before_park(mut self, polls: bool) -> Self {
        self.poll_before_park = polls;
        self
    }

    /// The same, trusting the daemon of that user too.
    #[must_use]
    pub fn trusted_owner(mut self, uid: u32) -> Self {
        self.trusted_owner = Some(uid);
        self
    }

    /// Where these options lead to. Asked anew for each attempt to connect: a daemon may come up in another place.
    ///
    /// # Errors
    /// As [`runtime_dir::find_socket`].
    pub fn find_daemon(&self) -> Result<Address, Error> {
        match &self.address {
            Some(address) => Ok(address.clone()),
            None => {
                runtime_dir::find_socket(&Environment::read(), self.runtime_dir.as_deref(), &self.trust())
            }
        }
    }

    /// Whose daemon is spoken to.
    pub fn trust(&self) -> Trust {
        Trust { owner: self.trusted_owner }
    }
}

/// The session for a conversation with the daemon at `address`, which has not begun.
#[cfg(any(feature = "client", feature = "blocking"))]
pub(crate) fn new_session(address: &Address, config: session::Config, now: Instant) -> Session {
    let is_local = match address {
        Address::Unix(_) | Address::Tcp(_) => return Session::connect(config, now),
        Address::Dgram(_) => true,
        Address::Udp(_) => false,
    };
    let seed = random();
    // The lower half: the seed uses all of it, and neither is a secret.
    let carrier = session::courier::Config { client: seed as u32, seed, is_local };
    Session::over_datagrams(config, carrier, now)
}

/// A number that differs from client to client.
#[cfg(any(feature = "client", feature = "blocking"))]
pub(crate) fn random() -> u64 {
    // The keys of a fresh map are the one source of randomness that the standard library offers.
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// What nobody else can guess, and a session is known by.
///
/// # Errors
/// `io` when the system has no randomness to give.
#[cfg(any(feature = "client", feature = "blocking"))]
pub(crate) fn secret() -> Result<session::Secret, Error> {
    let mut bytes = [0; session::SECRET_BYTES];
    let drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match drawn {
        // So few come all at once (getrandom(2)).
        Ok(count) if count == bytes.len() => Ok(session::Secret::new(bytes)),
        Ok(_) => Err(Error::new(ErrorCode::Io, "the system gave less randomness than was asked for")),
        Err(errno) => Err(Error::new(ErrorCode::Io, format!("the system gives no randomness: {errno}"))),
    }
}

fn program_name() -> String {
    let program = std::env::args_os().next().map(PathBuf::from);
    let name = program.as_deref().and_then(|path| path.file_name());
    name.map_or_else(|| "unnamed".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// What one call can be told.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CallOptions {
    /// How long the outcome is waited for, at most one hour. Default: the client's `call_timeout`. While a call is being
    /// served, never longer than what is left of that call's deadline.
    pub deadline: Option<Duration>,
    /// W3C Trace Context to send along, at most 55 bytes. Default: none.
    pub traceparent: Option<String>,
    /// A lock and the token of its holder: with an older one than the last that was given the daemon does not hand the call
    /// on, and it ends with `stale_fencing_token`. Default: none.
    pub fence: Option<(ResourceName, u64)>,
}

impl CallOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with that deadline.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The same with that trace context.
    #[must_use]
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// The same under the token of a lock.
    ///
    /// Whoever held the lock and has lost it since cannot have anything done any more by services that are called so. The
    /// daemon compares when it hands the call on; what runs already goes on.
    #[must_use]
    pub fn fence(mut self, lock: ResourceName, token: u64) -> Self {
        self.fence = Some((lock, token));
        self
    }
}

/// What one event can be told.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PublishOptions {
    /// W3C Trace Context to send along, at most 55 bytes. Default: none.
    pub traceparent: Option<String>,
}

impl PublishOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with that trace context.
    #[must_use]
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }
}

/// Pauses between attempts to connect: each twice as long as the one before, up to a maximum, a random part shorter so that
/// the clients of a daemon that restarts do not come all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause. Default: 20 ms.
    pub first: Duration,
    /// The longest pause. Default: 2 s.
    pub max: Duration,
    /// Attempts until it is given up. Default: no limit.
    pub attempts_max: Option<u32>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(20), max: Duration::from_secs(2), attempts_max: None }
    }
}

impl Backoff {
    /// The pause after the `failed`th failed attempt, counted from 1: between half and all of its turn, as `random` says.
    /// `None` when it is time to give up.
    pub fn pause(&self, failed: u32, random: u32) -> Option<Duration> {
        if self.attempts_max.is_some_and(|max| failed >= max) {
            return None;
        }
        let doublings = failed.saturating_sub(1).min(31);
        let full = self.first.saturating_mul(1 << doublings).min(self.max);
        let half = full / 2;
        Some(half + half.mul_f64(f64::from(random) / f64::from(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum() {
        let backoff = Backoff { attempts_max: Some(5), ..Backoff::default() };
        let millis = |failed, random| backoff.pause(failed, random).map(|pause| pause.as_millis());
        assert_eq!(millis(1, u32::MAX), Some(20));
        assert_eq!(millis(1, 0), Some(10));
        assert_eq!(millis(2, u32::MAX), Some(40));
        assert_eq!(millis(4, u32::MAX), Some(160));
        assert_eq!(millis(5, u32::MAX), None);
        let endless = Backoff::default();
        for failed in [8, 100, u32::MAX] {
            assert_eq!(endless.pause(failed, u32::MAX), Some(endless.max));
        }
    }

    #[test]
    fn an_address_is_taken_as_it_is() {
        let address = Address::parse("unix:/nowhere/bus.sock").unwrap();
        let options = ConnectOptions::new().address(address.clone()).runtime_dir("/elsewhere");
        assert_eq!(options.find_daemon(), Ok(address));
        assert!(!ConnectOptions::new().name.is_empty());
    }
}
