//! Limits that somebody has instead of the daemon's: `WHO LIMIT=N [LIMIT=N]...`.

use core::fmt;

use ipc_core::limits::Limits;
use ipc_core::{Error, ErrorCode};

use super::who::{Directory, Who};

/// Limits that are those of a uid, and can be set for one.
const PER_UID: &str = "_per_uid_";

/// Limits that somebody has instead of the daemon's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    who: Who,
    limits: Vec<(String, u64)>,
}

impl Allowance {
    /// Reads `WHO LIMIT=N [LIMIT=N]...`. WHO is a user, `anyone`, or a principal: charges are made to those, not to
    /// groups.
    ///
    /// # Errors
    /// `invalid_argument`.
    pub fn parse(text: &str, directory: &dyn Directory) -> Result<Self, Error> {
        let mut words = text.split_ascii_whitespace();
        let who = Who::parse(words.next().unwrap_or_default(), directory, false)?;
        if matches!(who, Who::Gid(_) | Who::Service(_)) {
            return Err(wrong("charges are made to users and principals"));
        }
        let mut limits = Vec::new();
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(|| wrong("a limit has no value"))?;
            let value = value.parse().map_err(|_| wrong("a limit is not a number"))?;
            if !name.contains(PER_UID) {
                return Err(wrong("only limits of a uid can be set for one"));
            }
            Limits::default().set(name, value).map_err(|message| wrong(&message))?;
            limits.push((name.to_owned(), value));
        }
        if limits.is_empty() {
            return Err(wrong("there is no limit"));
        }
        Ok(Self { who, limits })
    }

    /// Whether it is about that user or principal.
    pub(super) fn is_about(&self, uid: Option<u32>, principal: Option<&str>) -> bool {
        match &self.who {
            Who::Anyone => true,
            Who::Uid(number) => uid == Some(*number),
            Who::AnyRemote => principal.is_some(),
            Who::Remote(name) => principal == Some(name.as_str()),
            Who::Gid(_) | Who::Service(_) => false,
        }
    }

    pub(super) fn apply(&self, limits: &mut Limits) {
        for (name, value) in &self.limits {
            // It was within its range when it was read.
            let _ = limits.set(name, *value);
        }
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.who)?;
        self.limits.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

fn wrong(why: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("that is no quota: {why}")).with_hint(
        "write who and limits, as in \"user:alice connections_per_uid_max=64 names_per_uid_max=8\"",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::policy::who::FewUsers;

    #[test]
    fn an_allowance_sets_limits_for_whom_it_is_about() {
        let text = "uid:1000 names_per_uid_max=3 connections_per_uid_max=4";
        let allowance = Allowance::parse(text, &FewUsers).unwrap();
        assert_eq!(allowance.to_string(), text);
        assert_eq!(Allowance::parse(&text.replace("uid:1000", "user:alice"), &FewUsers).unwrap(), allowance);
        assert!(allowance.is_about(Some(1000), None) && !allowance.is_about(Some(1), None));
        assert!(!allowance.is_about(None, Some("1000")));
        let mut limits = Limits::default();
        allowance.apply(&mut limits);
        assert_eq!((limits.names_per_uid_max, limits.connections_per_uid_max), (3, 4));
    }

    #[test]
    fn what_is_no_allowance_is_refused() {
        for text in [
            "",
            "uid:1",
            "uid:1 names_per_uid_max",
            "uid:1 names_per_uid_max=x",
            "uid:1 names_per_uid_max=0",
            "uid:1 connections_max=3",
            "uid:1 no_per_uid_max=3",
            "gid:1 names_per_uid_max=3",
            "service:a names_per_uid_max=3",
            "bob names_per_uid_max=3",
        ] {
            assert_eq!(
                Allowance::parse(text, &FewUsers).unwrap_err().code,
                ErrorCode::InvalidArgument,
                "{text}"
            );
        }
    }
}
