//! What the daemon takes before it serves: its limits, its directories, its socket.

use std::os::fd::AsFd;

use ipc_core::id::Epoch;
use ipc_core::limits::Limits;
use ipc_core::transport::listener::{
    LockFile, SocketAccess, SocketFile, bind_datagram, bind_listener, lock_file,
};
use ipc_core::transport::process::Inherited;
use ipc_core::transport::{
    DATAGRAM_SOCKET_NAME, Environment, RUNTIME_LOCK_NAME, RuntimeDir, STATE_LOCK_NAME, STREAM_SOCKET_NAME,
    process, runtime_dir,
};

use crate::config::Config;
use crate::failure::Failure;
use crate::random;
use crate::store::{StateFile, Store, isolated};

/// Of the descriptors this process may open, the percentage that connections may take.
const CONNECTIONS_SHARE_PERCENT: u64 = 80;
/// The percentage that watches over processes may take.
const WATCHES_SHARE_PERCENT: u64 = 10;
/// Name of the store in the state directory.
const STORE_NAME: &str = "store.redb";

/// What the daemon holds while it runs.
pub(crate) struct Holdings {
    /// The local sockets, bound here or handed over.
    pub(crate) sockets: Inherited,
    /// The names of those that were bound here.
    socket_files: Vec<SocketFile>,
    /// The stream sockets are among those.
    streams_are_ours: bool,
    /// This life of the daemon.
    pub(crate) epoch: Epoch,
    /// The key of the proofs that answers reach a sender of datagrams.
    pub(crate) cookie_key: [u64; 2],
    /// What outlives the daemon, until the bus has it.
    pub(crate) store: Option<Store>,
    /// Held until the process ends.
    _locks: [LockFile; 2],
}

impl Holdings {
    /// Takes the directories by their locks, then the sockets: handed over by a service manager, or else bound, each kind
    /// for itself.
    ///
    /// # Errors
    /// 75 when another daemon holds a directory: nothing was touched then. 74, 77 or 78 by what is wrong.
    pub(crate) fn take(config: &Config) -> Result<Self, Failure> {
        let environment = Environment::read();
        process::check_user(&environment)?;
        // First of all, while no other descriptor can have taken their numbers.
        let mut sockets = process::inherited_sockets(&environment)?;
        let mode = config.socket.directory_mode();
        let runtime = runtime_dir::open_runtime_dir(&environment, config.runtime_dir.as_deref(), mode)?;
        let runtime_lock = lock_file(&runtime, RUNTIME_LOCK_NAME)?;
        let state = State::take(&environment, config)?;
        let place = state.store()?;
        let shown = place.to_string();
        let store = isolated(|| Store::open(Box::new(place))).map_err(|error| error.at(&shown))?;
        let (epoch, cookie_key) = (Epoch(draw()?), [draw()?, draw()?]);
        let mut socket_files = Vec::new();
        let streams_are_ours = sockets.streams.is_empty();
        if let Err(failure) = bind(&runtime, config.socket.access(), &mut sockets, &mut socket_files) {
            remove(socket_files);
            return Err(failure);
        }
        let (locks, store) = ([runtime_lock, state.lock], Some(store));
        Ok(Self { sockets, socket_files, streams_are_ours, epoch, cookie_key, store, _locks: locks })
    }

    /// Removes the names of the sockets, so that nobody finds them any more. Says whether the stream sockets are the
    /// daemon's own; those that were handed over keep their names.
    pub(crate) fn unpublish(&mut self) -> bool {
        remove(std::mem::take(&mut self.socket_files));
        self.streams_are_ours
    }
}

/// A state directory that nobody else uses.
pub(crate) struct State {
    directory: RuntimeDir,
    /// Held until the process ends.
    lock: LockFile,
}

impl State {
    /// Takes the state directory by its lock.
    ///
    /// # Errors
    /// 75 when another daemon holds it. 74 or 77 by what is wrong.
    pub(crate) fn take(environment: &Environment, config: &Config) -> Result<Self, Failure> {
        let directory = runtime_dir::open_state_dir(environment, config.state_dir.as_deref())?;
        let lock = lock_file(&directory, STATE_LOCK_NAME)?;
        Ok(Self { directory, lock })
    }

    /// The place of its store.
    ///
    /// # Errors
    /// 74 without another descriptor.
    pub(crate) fn store(&self) -> Result<StateFile, Failure> {
        let path = self.directory.path();
        let handle = self.directory.as_fd().try_clone_to_owned();
        let failed = |error| Failure::io(format_args!("use the directory {}", path.display()), error);
        Ok(StateFile::new(handle.map_err(failed)?, path, STORE_NAME))
    }
}

/// Binds the local sockets that were not handed over. The stream socket comes last: who finds it finds everything.
fn bind(
    runtime: &RuntimeDir,
    access: SocketAccess,
    sockets: &mut Inherited,
    files: &mut Vec<SocketFile>,
) -> Result<(), Failure> {
    if sockets.datagrams.is_empty() {
        let (datagram, file) = bind_datagram(runtime, DATAGRAM_SOCKET_NAME, access)?;
        files.push(file);
        sockets.datagrams.push(datagram);
    }
    if sockets.streams.is_empty() {
        let (listener, file) = bind_listener(runtime, STREAM_SOCKET_NAME, access)?;
        files.push(file);
        sockets.streams.push(listener);
    }
    Ok(())
}

fn remove(files: Vec<SocketFile>) {
    for file in files {
        if let Err(error) = file.remove() {
            tracing::warn!("{error}");
        }
    }
}

/// Draws a number at random. For that of this life: a client must see a restart whatever the clock says.
fn draw() -> Result<u64, Failure> {
    random::draw().map_err(|error| Failure::io("draw a random number", error))
}

/// Raises the limit of open files and cuts the numbers of connections and of watches over processes to what that allows.
pub(crate) fn fit_to_system(limits: &mut Limits) -> Result<(), Failure> {
    let open_files = process::raise_open_files_limit()?;
    let [connections, watches] = [CONNECTIONS_SHARE_PERCENT, WATCHES_SHARE_PERCENT]
        .map(|percent| u32::try_from(open_files.saturating_mul(percent) / 100).unwrap_or(u32::MAX).max(1));
    limits.connections_max = limits.connections_max.min(connections);
    limits.connections_per_uid_max = limits.connections_per_uid_max.min(connections);
    limits.process_watches_max = limits.process_watches_max.min(watches);
    Ok(())
}
