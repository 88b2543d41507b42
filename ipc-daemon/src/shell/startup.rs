//! What the daemon takes before it serves: its limits, its directories, its socket.

use std::fs::File;
use std::io::Read;

use ipc_core::id::Epoch;
use ipc_core::limits::Limits;
use ipc_core::transport::listener::{LockFile, SocketFile, bind_listener, lock_file};
use ipc_core::transport::{
    Environment, Listener, RUNTIME_LOCK_NAME, STATE_LOCK_NAME, STREAM_SOCKET_NAME, process, runtime_dir,
};

use crate::config::Config;
use crate::failure::Failure;

/// Of the descriptors this process may open, the percentage that connections may take.
const CONNECTIONS_SHARE_PERCENT: u64 = 80;

/// What the daemon holds while it runs.
pub(crate) struct Holdings {
    /// The listening sockets, bound here or handed over.
    pub(crate) listeners: Vec<Listener>,
    /// The name of the socket that was bound here.
    socket_file: Option<SocketFile>,
    /// This life of the daemon.
    pub(crate) epoch: Epoch,
    /// Held until the process ends.
    _locks: [LockFile; 2],
}

impl Holdings {
    /// Takes the directories by their locks, then the sockets: handed over by a service manager, or else bound.
    ///
    /// # Errors
    /// 75 when another daemon holds a directory: nothing was touched then. 74, 77 or 78 by what is wrong.
    pub(crate) fn take(config: &Config) -> Result<Self, Failure> {
        let environment = Environment::read();
        process::check_user(&environment)?;
        // First of all, while no other descriptor can have taken their numbers.
        let handed_over = process::inherited_listeners(&environment)?;
        let runtime = runtime_dir::open_runtime_dir(
            &environment,
            config.runtime_dir.as_deref(),
            config.socket.directory_mode(),
        )?;
        let runtime_lock = lock_file(&runtime, RUNTIME_LOCK_NAME)?;
        let state = runtime_dir::open_state_dir(&environment, config.state_dir.as_deref())?;
        let state_lock = lock_file(&state, STATE_LOCK_NAME)?;
        let (listeners, socket_file) = if handed_over.is_empty() {
            let (listener, file) = bind_listener(&runtime, STREAM_SOCKET_NAME, config.socket.access())?;
            (vec![listener], Some(file))
        } else {
            (handed_over, None)
        };
        let epoch = draw_epoch()?;
        Ok(Self { listeners, socket_file, epoch, _locks: [runtime_lock, state_lock] })
    }

    /// Removes the name of the socket, so that nobody finds it any more. Says whether the listening sockets are the
    /// daemon's own; those that were handed over keep their names.
    pub(crate) fn unpublish(&mut self) -> bool {
        match self.socket_file.take().map(SocketFile::remove) {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::warn!("{error}");
                true
            }
            None => false,
        }
    }
}

/// Draws the number of this life at random: a client must see a restart whatever the clock says.
fn draw_epoch() -> Result<Epoch, Failure> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Failure::io("draw a random number from /dev/urandom", error))?;
    Ok(Epoch(u64::from_le_bytes(bytes)))
}

/// Raises the limit of open files and cuts the number of connections to what that allows.
pub(crate) fn fit_to_system(limits: &mut Limits) -> Result<(), Failure> {
    let open_files = process::raise_open_files_limit()?;
    let possible =
        u32::try_from(open_files.saturating_mul(CONNECTIONS_SHARE_PERCENT) / 100).unwrap_or(u32::MAX).max(1);
    limits.connections_max = limits.connections_max.min(possible);
    limits.connections_per_uid_max = limits.connections_per_uid_max.min(possible);
    Ok(())
}
