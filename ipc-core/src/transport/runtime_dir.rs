//! Which directory holds the sockets of the bus, and which its durable state.
//!
//! | order | runtime directory | used when |
//! |---|---|---|
//! | 1 | `--runtime-dir` | given; nothing else is tried |
//! | 2 | `$IPC_RUNTIME_DIR` | set; nothing else is tried |
//! | 3 | `$XDG_RUNTIME_DIR/ipc` | the base belongs to this user |
//! | 4 | `/run/ipc` | this user is root |
//! | 5 | `$TMPDIR/ipc-UID`, `/tmp/ipc-UID` | otherwise |
//! | 6 | `/run/ipc` | a client found no socket in those before |
//!
//! The order is a function of an [`Environment`]; whether a directory is safe is asked of the file system, one candidate
//! after the other. After `su`, `$XDG_RUNTIME_DIR` is somebody else's and passed over.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;

use super::directory::{RuntimeDir, owner};
use super::unix::Trust;
use super::{Address, Environment, STREAM_SOCKET_NAME, reason};
use crate::error::{Error, ErrorCode};

/// The runtime directory of a system-wide daemon.
const SYSTEM_RUNTIME_DIR: &str = "/run/ipc";
/// The state directory of a system-wide daemon.
const SYSTEM_STATE_DIR: &str = "/var/lib/ipc";

/// A directory that may be the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The directory.
    pub path: PathBuf,
    /// Whether somebody named exactly this one, so that none other will do.
    pub is_explicit: bool,
    /// The candidate is passed over unless this directory belongs to the user.
    pub base: Option<PathBuf>,
    /// The base need not exist: it is made.
    pub makes_base: bool,
}

impl Candidate {
    fn explicit(path: &Path) -> Self {
        Self { path: path.to_owned(), is_explicit: true, base: None, makes_base: false }
    }

    fn below(base: &Path, rest: &str) -> Self {
        Self { base: Some(base.to_owned()), ..Self::fixed(base.join(rest)) }
    }

    fn fixed(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), is_explicit: false, base: None, makes_base: false }
    }

    /// Why the candidate is passed over, if it is.
    fn objection(&self, uid: u32) -> Option<String> {
        let base = self.base.as_deref()?;
        match owner(base) {
            Some(owner) if owner == uid => None,
            Some(owner) => Some(format!("{} belongs to uid {owner}", base.display())),
            None if self.makes_base => None,
            None => Some(format!("{} does not exist", base.display())),
        }
    }
}

/// The runtime directories a daemon may use, the first possible one wins; a client looks on in [`client_candidates`].
pub fn daemon_candidates(environment: &Environment, explicit: Option<&Path>) -> Vec<Candidate> {
    if let Some(path) = explicit.or(environment.runtime_dir.as_deref()) {
        return vec![Candidate::explicit(path)];
    }
    let mut candidates = Vec::new();
    if let Some(base) = &environment.xdg_runtime_dir {
        candidates.push(Candidate::below(base, "ipc"));
    }
    if environment.uid == 0 {
        candidates.push(Candidate::fixed(SYSTEM_RUNTIME_DIR));
    } else {
        let name = format!("ipc-{}", environment.uid);
        candidates.push(Candidate::fixed(environment.temporary_dir.join(name)));
    }
    candidates
}

/// The runtime directories a client looks into.
pub fn client_candidates(environment: &Environment, explicit: Option<&Path>) -> Vec<Candidate> {
    let mut candidates = daemon_candidates(environment, explicit);
    let system = Candidate::fixed(SYSTEM_RUNTIME_DIR);
    if !candidates.iter().any(|candidate| candidate.is_explicit || *candidate == system) {
        candidates.push(system);
    }
    candidates
}

/// The state directories a daemon may use, the first possible one wins.
pub fn state_candidates(environment: &Environment, explicit: Option<&Path>) -> Vec<Candidate> {
    if let Some(path) = explicit.or(environment.state_dir.as_deref()) {
        return vec![Candidate::explicit(path)];
    }
    let mut candidates = Vec::new();
    if let Some(base) = &environment.xdg_state_home {
        candidates.push(Candidate { makes_base: true, ..Candidate::below(base, "ipc") });
    } else if let Some(home) = &environment.home {
        candidates.push(Candidate::below(home, ".local/state/ipc"));
    }
    if environment.uid == 0 {
        candidates.push(Candidate::fixed(SYSTEM_STATE_DIR));
    }
    candidates
}

/// The runtime directory for a daemon: checked, made with `mode` if it is missing, and held open.
///
/// # Errors
/// `unsafe_path` when it is not safe to use, `io` or `permission_denied` when it cannot be made.
pub fn open_runtime_dir(
    environment: &Environment,
    explicit: Option<&Path>,
    mode: u32,
) -> Result<RuntimeDir, Error> {
    let candidates = daemon_candidates(environment, explicit);
    let chosen = first_possible(&candidates, environment.uid, "runtime directory", "--runtime-dir")?;
    RuntimeDir::open_or_create(&chosen.path, environment.uid, mode)
}

