//! Addresses of sockets.

use core::fmt;
use core::net::SocketAddr;
use core::str::FromStr;
use std::ffi::OsStr;
use std::io;
use std::net::ToSocketAddrs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix};

use super::Family;
use crate::transport::{Host, HostPort};

/// The address of a socket, of whatever family.
///
/// As text: `127.0.0.1:7000` and `[::1]:7000` for the network, a path with a slash in it for `AF_UNIX`, `@` and the name for
/// an abstract one. Parsing gives the first two.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SocketAddress {
    /// `AF_UNIX` without a name. Binding to it takes an abstract name of the kernel's choice (autobind, unix(7)).
    Unnamed,
    /// `AF_UNIX`, a path, which may be longer than the 107 bytes that a socket address holds.
    Path(PathBuf),
    /// `AF_UNIX`, a name outside the file system, where everybody may connect: for the return addresses that autobind gives.
    Abstract(Vec<u8>),
    /// `AF_INET` or `AF_INET6`.
    Inet(SocketAddr),
}

impl SocketAddress {
    /// Its family.
    pub fn family(&self) -> Family {
        match self {
            SocketAddress::Unnamed | SocketAddress::Path(_) | SocketAddress::Abstract(_) => Family::Unix,
            SocketAddress::Inet(SocketAddr::V4(_)) => Family::Inet,
            SocketAddress::Inet(SocketAddr::V6(_)) => Family::Inet6,
        }
    }

    /// The addresses of a host, in the order in which the system would have them tried (getaddrinfo(3)). A name may take
    /// seconds to look up.
    ///
    /// # Errors
    /// What the resolver says; `NotFound` when the name has no address.
    pub fn look_up(place: &HostPort) -> io::Result<Vec<SocketAddress>> {
        let found: Vec<_> = match (place.socket_addr(), place.host()) {
            (None, Host::Name(name)) => {
                (name.as_str(), place.port()).to_socket_addrs()?.map(SocketAddress::Inet).collect()
            }
            (address, _) => address.map(SocketAddress::Inet).into_iter().collect(),
        };
        if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
    }

    pub(super) fn from_kernel(address: SocketAddrAny) -> io::Result<Self> {
        match address.address_family() {
            AddressFamily::UNIX => {
                let address = SocketAddrUnix::try_from(address)?;
                Ok(match (address.path_bytes(), address.abstract_name()) {
                    // Whoever binds to 108 bytes gets no zero behind them; whoever binds to fewer may have sent more zeros.
                    (Some(path), _) => SocketAddress::Path(PathBuf::from(OsStr::from_bytes(
                        path.split(|byte| *byte == 0).next().unwrap_or_default(),
                    ))),
                    (None, Some(name)) if !name.is_empty() => SocketAddress::Abstract(name.to_owned()),
                    (None, _) => SocketAddress::Unnamed,
                })
            }
            AddressFamily::INET | AddressFamily::INET6 => Ok(SocketAddress::Inet(address.try_into()?)),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> Self {
        SocketAddress::Inet(address)
    }
}

impl From<&Path> for SocketAddress {
    fn from(path: &Path) -> Self {
        SocketAddress::Path(path.to_owned())
    }
}

impl From<PathBuf> for SocketAddress {
    fn from(path: PathBuf) -> Self {
        SocketAddress::Path(path)
    }
}

impl FromStr for SocketAddress {
    type Err = crate::error::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('/') && !text.contains('\0') {
            return Ok(SocketAddress::Path(PathBuf::from(text)));
        }
        text.parse().map(SocketAddress::Inet).map_err(|_| {
            let message = format!("\"{}\" is no address of a socket", text.escape_debug());
            crate::error::Error::new(crate::error::ErrorCode::InvalidArgument, message).with_hint(
                "write 127.0.0.1:7000, [::1]:7000 or a path with a slash in it, ./here for example",
            )
        })
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketAddress::Unnamed => f.write_str("unnamed"),
            SocketAddress::Path(path) => path.display().fmt(f),
            SocketAddress::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
            SocketAddress::Inet(address) => address.fmt(f),
        }
    }
}
