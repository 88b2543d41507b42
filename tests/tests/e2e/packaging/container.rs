//! Clients and daemons in namespaces of their own, as containers have them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use ipc_core::identity::Identity;
use ipc_tests::daemon::{Daemon, Options, eventually};
use ipc_tests::programs::program;
use ipc_tests::services::RawService;

/// Runs a shell script in new namespaces; `None`, with a word about it, where the system does not let us make them.
fn in_namespaces(kinds: &[&str], script: &str, arguments: &[&Path]) -> Option<std::process::Child> {
    let mut probe = Command::new("unshare");
    let probe = probe.args(kinds).arg("true").stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("left out: this machine does not let us make namespaces ({kinds:?})");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(kinds).args(["sh", "-ec", script, "sh"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command.spawn().unwrap())
}

const CALL: &str = "exec \"$1\" --runtime-dir \"$2\" call test.raw m hello";

#[test]
fn a_client_in_a_container_calls_a_service_outside_through_the_mounted_directory() {
    let daemon = Daemon::start();
    let mut service = RawService::register(&daemon, "test.raw", "m");
    let place = tempfile::tempdir().unwrap();
    let kinds = ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--net"];
    // To connect is not to write: the mount may be read-only.
    let script = format!(
        "mount --bind \"$3\" \"$2\"\nmount -o remount,bind,ro \"$2\"\nif touch \"$2/x\" 2>/dev/null; then exit 9; fi\n{CALL}"
    );
    let arguments = [&program("ipc-cli"), place.path(), daemon.runtime_dir()];
    let Some(client) = in_namespaces(&kinds, &script, &arguments) else { return };
    let call = service.call();
    let own = std::fs::metadata(daemon.runtime_dir()).unwrap();
    match call.caller {
        // The identity outside, whatever it is inside: there it is root, and process 1 or 2.
        Identity::Local { uid, pid, .. } => {
            assert_eq!(uid, own.uid());
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
            assert_eq!(name.trim_end(), "ipc-cli");
        }
        Identity::Remote { .. } => panic!("{:?}", call.caller),
    }
    service.reply(&call, b"from outside");
    let output = client.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "from outside", "{output:?}");
}

#[test]
fn a_client_without_a_number_in_its_namespace_has_its_own_outside() {
    let daemon = Daemon::start();
    let mut service = RawService::register(&daemon, "test.raw", "m");
    let script = format!("test \"$(id -u)\" = 65534\n{CALL}");
    let arguments = [&program("ipc-cli"), daemon.runtime_dir()];
    let Some(client) = in_namespaces(&["--user"], &script, &arguments) else { return };
    let call = service.call();
    let own = std::fs::metadata(daemon.runtime_dir()).unwrap().uid();
    assert!(matches!(call.caller, Identity::Local { uid, .. } if uid == own), "{:?}", call.caller);
    service.reply(&call, b"done");
    assert!(client.wait_with_output().unwrap().status.success());
}

#[test]
fn a_daemon_that_has_no_number_itself_does_not_start() {
    if in_namespaces(&["--user"], "exit 0", &[]).is_none_or(|mut child| !child.wait().unwrap().success()) {
        return;
    }
    // It could not tell its own user from anybody else without a number: all of them look like 65534.
    let launcher = ["unshare", "--user"].map(Into::into).to_vec();
    let ended = Daemon::try_start(&Options { launcher, ..Options::default() }).unwrap_err();
    assert_eq!(ended.status.code(), Some(77), "{ended:#?}");
    assert!(ended.stderr.contains("user namespace"), "{}", ended.stderr);
}

#[test]
fn a_client_that_the_daemons_namespace_has_no_number_for_is_refused() {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || in_namespaces(&["--user", "--map-root-user"], "exit 0", &[]).is_none() {
        eprintln!("left out: only root can be somebody else for a test");
        return;
    }
    let directory = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let socket = directory.path().join("bus.sock");
    let handed_over = Options::with_handed_over(&socket, 0o666);
    let launcher = ["unshare", "--user", "--map-root-user"].map(Into::into);
    let launcher = launcher.into_iter().chain(handed_over.launcher).collect();
    let daemon = Daemon::start_with(&Options { launcher, ..handed_over });
    let mut stranger = Command::new("setpriv");
    stranger.args(["--reuid", "4711", "--regid", "4711", "--clear-groups"]).arg(program("ipc-cli"));
    stranger.arg("--json").arg("--address").arg(format!("unix:{}", socket.display())).arg("ping");
    let output = stranger.output().unwrap();
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("permission_denied"), "{output:?}");
    assert!(eventually(|| daemon.log().contains("uid=65534")), "{}", daemon.log());
}
