//! The part of the configuration that says who reaches the socket at all, before any rule is asked.

use ipc_core::transport::listener::SocketAccess;
use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::broker::Directory as _;
use crate::directory::System;

/// What a socket can be opened for: nobody executes one.
const MODE_BITS: u32 = 0o666;
/// Bits that let others than the owner connect.
const OPEN_BITS: u32 = 0o022;

/// Permissions of the sockets of the daemon, and of the directory it makes for them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Socket {
    /// Permission bits, in octal; to connect takes the write bit.
    #[serde(deserialize_with = "octal", serialize_with = "as_octal")]
    mode: u32,
    /// The group of the socket; the process's own if none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<GroupName>,
}

/// A group of this machine, by its name.
#[derive(Clone, Debug, PartialEq)]
struct GroupName {
    name: String,
    gid: u32,
}

impl Default for Socket {
    fn default() -> Self {
        Self { mode: SocketAccess::default().mode, group: None }
    }
}

impl Socket {
    /// The permissions of a socket.
    pub(crate) fn access(&self) -> SocketAccess {
        SocketAccess { mode: self.mode, group: self.group.as_ref().map(|group| group.gid) }
    }

    /// The permissions of a directory that is made for it: whoever may connect must get there.
    pub(crate) fn directory_mode(&self) -> u32 {
        if self.mode & OPEN_BITS == 0 { 0o700 } else { 0o755 }
    }
}

impl<'de> Deserialize<'de> for GroupName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match System.gid(&name) {
            Some(gid) => Ok(Self { name, gid }),
            None => Err(D::Error::custom(format!("there is no group \"{}\"", name.escape_debug()))),
        }
    }
}

impl Serialize for GroupName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

fn octal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = String::deserialize(deserializer)?;
    let mode =
        u32::from_str_radix(&text, 8).ok().filter(|mode| mode & !MODE_BITS == 0 && mode & 0o600 == 0o600);
    mode.ok_or_else(|| {
        let message = format!(
            "\"{}\" is no mode of a socket: write \"0600\", \"0660\" or \"0666\"",
            text.escape_debug()
        );
        D::Error::custom(message)
    })
}

fn as_octal<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{mode:04o}"))
}
