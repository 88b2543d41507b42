//! Users: those that rules are read with, and being somebody else, in tests that run as root.

use std::os::unix::fs::PermissionsExt as _;

use ipc_daemon::broker::Directory;
use rustix::process::geteuid;
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use tempfile::TempDir;

use crate::daemon::{Daemon, Options};

/// Users that no machine has, for tests.
pub const STRANGERS: [u32; 3] = [3_141_592, 3_141_593, 3_141_594];

/// A daemon that every user reaches, with this configuration, and the directory that it is in.
///
/// # Panics
/// When it does not start.
pub fn shared_bus(config: &str) -> (Daemon, TempDir) {
    let directory = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let runtime_dir = Some(directory.path().join("run"));
    (Daemon::start_with(&Options { runtime_dir, ..Options::with_config(config) }), directory)
}

/// Whether this process can be somebody else. Says why a test is left out if not.
pub fn can_switch() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("left out: to be other users takes root");
    }
    is_root
}

/// Runs something as another user, with the group of the same number and these supplementary ones, on a thread that is that
/// user's alone: what it connects to sees that user.
///
/// # Panics
/// When `run` does, or when this is not possible: ask [`can_switch`] first.
pub fn as_user<T: Send>(uid: u32, groups: &[u32], run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let switched = scope.spawn(|| {
            become_user(uid, groups);
            run()
        });
        switched.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes the calling thread, and no other, another user's for good.
///
/// # Panics
/// When that is not possible.
pub fn become_user(uid: u32, groups: &[u32]) {
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    set_thread_groups(&groups).expect("root may");
    set_thread_res_gid(group, group, group).expect("root may");
    set_thread_res_uid(user, user, user).expect("root may");
}

/// A machine whose only user with a name is `alice`, 1, and whose only group is `audio`, 20.
#[derive(Clone, Copy, Debug)]
pub struct FewUsers;

impl Directory for FewUsers {
    fn uid(&self, user: &str) -> Option<u32> {
        (user == "alice").then_some(1)
    }

    fn gid(&self, group: &str) -> Option<u32> {
        (group == "audio").then_some(20)
    }

    fn overflow(&self) -> u32 {
        65_534
    }
}
