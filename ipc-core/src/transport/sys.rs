//! The only unsafe code of this library: what the safe wrappers do not offer.
//!
//! Each function here is safe to call with any argument; what makes it so is written at its unsafe block.

// Denied everywhere else: this module exists to hold it.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::libc;
use rustix::io::{Errno, FdFlags};
use rustix::net::{RecvFlags, recv};

/// `SO_PASSRIGHTS` of Linux 6.16, which no wrapper knows yet (include/uapi/asm-generic/socket.h).
const SO_PASSRIGHTS: libc::c_int = 83;
/// Groups that there is room for before the kernel has said how many there are.
const GROUPS_USUAL: usize = 32;

/// Makes the kernel refuse descriptors that somebody sends to this socket; the sender gets `EPERM`. A listener passes
/// the setting on to what it accepts.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 6.16.
pub(super) fn refuse_descriptors(socket: impl AsFd) -> Result<(), Errno> {
    let off: libc::c_int = 0;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the descriptor is borrowed and so open; the pointer is to a live c_int and the length is its size; the
    // kernel only reads from it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const off).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Longest value that a socket option is set to, in bytes.
const OPTION_SET_MAX_BYTES: usize = 32;
/// Longest value that a socket option is asked for, in bytes.
const OPTION_GET_MAX_BYTES: usize = 4096;

/// What a socket option is set to, as bytes, at most `max_bytes` and at most 4096 of them.
///
/// # Errors
/// Those of getsockopt(2).
pub(super) fn socket_option(
    socket: impl AsFd,
    level: libc::c_int,
    number: libc::c_int,
    max_bytes: usize,
) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0_u8; max_bytes.min(OPTION_GET_MAX_BYTES)];
    let mut length = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the descriptor is borrowed and so open; the pointer is to `length` live bytes, of which the kernel writes at
    // most that many. A few options read the buffer first, and TCP_ZEROCOPY_RECEIVE takes an address from it to write to:
    // it holds zeros only, and address zero is none.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            number,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(last_errno());
    }
    value.truncate(usize::try_from(length).map_err(|_| Errno::INVAL)?);
    Ok(value)
}

/// Sets a socket option to at most 32 bytes.
///
/// # Errors
/// Those of setsockopt(2); `EINVAL` for more bytes.
pub(super) fn set_socket_option(
    socket: impl AsFd,
    level: libc::c_int,
    number: libc::c_int,
    value: &[u8],
) -> Result<(), Errno> {
    if value.len() > OPTION_SET_MAX_BYTES {
        return Err(Errno::INVAL);
    }
    let length = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the descriptor is borrowed and so open; the pointer is to `length` live bytes, which the kernel only reads.
    // Structures with an address that the kernel writes to (the tables of packet filters) are longer than the maximum, and
    // their calls check the length first; addresses in shorter ones (a socket filter) are read by the kernel, which
    // answers EFAULT when nothing is there.
    let result =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, number, value.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Bytes that were sent over a socket and have not gone yet (`SIOCOUTQ`).
///
/// # Errors
/// Those of ioctl(2): `EINVAL` for a listener.
pub(super) fn send_queue(socket: impl AsFd) -> Result<u64, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed and so open; this request writes one c_int to the pointer, which is to a live one.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { Ok(u64::try_from(bytes).unwrap_or(0)) } else { Err(last_errno()) }
}

/// The supplementary groups of the process that opened the other end of a connected socket, as the kernel noted them
/// then (`SO_PEERGROUPS`, Linux 4.13).
///
/// # Errors
/// Those of getsockopt(2); `ENODATA` when the kernel noted nobody.
pub(super) fn peer_groups(socket: impl AsFd) -> Result<Vec<u32>, Errno> {
    let mut groups: Vec<libc::gid_t> = vec![0; GROUPS_USUAL];
    loop {
        let mut length = libc::socklen_t::try_from(size_of_val(&groups[..])).map_err(|_| Errno::INVAL)?;
        // SAFETY: the descriptor is borrowed and so open; the pointer is to initialised memory of `length` bytes, which the
        // kernel does not write past; the length is a live socklen_t.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = usize::try_from(length).map_err(|_| Errno::INVAL)? / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        match last_errno() {
            // There are more; the kernel has said how many. They do not change any more.
            Errno::RANGE if count > groups.len() => groups.resize(count, 0),
            errno => return Err(errno),
        }
    }
}

