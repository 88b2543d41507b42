//! The part of the process's environment that says where things are, read in one place.

use std::ffi::OsString;
use std::path::PathBuf;

/// What the lookup of addresses and directories depends on. Everything behind it is a function of this value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Effective user id of this process.
    pub uid: u32,
    /// `$IPC_ADDRESS`.
    pub address: Option<OsString>,
    /// `$IPC_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// Where temporary files go: `$TMPDIR`, else `/tmp`.
    pub temporary_dir: PathBuf,
    /// `$IPC_STATE_DIR`.
    pub state_dir: Option<PathBuf>,
    /// `$XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// `$LISTEN_PID`: which process the descriptors are for.
    pub listen_pid: Option<OsString>,
    /// `$LISTEN_FDS`: how many descriptors were handed over.
    pub listen_fds: Option<OsString>,
    /// Process id of this process.
    pub pid: u32,
}

impl Environment {
    /// Reads the environment of this process. A variable that is set to nothing counts as not set.
    pub fn read() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        // The base directory specification: a relative path is invalid and to be ignored.
        let absolute = |name: &str| path(name).filter(|path| path.is_absolute());
        Self {
            uid: rustix::process::geteuid().as_raw(),
            address: variable("IPC_ADDRESS"),
            runtime_dir: path("IPC_RUNTIME_DIR"),
            xdg_runtime_dir: absolute("XDG_RUNTIME_DIR"),
            temporary_dir: absolute("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp")),
            state_dir: path("IPC_STATE_DIR"),
            xdg_state_home: absolute("XDG_STATE_HOME"),
            home: absolute("HOME"),
            listen_pid: variable("LISTEN_PID"),
            listen_fds: variable("LISTEN_FDS"),
            pid: std::process::id(),
        }
    }
}