/// The state directory for a daemon: checked, made 0700 with its parents if it is missing, and held open.
///
/// # Errors
/// As [`open_runtime_dir`].
pub fn open_state_dir(environment: &Environment, explicit: Option<&Path>) -> Result<RuntimeDir, Error> {
    let candidates = state_candidates(environment, explicit);
    let chosen = first_possible(&candidates, environment.uid, "state directory", "--state-dir")?;
    RuntimeDir::open_or_create_all(&chosen.path, environment.uid, 0o700)
}

fn first_possible<'a>(
    candidates: &'a [Candidate],
    uid: u32,
    what: &str,
    option: &str,
) -> Result<&'a Candidate, Error> {
    let mut notes = String::new();
    for candidate in candidates {
        match candidate.objection(uid) {
            None => return Ok(candidate),
            Some(objection) => note(&mut notes, &objection),
        }
    }
    if notes.is_empty() {
        note(&mut notes, "the environment names none");
    }
    Err(Error::new(ErrorCode::UnsafePath, format!("there is no {what} for uid {uid}: {notes}"))
        .with_hint(format!("name one with {option}")))
}

/// The socket of the daemon that a client is led to: `explicit`, else `$IPC_ADDRESS`, else the first runtime directory that
/// is safe and holds a socket. Connects to nothing.
///
/// # Errors
/// `unsafe_path` when the directory that was named is not safe, `unreachable` with all places that were looked at when
/// none holds a socket, `invalid_argument` when `$IPC_ADDRESS` is not an address.
pub fn find_socket(
    environment: &Environment,
    explicit: Option<&Path>,
    trust: &Trust,
) -> Result<Address, Error> {
    if let (None, Some(address)) = (explicit, &environment.address) {
        return Address::parse_os(address);
    }
    let owners = trust.uids(environment.uid);
    let mut notes = String::new();
    for candidate in client_candidates(environment, explicit) {
        match look_into(&candidate, environment.uid, &owners) {
            Ok(socket) => return Ok(Address::Unix(socket)),
            Err(error) if candidate.is_explicit => return Err(error),
            Err(error) => note(&mut notes, &error.message),
        }
    }
    Err(Error::new(ErrorCode::Unreachable, format!("no daemon found: {notes}"))
        .with_hint("start one with `ipc-daemon`, or say where it is with --runtime-dir or $IPC_RUNTIME_DIR"))
}

fn look_into(candidate: &Candidate, uid: u32, owners: &[u32]) -> Result<PathBuf, Error> {
    let unreachable = |message: String| Error::new(ErrorCode::Unreachable, message);
    if let Some(objection) = candidate.objection(uid) {
        return Err(unreachable(objection));
    }
    let socket = candidate.path.join(STREAM_SOCKET_NAME);
    let missing = |what: &Path| {
        unreachable(format!("{} does not exist", what.display()))
            .with_hint("is ipc-daemon running? start it with `ipc-daemon`")
    };
    match rustix::fs::statat(CWD, &candidate.path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) if candidate.is_explicit => return Err(missing(&socket)),
        Err(Errno::NOENT) => return Err(missing(&candidate.path)),
        // Whatever else is wrong, opening it says so in full.
        _ => {}
    }
    let directory = RuntimeDir::open(&candidate.path, owners)?;
    match rustix::fs::statat(&directory, STREAM_SOCKET_NAME, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(directory.path().join(STREAM_SOCKET_NAME)),
        Err(Errno::NOENT) => Err(missing(&socket)),
        Err(errno) => Err(unreachable(format!("{}: {}", socket.display(), reason(errno)))),
    }
}

