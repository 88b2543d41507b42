//! Where output goes, and what becomes of it when nobody reads.

use std::fs::File;
use std::process::Stdio;

use crate::command::{finish, run, tool};

#[test]
fn a_closed_standard_output_is_a_quiet_end() {
    for arguments in [&["man"][..], &["completions", "bash"], &["--help"]] {
        let mut child = tool(arguments).spawn().expect("ipc-cli starts");
        drop(child.stdout.take());
        let ran = finish(child);
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_full_device_is_an_error() {
    for arguments in [&["--json", "man"][..], &["--json", "--help"], &["--json", "--version"]] {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let child = tool(arguments).stdout(Stdio::from(full)).spawn().expect("ipc-cli starts");
        finish(child).failed_with(74, "io");
    }
}

#[test]
fn colour_is_for_terminals_and_for_those_who_ask() {
    let error = |arguments: &[&str]| {
        run(&[&["--runtime-dir", "/nonexistent-directory", "ping"], arguments].concat()).stderr
    };
    assert!(!error(&[]).contains('\u{1b}'));
    assert!(error(&["--color", "always"]).contains('\u{1b}'));
    let child = tool(&["--runtime-dir", "/nonexistent-directory", "ping"]).env("NO_COLOR", "1").spawn();
    assert!(!finish(child.expect("ipc-cli starts")).stderr.contains('\u{1b}'));
}
