//! Registration of a descriptor with the runtime.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A type that owns the one descriptor it shows, for as long as it lives.
pub(crate) trait OwnsDescriptor: AsRawFd {}

impl OwnsDescriptor for OwnedFd {}
impl OwnsDescriptor for ipc_core::transport::Listener {}
impl OwnsDescriptor for crate::bus::link::Link {}
impl OwnsDescriptor for crate::bus::timer::Timer {}
impl OwnsDescriptor for crate::shell::DatagramSocket {}
impl<T: OwnsDescriptor> OwnsDescriptor for Rc<T> {}

/// Has the runtime watch `inner` for `interest`.
///
/// A connection is watched for reading alone: a stream socket that is also watched for writing wakes the daemon each
/// time the peer has read something, for nothing.
///
/// # Errors
/// Those of epoll_ctl(2).
pub(crate) fn watch<T: OwnsDescriptor>(inner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // The constructor is deprecated for types that could show a descriptor they do not own; the bound excludes those.
    #[allow(deprecated)]
    AsyncFd::with_interest(inner, interest)
}
