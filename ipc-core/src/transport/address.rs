//! Where a daemon can be reached.

use core::fmt;
use core::str::FromStr;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Environment;
use super::runtime_dir;
use super::unix::Trust;
use crate::error::{Error, ErrorCode};

/// Where a daemon can be reached. As text: `unix:PATH`, where PATH is the daemon's stream socket.
///
/// ```
/// use ipc_core::Address;
///
/// let address: Address = "unix:/run/ipc/bus.sock".parse()?;
/// assert_eq!(address.to_string(), "unix:/run/ipc/bus.sock");
/// assert!("carrier-pigeon:coo".parse::<Address>().is_err());
/// # Ok::<(), ipc_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A stream socket in the file system. The path may be longer than a socket address holds.
    Unix(PathBuf),
}

impl Address {
    /// Parses an address.
    ///
    /// # Errors
    /// `invalid_argument`, naming the forms that are understood.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::parse_os(OsStr::new(text))
    }

    /// The same for text of the system, which need not be UTF-8.
    ///
    /// # Errors
    /// As [`parse`](Address::parse).
    pub fn parse_os(text: &OsStr) -> Result<Self, Error> {
        let bytes = text.as_bytes();
        let shown: String = text.to_string_lossy().chars().take(120).flat_map(char::escape_debug).collect();
        let invalid = |rule: &str| {
            Error::new(ErrorCode::InvalidArgument, format!("\"{shown}\" is not an address: {rule}"))
                .with_hint("write unix:PATH, for example unix:/run/ipc/bus.sock")
        };
        let Some(path) = bytes.strip_prefix(b"unix:") else {
            return Err(invalid("only unix:PATH is supported"));
        };
        if path.is_empty() {
            return Err(invalid("the path is empty"));
        }
        if path.contains(&0) {
            return Err(invalid("a path holds no zero byte"));
        }
        Ok(Address::Unix(PathBuf::from(OsStr::from_bytes(path))))
    }

    /// The address of the daemon that the environment leads to: `$IPC_ADDRESS`, else the first runtime directory of the
    /// documented order that is safe and holds a socket. Looks at the file system, connects to nothing.
    ///
    /// # Errors
    /// `unreachable` with every place that was looked at, `unsafe_path` when `$IPC_RUNTIME_DIR` is not safe,
    /// `invalid_argument` when `$IPC_ADDRESS` is not an address.
    pub fn discover() -> Result<Self, Error> {
        runtime_dir::find_socket(&Environment::read(), None, &Trust::default())
    }

    /// The path of the socket.
    pub fn path(&self) -> &Path {
        match self {
            Address::Unix(path) => path,
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives() {
        for text in ["unix:/run/ipc/bus.sock", "unix:relative/bus.sock", "unix:/with:colon"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_schemes_are_refused_with_what_is_supported() {
        for text in ["", "unix:", "unix", "tcp:127.0.0.1:1", "dgram:/x", "/run/ipc/bus.sock", "unix:a\0b"] {
            let error = Address::parse(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{text:?}");
            assert!(error.hint().unwrap().contains("unix:PATH"), "{text:?}");
            assert!(!error.message.contains('\0'));
        }
    }

    #[test]
    fn a_path_need_not_be_utf8() {
        let address = Address::parse_os(OsStr::from_bytes(b"unix:/\xff")).unwrap();
        assert_eq!(address.path().as_os_str().as_bytes(), b"/\xff");
    }
}
