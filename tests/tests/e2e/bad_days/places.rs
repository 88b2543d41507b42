//! Something is wrong where the sockets are to be.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use ipc_core::blocking::Client;
use ipc_core::{Address, ConnectOptions, ErrorCode};
use ipc_tests::daemon::{Daemon, Ended, Options};
use ipc_tests::raw::RawPeer;

fn start_in(directory: &Path) -> Result<Daemon, Ended> {
    Daemon::try_start(&Options { runtime_dir: Some(directory.to_owned()), ..Options::default() })
}

fn connect_to(socket: &Path) -> ipc_core::Error {
    Client::connect(ConnectOptions::new().address(Address::Unix(socket.to_owned()))).unwrap_err()
}

#[test]
fn whatever_else_is_in_place_of_the_socket_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("bus.sock");
    for what in ["directory", "fifo"] {
        match what {
            "directory" => std::fs::create_dir(&socket).unwrap(),
            _ => {
                let status = std::process::Command::new("mkfifo").arg(&socket).status().unwrap();
                assert!(status.success());
            }
        }
        let inode = std::fs::symlink_metadata(&socket).unwrap().ino();
        let ended = start_in(directory.path()).unwrap_err();
        assert_eq!(ended.status.code(), Some(74), "{what}: {ended:#?}");
        assert!(ended.stderr.contains("bus.sock"), "{what}: {}", ended.stderr);
        assert_eq!(std::fs::symlink_metadata(&socket).unwrap().ino(), inode, "{what}");
        if what == "directory" {
            std::fs::remove_dir(&socket).unwrap();
        }
    }
}

#[test]
fn a_symlink_in_place_of_the_socket_is_replaced_and_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, target) = (directory.path().join("bus.sock"), directory.path().join("precious"));
    std::fs::write(&target, "precious").unwrap();
    symlink(&target, &socket).unwrap();
    let daemon = start_in(directory.path()).unwrap();
    assert!(std::fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    RawPeer::greeted(&socket).0.ping(1);
    assert_eq!(daemon.stop().status.code(), Some(0));
}

#[test]
fn a_directory_of_somebody_else_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let foreign = if rustix::process::geteuid().is_root() {
        chown(directory.path(), Some(12_345), None).unwrap();
        directory.path()
    } else {
        Path::new("/usr/lib")
    };
    let ended = start_in(foreign).unwrap_err();
    assert_eq!(ended.status.code(), Some(77), "{ended:#?}");
    assert!(ended.stderr.contains("hint"), "{}", ended.stderr);
    assert!(!foreign.join("bus.sock").exists() && !foreign.join("bus.lock").exists());
}

#[test]
fn a_symlink_in_place_of_the_directory_of_somebody_else_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("run");
    symlink("/usr/lib", &link).unwrap();
    let ended = start_in(&link).unwrap_err();
    assert!([Some(74), Some(77)].contains(&ended.status.code()), "{ended:#?}");
    assert!(!Path::new("/usr/lib/bus.lock").exists());
}

#[test]
fn a_lock_file_that_is_none_is_not_followed_or_removed() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("precious");
    std::fs::write(&target, "precious").unwrap();
    symlink(&target, directory.path().join("bus.lock")).unwrap();
    let ended = start_in(directory.path()).unwrap_err();
    assert!([Some(74), Some(77)].contains(&ended.status.code()), "{ended:#?}");
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    assert!(directory.path().join("bus.lock").is_symlink());
}

#[test]
fn of_many_daemons_that_find_a_stale_socket_one_serves() {
    for _ in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let mut dead = start_in(directory.path()).unwrap();
        dead.signal(ipc_tests::daemon::Signal::KILL);
        dead.wait();
        let socket = directory.path().join("bus.sock");
        assert!(socket.exists());
        let started: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| start_in(directory.path()))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let codes = started.iter().map(|started| started.as_ref().err().map(|ended| ended.status.code()));
        let codes: Vec<_> = codes.collect();
        assert_eq!(codes.iter().filter(|code| code.is_none()).count(), 1, "{codes:?}");
        assert!(codes.iter().flatten().all(|code| *code == Some(75)), "{codes:?}");
        RawPeer::greeted(&socket).0.ping(1);
    }
}

#[test]
fn a_client_is_told_what_is_wrong_with_the_place() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("bus.sock");
    let absent = connect_to(&socket);
    assert_eq!(absent.code, ErrorCode::Unreachable, "{absent}");
    assert!(absent.hint().is_some(), "{absent}");

    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let stale = connect_to(&socket);
    assert_eq!(stale.code, ErrorCode::Unreachable, "{stale}");
    assert!(stale.hint().is_some() && stale.message != absent.message, "{stale}");

    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "no socket").unwrap();
    let other = connect_to(&socket);
    assert!(other.message.contains("bus.sock"), "{other}");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "no socket");
}

/// Everybody may do everything as root.
#[test]
fn a_directory_without_permission_is_told_apart() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
    let ended = start_in(directory.path()).unwrap_err();
    assert_eq!(ended.status.code(), Some(77), "{ended:#?}");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
}
