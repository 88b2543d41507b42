//! The daemon's store under faults of the kernel: killed at one call or another, refused by the disk.
//!
//! strace(1) puts the faults in. Where it is not to be had, or may not trace, the tests say so and pass.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use ipc_core::ErrorCode;
use ipc_core::blocking::Client;
use ipc_core::client::KeyOptions;
use ipc_tests::daemon::{Daemon, Options, Signal};
use rustix::process::{Pid, kill_process};

use super::store::{Place, client, try_client};

/// The calls that change the file.
pub(super) const CALLS: [&str; 3] = ["pwrite64", "fdatasync", "ftruncate"];
/// Puts of the script that is killed.
const PUTS: usize = 6;
/// Bytes of each: so many that the log of the store is full before the last.
const VALUE_BYTES: usize = 60_000;
/// Puts until a sync fails: more than the start has syncs, because each thread's are counted by themselves.
const PUTS_MAX: usize = 200;

/// Whether programs can be traced here.
pub(super) fn can_inject() -> bool {
    let mut probe = Command::new("strace");
    probe.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO:when=1", "true"]);
    probe.stdout(Stdio::null()).stderr(Stdio::null());
    let can = probe.status().is_ok_and(|status| status.success());
    if !can {
        eprintln!("not tested: strace is not here, or may not trace");
    }
    can
}

/// A daemon under a tracer that puts a fault in. Dropping it kills both.
pub(super) struct Traced(pub(super) Daemon);

impl Traced {
    /// Starts one in that place. None when the fault has ended it.
    pub(super) fn start(place: &Place, fault: &str) -> Option<Self> {
        let inject = format!("inject={fault}");
        let launcher = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", inject.as_str()].map(OsString::from);
        Daemon::try_start(&Options { launcher: launcher.to_vec(), ..place.options() }).ok().map(Self)
    }

    /// The daemon itself: the one child of its tracer, while there is one.
    fn process(&self) -> Option<Pid> {
        let tracer = self.0.pid();
        let children = std::fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children")).ok()?;
        children.trim().parse().ok().and_then(Pid::from_raw)
    }

    /// Asks the daemon to end; its tracer follows it. Says whether it ended cleanly, and was not killed at one of its last
    /// calls.
    pub(super) fn stop(mut self) -> bool {
        kill_process(self.process().expect("it runs"), Signal::TERM).unwrap();
        let ended = self.0.wait();
        assert!(ended.status.success() || ended.status.signal() == Some(9), "{ended:?}");
        ended.status.success()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if let Some(process) = self.process() {
            // It may end by itself in this moment.
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

fn key(number: usize) -> String {
    format!("script/{number}")
}

/// Puts one key after the other, as long as they are acknowledged. Says how many were, and the error that ended it.
fn put_all(client: &mut Client, puts: usize) -> (usize, Option<ErrorCode>) {
    for number in 0..puts {
        if let Err(error) = client.put_key(&key(number), vec![7; VALUE_BYTES], &KeyOptions::default()) {
            return (number, Some(error.code));
        }
    }
    (puts, None)
}

/// Runs the script against a daemon that is killed when it makes that call for the `when`th time. Says whether it was.
fn run_killed_at(call: &str, when: usize) -> bool {
    let place = Place::new();
    let mut acknowledged = 0;
    let mut was_killed = true;
    if let Some(daemon) = Traced::start(&place, &format!("{call}:signal=SIGKILL:when={when}")) {
        if let Ok(mut client) = try_client(&daemon.0) {
            let (puts, error) = put_all(&mut client, PUTS);
            acknowledged = puts;
            was_killed = error.is_some();
        }
        if !was_killed {
            was_killed = !daemon.stop();
        }
    }
    let daemon = place.start();
    let mut client = client(&daemon);
    for number in 0..acknowledged {
        let found = client.get_key(&key(number));
        assert!(found.is_ok(), "killed at {call} {when}: put {number} was acknowledged: {found:?}");
    }
    // The one that was under way may be there; those after it were never asked for.
    for number in acknowledged + 1..PUTS {
        let found = client.get_key(&key(number)).map(|entry| entry.revision);
        assert_eq!(found.map_err(|error| error.code), Err(ErrorCode::NoSuchKey), "killed at {call} {when}");
    }
    assert_eq!(put_all(&mut client, PUTS), (PUTS, None), "killed at {call} {when}: it goes on");
    was_killed
}

#[test]
fn killed_at_any_call_of_its_store_a_daemon_keeps_what_it_has_acknowledged() {
    if !can_inject() {
        return;
    }
    let stride = if std::env::var_os("IPC_TEST_LONG").is_some() { 1 } else { 9 };
    for call in CALLS {
        let mut kills = 0;
        for when in (1..).step_by(stride) {
            if !run_killed_at(call, when) {
                break;
            }
            kills += 1;
        }
        assert!(kills > 0, "it was never killed at {call}");
    }
}

/// After a failed sync nobody knows what is on the disk, so nothing more is promised until the next start (fsync(2)).
#[test]
fn a_sync_that_fails_is_the_last_and_what_was_acknowledged_is_there() {
    if !can_inject() {
        return;
    }
    let place = Place::new();
    let mut failed = None;
    // The first syncs are those of the start.
    for when in 1..100 {
        let Some(daemon) = Traced::start(&place, &format!("fdatasync:error=EIO:when={when}")) else {
            continue;
        };
        let mut client = client(&daemon.0);
        let (acknowledged, error) = put_all(&mut client, PUTS_MAX);
        if let Some(code) = error {
            assert_eq!(code, ErrorCode::StorageFailed, "sync {when}");
            let again = client.put_key(&key(acknowledged), "again", &KeyOptions::default()).unwrap_err();
            assert_eq!(again.code, ErrorCode::StorageFailed, "only a restart writes again");
            failed = Some(acknowledged);
        }
        drop(client);
        assert!(daemon.stop(), "it stops cleanly");
        if failed.is_some() {
            break;
        }
    }
    let acknowledged = failed.expect("no sync of a put has failed");
    let daemon = place.start();
    let mut client = client(&daemon);
    for number in 0..acknowledged {
        client.get_key(&key(number)).unwrap();
    }
    assert_eq!(put_all(&mut client, PUTS), (PUTS, None), "it goes on");
}
