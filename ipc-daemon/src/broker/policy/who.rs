//! Whom a rule is about.

use core::fmt;

use ipc_core::identity::Identity;
use ipc_core::name::ServiceName;
use ipc_core::{Error, ErrorCode};

const FORM: &str =
    "write anyone, user:NAME, uid:N, group:NAME, gid:N, service:NAME, remote or remote:PRINCIPAL";

/// The users and groups of this machine, by name. Rules are read with it once, so a policy asks nobody.
pub trait Directory {
    /// The number of a user.
    fn uid(&self, user: &str) -> Option<u32>;
    /// The number of a group.
    fn gid(&self, group: &str) -> Option<u32>;
    /// The number that the kernel shows for every user, and every group, that has none in this user namespace.
    fn overflow(&self) -> u32;
}

/// Somebody whose rights are in question.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Who it is, verified.
    pub identity: &'a Identity,
    /// Supplementary groups, of a process of this machine.
    pub groups: &'a [u32],
    /// Names that it owns, or serves as one of a group.
    pub services: &'a [ServiceName],
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Every process of this machine and every network peer that has proved who it is.
    Anyone,
    Uid(u32),
    Gid(u32),
    /// Whoever owns that name, while it does.
    Service(ServiceName),
    /// Every network peer that has proved who it is.
    AnyRemote,
    Remote(String),
}

impl Who {
    /// Reads it. `is_granted` says whether the rule gives something: nothing is given to whoever happens to have the
    /// number that stands for everybody unknown.
    pub(super) fn parse(text: &str, directory: &dyn Directory, is_granted: bool) -> Result<Self, Error> {
        let (kind, name) = match text.split_once(':') {
            Some((kind, name)) => (kind, Some(name)),
            None => (text, None),
        };
        let who = match (kind, name) {
            ("anyone", None) => Who::Anyone,
            ("remote", None) => Who::AnyRemote,
            ("remote", Some(principal)) if !principal.is_empty() && principal != "anonymous" => {
                Who::Remote(principal.to_owned())
            }
            ("remote", Some("anonymous")) => {
                let error = wrong(text, "what anonymous network peers may do is listed elsewhere");
                return Err(error.with_hint("list it in [remote] allow"));
            }
            ("service", Some(name)) => Who::Service(ServiceName::parse(name)?),
            ("uid", Some(number)) => Who::Uid(parse_number(text, number)?),
            ("gid", Some(number)) => Who::Gid(parse_number(text, number)?),
            ("user", Some(name)) => {
                Who::Uid(directory.uid(name).ok_or_else(|| wrong(text, "there is no such user"))?)
            }
            ("group", Some(name)) => {
                Who::Gid(directory.gid(name).ok_or_else(|| wrong(text, "there is no such group"))?)
            }
            _ => return Err(wrong(text, "it is nobody")),
        };
        match who {
            Who::Uid(number) | Who::Gid(number) if is_granted && number == directory.overflow() => {
                let why = "the kernel shows this number for everybody it has no name for here";
                Err(wrong(text, why).with_hint("give the right to a user of its own"))
            }
            who => Ok(who),
        }
    }

    pub(super) fn is(&self, subject: &Subject<'_>) -> bool {
        match (self, subject.identity) {
            (Who::Anyone, _) | (Who::AnyRemote, Identity::Remote { .. }) => true,
            (Who::Uid(number), Identity::Local { uid, .. }) => number == uid,
            (Who::Gid(number), Identity::Local { gid, .. }) => {
                number == gid || subject.groups.contains(number)
            }
            (Who::Service(name), _) => subject.services.contains(name),
            (Who::Remote(name), Identity::Remote { principal, .. }) => name == principal,
            (Who::AnyRemote, Identity::Local { .. })
            | (Who::Uid(_) | Who::Gid(_), Identity::Remote { .. })
            | (Who::Remote(_), Identity::Local { .. }) => false,
        }
    }

    /// Whether it can be said of somebody before anything has been asked for.
    pub(super) fn is_lasting(&self) -> bool {
        !matches!(self, Who::Service(_))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Anyone => f.write_str("anyone"),
            Who::Uid(number) => write!(f, "uid:{number}"),
            Who::Gid(number) => write!(f, "gid:{number}"),
            Who::Service(name) => write!(f, "service:{name}"),
            Who::AnyRemote => f.write_str("remote"),
            Who::Remote(principal) => write!(f, "remote:{principal}"),
        }
    }
}

fn parse_number(text: &str, number: &str) -> Result<u32, Error> {
    // The last number stands for no user in system calls: see chown(2).
    let parsed = number.parse().ok().filter(|number| *number != u32::MAX);
    parsed.ok_or_else(|| wrong(text, "it is not a number of a user or group"))
}

fn wrong(text: &str, why: &str) -> Error {
    let shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    Error::new(ErrorCode::InvalidArgument, format!("\"{shown}\" names nobody: {why}")).with_hint(FORM)
}

/// For tests: a machine with the users `alice`, 1000, and `nobody`, and the group `audio`, 29.
#[cfg(test)]
pub(super) struct FewUsers;

#[cfg(test)]
impl Directory for FewUsers {
    fn uid(&self, user: &str) -> Option<u32> {
        [("alice", 1000), ("nobody", 65_534)].into_iter().find(|(name, _)| *name == user).map(|(_, uid)| uid)
    }

    fn gid(&self, group: &str) -> Option<u32> {
        (group == "audio").then_some(29)
    }

    fn overflow(&self) -> u32 {
        65_534
    }
}
