//! SHELL. The users and groups of this machine, by name and number, as passwd(5) and whatever stands beside it know them.
//!
//! Looking one up may take its time, where they come over the network: never on the thread of the bus.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::broker;

/// What the kernel shows for users without a number here, unless it is set otherwise (proc_sys_kernel(5)).
const OVERFLOW_USUAL: u32 = 65_534;

/// The users and groups of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System;

impl broker::Directory for System {
    fn uid(&self, user: &str) -> Option<u32> {
        User::from_name(user).ok().flatten().map(|user| user.uid.as_raw())
    }

    fn gid(&self, group: &str) -> Option<u32> {
        Group::from_name(group).ok().flatten().map(|group| group.gid.as_raw())
    }

    fn overflow(&self) -> u32 {
        let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid");
        text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(OVERFLOW_USUAL)
    }
}

/// A user with the groups that it has when it logs in.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// Its number.
    pub(crate) uid: u32,
    /// Its own group.
    pub(crate) gid: u32,
    /// The others.
    pub(crate) groups: Vec<u32>,
}

/// The user of that name.
pub(crate) fn user(name: &str) -> Option<Account> {
    User::from_name(name).ok().flatten().map(account)
}

/// The user of that number.
pub(crate) fn user_of(uid: u32) -> Option<Account> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(account)
}

fn account(user: User) -> Account {
    let groups = CString::new(user.name).ok().and_then(|name| getgrouplist(&name, user.gid).ok());
    let groups = groups.unwrap_or_default().into_iter().map(Gid::as_raw).collect();
    Account { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Directory;

    #[test]
    fn root_is_known_and_strangers_are_not() {
        assert_eq!((System.uid("root"), System.gid("no-such-group")), (Some(0), None));
        assert_eq!((user("root").unwrap().gid, user_of(0).unwrap().uid), (0, 0));
        assert!(user("no-such-user").is_none() && user("").is_none());
        assert!(System.overflow() > 0);
    }
}
