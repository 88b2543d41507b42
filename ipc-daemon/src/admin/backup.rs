//! A copy of what is on the disk, made while the daemon runs.

use std::path::Path;

use ipc_core::identity::{Identity, Peer};
use ipc_core::{Error, ErrorCode};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::store::{StateFile, StoreError};

/// Copies the store to the file at `path`, which must not be there yet.
///
/// # Errors
/// `permission_denied` to everybody but the daemon's own user and root: the daemon writes it with its own rights.
/// `invalid_argument` for a path that is not absolute, `storage_failed` when it cannot be written.
pub(super) async fn make(bus: &Bus, sender: &Peer, path: &str) -> Result<Value, Error> {
    let own = rustix::process::geteuid().as_raw();
    if !matches!(sender.identity, Identity::Local { uid, .. } if uid == 0 || uid == own) {
        let message = format!("only uid {own} and root have the daemon write a file");
        return Err(Error::new(ErrorCode::PermissionDenied, message));
    }
    let place = place_of(path)?;
    let shown = place.to_string();
    let store = bus.store().ok_or_else(|| Error::new(ErrorCode::StorageFailed, "there is no store"))?;
    let records = store.back_up(place).await.map_err(|error| failed(&shown, &error))?;
    Ok(json!({ "path": shown, "records": records }))
}

fn place_of(path: &str) -> Result<StateFile, Error> {
    let path = Path::new(path);
    let name = path.file_name().and_then(|name| name.to_str());
    let (true, Some(directory), Some(name)) = (path.is_absolute(), path.parent(), name) else {
        let message = format!("\"{}\" is no absolute path of a file", path.display());
        return Err(Error::new(ErrorCode::InvalidArgument, message));
    };
    // Anything else is refused and not opened: the bus would wait for the other end of a FIFO.
    let flags = OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened =
        rustix::fs::open(directory, OFlags::RDONLY | flags, Mode::empty()).map_err(std::io::Error::from);
    let handle = opened.map_err(|error| failed(&directory.display(), &error.into()))?;
    Ok(StateFile::new(handle, directory, name))
}

fn failed(place: &dyn core::fmt::Display, error: &StoreError) -> Error {
    Error::new(ErrorCode::StorageFailed, format!("no backup was made at {place}: {error}"))
        .with_hint("name a file that is not there yet, in a directory that the daemon may write to")
}