fn note(notes: &mut String, text: &str) {
    let separator = if notes.is_empty() { "" } else { "; " };
    // Writing to a String cannot fail.
    let _ = write!(notes, "{separator}{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::net::UnixListener;

    fn environment(uid: u32) -> Environment {
        Environment { uid, temporary_dir: PathBuf::from("/tmp"), ..Environment::default() }
    }

    fn own_uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn paths(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|candidate| candidate.path.to_str().unwrap()).collect()
    }

    #[test]
    fn the_order_is_the_documented_one() {
        let plain = environment(1000);
        assert_eq!(paths(&daemon_candidates(&plain, None)), ["/tmp/ipc-1000"]);
        assert_eq!(paths(&client_candidates(&plain, None)), ["/tmp/ipc-1000", "/run/ipc"]);
        let root = environment(0);
        assert_eq!(paths(&daemon_candidates(&root, None)), ["/run/ipc"]);
        assert_eq!(paths(&client_candidates(&root, None)), ["/run/ipc"]);
        let session = Environment { xdg_runtime_dir: Some("/run/user/1000".into()), ..plain };
        assert_eq!(paths(&daemon_candidates(&session, None)), ["/run/user/1000/ipc", "/tmp/ipc-1000"]);
        let expected = ["/run/user/1000/ipc", "/tmp/ipc-1000", "/run/ipc"];
        assert_eq!(paths(&client_candidates(&session, None)), expected);
        let named = Environment { runtime_dir: Some("/named".into()), ..session };
        assert_eq!(paths(&daemon_candidates(&named, None)), ["/named"]);
        assert_eq!(paths(&client_candidates(&named, None)), ["/named"]);
        assert_eq!(paths(&client_candidates(&named, Some(Path::new("/flag")))), ["/flag"]);
    }

    #[test]
    fn the_state_has_an_order_too() {
        let nobody = environment(1000);
        assert!(state_candidates(&nobody, None).is_empty());
        assert!(open_state_dir(&nobody, None).unwrap_err().hint().unwrap().contains("--state-dir"));
        let home = Environment { home: Some("/home/a".into()), ..nobody };
        assert_eq!(paths(&state_candidates(&home, None)), ["/home/a/.local/state/ipc"]);
        let xdg = Environment { xdg_state_home: Some("/state".into()), ..home };
        assert_eq!(paths(&state_candidates(&xdg, None)), ["/state/ipc"]);
        assert_eq!(paths(&state_candidates(&environment(0), None)), ["/var/lib/ipc"]);
        let named = Environment { state_dir: Some("/named".into()), ..xdg };
        assert_eq!(paths(&state_candidates(&named, None)), ["/named"]);
        assert_eq!(paths(&state_candidates(&named, Some(Path::new("/flag")))), ["/flag"]);
    }

    #[test]
    fn somebody_elses_session_directory_is_passed_over() {
        let base = tempfile::tempdir().unwrap();
        let temporary = tempfile::tempdir().unwrap();
        let stranger = own_uid() + 1;
        let environment = Environment {
            xdg_runtime_dir: Some(base.path().to_owned()),
            temporary_dir: temporary.path().to_owned(),
            ..environment(stranger)
        };
        let candidates = daemon_candidates(&environment, None);
        let chosen = first_possible(&candidates, stranger, "runtime directory", "--runtime-dir").unwrap();
        assert_eq!(chosen.path, temporary.path().join(format!("ipc-{stranger}")));
        let mine = Environment { uid: own_uid(), ..environment };
        let made = open_runtime_dir(&mine, None, 0o700).unwrap();
        assert_eq!(made.path(), base.path().join("ipc"));
    }

    #[test]
    fn a_client_takes_the_first_safe_directory_with_a_socket() {
        let base = tempfile::tempdir().unwrap();
        let environment = Environment {
            xdg_runtime_dir: Some(base.path().join("session")),
            temporary_dir: base.path().to_owned(),
            ..environment(own_uid())
        };
        let session = base.path().join("session/ipc");
        fs::create_dir_all(&session).unwrap();
        let _listener = UnixListener::bind(session.join(STREAM_SOCKET_NAME)).unwrap();
        let found = find_socket(&environment, None, &Trust::default()).unwrap();
        assert_eq!(found, Address::Unix(session.join(STREAM_SOCKET_NAME)));

        let address = Some("unix:/elsewhere".into());
        let named = Environment { address, ..environment };
        let found = find_socket(&named, None, &Trust::default()).unwrap();
        assert_eq!(found, Address::Unix("/elsewhere".into()));
        let found = find_socket(&named, Some(&session), &Trust::default()).unwrap();
        assert_eq!(
            found,
            Address::Unix(session.join(STREAM_SOCKET_NAME)),
            "a flag is before the environment"
        );
    }

    #[test]
    fn a_client_that_finds_nothing_says_where_it_looked() {
        let base = tempfile::tempdir().unwrap();
        let nowhere = base.path().join("nowhere");
        for explicit in [true, false] {
            let environment =
                Environment { xdg_runtime_dir: Some(nowhere.clone()), ..environment(own_uid()) };
            let explicit = explicit.then_some(nowhere.as_path());
            let error = match find_socket(&environment, explicit, &Trust::default()) {
                Err(error) => error,
                // A system-wide daemon runs on this machine; then a client rightly finds that one.
                Ok(address) => {
                    assert!(address.path().unwrap().starts_with(SYSTEM_RUNTIME_DIR));
                    continue;
                }
            };
            assert_eq!(error.code, ErrorCode::Unreachable);
            assert!(error.message.contains(nowhere.to_str().unwrap()), "{error}");
            assert!(error.hint().unwrap().contains("ipc-daemon"));
        }
    }

    #[test]
    fn a_named_directory_that_is_not_safe_is_an_error() {
        let base = tempfile::tempdir().unwrap();
        let stranger = environment(own_uid() + 1);
        // For root nobody is a stranger, so the stranger looks at root's or a user's directory, whose owner it trusts
        // only if that is root.
        let found = find_socket(&stranger, Some(base.path()), &Trust::default());
        let error = found.unwrap_err();
        if own_uid() == 0 {
            assert_eq!(error.code, ErrorCode::Unreachable);
        } else {
            assert_eq!(error.code, ErrorCode::UnsafePath);
        }
    }
}