/// Takes a descriptor that came with the process through exec, and marks it close-on-exec.
///
/// The standard streams stay where they are and are duplicated instead.
///
/// # Errors
/// `EBADF` when nothing is open under that number, or when it did not come through exec.
pub(super) fn take_inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    // Looking at the flag and setting it must not be interleaved with another call for the same descriptor.
    static TAKING: Mutex<()> = Mutex::new(());
    let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the borrow lives for this function only, and the first call made with it answers EBADF when it is not
    // open. Nobody can close it meanwhile: if it is not close-on-exec no code of this process owns it, as argued below,
    // and the standard streams are never closed.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(borrowed)?;
    if number <= 2 {
        return rustix::io::fcntl_dupfd_cloexec(borrowed, 3);
    }
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(Errno::BADF);
    }
    rustix::io::fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and it is owned by nobody: whatever std, tokio and this library open is close-on-exec from
    // the first instant, so a descriptor without that flag was open when the program began. It is taken at most once,
    // because the flag is set now and a second call is refused above.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Reads once from a socket, behind the end of `buffer` and at most `room` bytes, which it makes room for. Says how many.
///
/// The safe wrappers fill a vector to its capacity or want zeros written first, which for large payloads costs as much as
/// reading them.
///
/// # Errors
/// Those of recv(2).
pub(super) fn receive_onto(
    socket: impl AsFd,
    buffer: &mut Vec<u8>,
    room: usize,
    flags: RecvFlags,
) -> Result<usize, Errno> {
    buffer.reserve(room);
    let length = buffer.len();
    let Some(spare) = buffer.spare_capacity_mut().get_mut(..room) else { return Err(Errno::INVAL) };
    let ((filled, _), _) = recv(socket, spare, flags)?;
    let count = filled.len();
    // SAFETY: `filled` is the front of the spare capacity, and all of its bytes were written by the kernel.
    unsafe { buffer.set_len(length + count) };
    Ok(count)
}

/// Most descriptors that the kernel lets through at a time (`SCM_MAX_FD`).
const DESCRIPTORS_MAX: usize = 253;
/// Room for those and for credentials.
// SAFETY: both only compute.
const CONTROL_BYTES: usize =
    unsafe { libc::CMSG_SPACE((DESCRIPTORS_MAX * size_of::<RawFd>()) as u32) as usize + CREDENTIALS_BYTES };
/// Room for credentials alone, which the kernel writes before descriptors.
// SAFETY: it only computes.
const CREDENTIALS_BYTES: usize = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) as usize };

/// What came with a datagram beside its bytes.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Bytes that are in the buffer.
    pub(super) bytes: usize,
    /// It was longer than the buffer.
    pub(super) is_cut: bool,
    /// Process, user and group of the sender, in the words of the kernel.
    pub(super) credentials: Option<(i32, u32, u32)>,
    /// What was sent along.
    pub(super) descriptors: Vec<OwnedFd>,
    /// Descriptors were sent that could not be handed over.
    pub(super) is_control_cut: bool,
    /// The sender's address behind its family; empty when it has none.
    pub(super) name: Vec<u8>,
}

