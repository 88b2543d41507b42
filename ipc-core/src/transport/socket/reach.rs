//! Addresses as the kernel takes them, also for paths that do not fit into one.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{SocketAddrAny, SocketAddrUnix};

use super::SocketAddress;
use crate::transport::SOCKET_PATH_MAX_BYTES;

/// An address for the kernel, and what has to stay open while it is used.
pub(in crate::transport) struct Reach {
    address: SocketAddrAny,
    /// The inode or directory that a path of /proc leads through.
    through: Option<OwnedFd>,
}

impl Reach {
    /// To connect or send to `address`.
    pub(in crate::transport) fn existing(address: &SocketAddress) -> Result<Self, Errno> {
        Self::of(address, |path| {
            let inode = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let short = format!("/proc/self/fd/{}", inode.as_raw_fd());
            Ok((SocketAddrUnix::new(short)?, inode))
        })
    }

    /// To bind to `address`.
    pub(super) fn new_name(address: &SocketAddress) -> Result<Self, Errno> {
        Self::of(address, |path| {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(Errno::INVAL);
            };
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = rustix::fs::openat(CWD, parent, flags, Mode::empty())?;
            let mut short = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
            short.extend_from_slice(name.as_bytes());
            Ok((unix_path(OsStr::from_bytes(&short).as_ref())?, directory))
        })
    }

    fn of(
        address: &SocketAddress,
        long: impl FnOnce(&Path) -> Result<(SocketAddrUnix, OwnedFd), Errno>,
    ) -> Result<Self, Errno> {
        let mut through = None;
        let address = match address {
            SocketAddress::Inet(address) => (*address).into(),
            SocketAddress::Unnamed => SocketAddrUnix::new_unnamed().as_any(),
            SocketAddress::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?.as_any(),
            SocketAddress::Path(path) if is_long(path) => {
                let (address, held) = long(path)?;
                through = Some(held);
                address.as_any()
            }
            SocketAddress::Path(path) => unix_path(path)?.as_any(),
        };
        Ok(Self { address, through })
    }

    pub(in crate::transport) fn address(&self) -> &SocketAddrAny {
        &self.address
    }

    /// Whether the kernel knows the socket by another name than its path.
    pub(super) fn is_indirect(&self) -> bool {
        self.through.is_some()
    }
}

fn is_long(path: &Path) -> bool {
    path.as_os_str().len() > SOCKET_PATH_MAX_BYTES
}

/// A path of at most 107 bytes. An empty one would be an unnamed address, which is something else.
fn unix_path(path: &Path) -> Result<SocketAddrUnix, Errno> {
    match path.as_os_str().len() {
        0 => Err(Errno::NOENT),
        length if length > SOCKET_PATH_MAX_BYTES => Err(Errno::NAMETOOLONG),
        _ => SocketAddrUnix::new(path),
    }
}