/// Receives one datagram from an `AF_UNIX` socket, without waiting.
///
/// The safe wrappers either take a process id of 0, which is the kernel's word for nobody, for impossible, or do not hand
/// out descriptors whose number was cut.
///
/// # Errors
/// Those of recvmsg(2).
pub(super) fn receive_verified(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Received, Errno> {
    receive_some(socket, buffer, 0, CONTROL_BYTES)
}

/// The same of the next datagram, which stays where it is with its descriptors: of those it only shows that the control data
/// was cut.
///
/// # Errors
/// Those of recvmsg(2).
pub(super) fn peek_verified(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Received, Errno> {
    receive_some(socket, buffer, libc::MSG_PEEK, CREDENTIALS_BYTES)
}

fn receive_some(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: libc::c_int,
    control_bytes: usize,
) -> Result<Received, Errno> {
    #[repr(C, align(8))]
    struct Control([u8; CONTROL_BYTES]);
    let mut control = Control([0; CONTROL_BYTES]);
    // SAFETY: all zeros is a value of both: they hold numbers, arrays of numbers and pointers.
    let (mut address, mut message): (libc::sockaddr_un, libc::msghdr) =
        unsafe { (core::mem::zeroed(), core::mem::zeroed()) };
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control.0).cast();
    message.msg_controllen = control_bytes.min(CONTROL_BYTES) as _;
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let bytes = loop {
        // SAFETY: the descriptor is borrowed and so open; every pointer in the message is to a live local or to the buffer,
        // each with its length beside it, and nothing else refers to them while the kernel writes.
        let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
        match usize::try_from(count) {
            Ok(bytes) => break bytes,
            Err(_) => match last_errno() {
                Errno::INTR => {}
                errno => return Err(errno),
            },
        }
    };
    let name_bytes = (message.msg_namelen as usize).saturating_sub(size_of::<libc::sa_family_t>());
    let mut received = Received {
        bytes,
        is_cut: message.msg_flags & libc::MSG_TRUNC != 0,
        is_control_cut: message.msg_flags & libc::MSG_CTRUNC != 0,
        name: address.sun_path.iter().take(name_bytes).map(|byte| *byte as u8).collect(),
        ..Received::default()
    };
    // SAFETY: the message is as the kernel has left it, so its parts lie within the control buffer, which is aligned for
    // them; each is read only if the length that the kernel wrote covers it. The descriptors are new ones that the kernel
    // has made for this process, so nobody owns them yet, and each is taken once.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(&raw const message);
        while let Some(head) = next.as_ref() {
            let content = libc::CMSG_DATA(next);
            // The C libraries of Linux differ in the type of this length.
            #[allow(clippy::unnecessary_cast)]
            let length = (head.cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_RIGHTS {
                for at in 0..length / size_of::<RawFd>() {
                    let number = content.cast::<RawFd>().add(at).read_unaligned();
                    received.descriptors.push(OwnedFd::from_raw_fd(number));
                }
            } else if head.cmsg_level == libc::SOL_SOCKET
                && head.cmsg_type == libc::SCM_CREDENTIALS
                && length >= size_of::<libc::ucred>()
            {
                let credentials = content.cast::<libc::ucred>().read_unaligned();
                received.credentials = Some((credentials.pid, credentials.uid, credentials.gid));
            }
            next = libc::CMSG_NXTHDR(&raw const message, next);
        }
    }
    Ok(received)
}

fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_this_process_opened_cannot_be_taken() {
        let (ours, _other) = UnixStream::pair().unwrap();
        assert_eq!(take_inherited(ours.as_raw_fd()).unwrap_err(), Errno::BADF);
        assert_eq!(take_inherited(-1).unwrap_err(), Errno::BADF);
        assert_eq!(take_inherited(RawFd::MAX).unwrap_err(), Errno::BADF);
    }

    #[test]
    fn the_groups_of_a_peer_are_those_of_its_process() {
        let (ours, _other) = UnixStream::pair().unwrap();
        let mut groups = peer_groups(&ours).unwrap();
        let mut own: Vec<u32> =
            rustix::process::getgroups().unwrap().into_iter().map(|gid| gid.as_raw()).collect();
        groups.sort_unstable();
        own.sort_unstable();
        assert_eq!(groups, own);
    }

    #[test]
    fn an_inherited_descriptor_is_taken_once() {
        let (ours, _other) = UnixStream::pair().unwrap();
        // As if it had come through exec: open, not close-on-exec, owned by nobody.
        let number = rustix::io::fcntl_dupfd_cloexec(&ours, 500).unwrap();
        rustix::io::fcntl_setfd(&number, FdFlags::empty()).unwrap();
        let number = std::os::fd::IntoRawFd::into_raw_fd(number);
        let taken = take_inherited(number).unwrap();
        assert!(rustix::io::fcntl_getfd(&taken).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(take_inherited(number).unwrap_err(), Errno::BADF);
    }

    #[test]
    fn standard_streams_are_duplicated() {
        let taken = take_inherited(2).unwrap();
        assert!(taken.as_raw_fd() > 2);
    }

    #[test]
    fn no_more_is_received_than_asked_for() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"abcdef").unwrap();
        let mut buffer = Vec::with_capacity(100);
        buffer.push(b'>');
        assert_eq!(receive_onto(&ours, &mut buffer, 4, RecvFlags::empty()), Ok(4));
        assert_eq!(receive_onto(&ours, &mut buffer, 200, RecvFlags::empty()), Ok(2));
        assert_eq!(buffer, b">abcdef");
        assert_eq!(receive_onto(&ours, &mut buffer, 4, RecvFlags::DONTWAIT), Err(Errno::AGAIN));
        drop(theirs);
        assert_eq!(receive_onto(&ours, &mut buffer, 4, RecvFlags::empty()), Ok(0));
        assert_eq!(buffer, b">abcdef");
    }

    #[test]
    fn refusing_descriptors_works_or_is_unknown() {
        let (ours, _other) = UnixStream::pair().unwrap();
        match refuse_descriptors(&ours) {
            Ok(()) | Err(Errno::NOPROTOOPT) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
