//! What the command line takes and what it refuses.

use crate::command::{run, run_with_input};

#[test]
fn help_and_version_are_answers() {
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["call", "--help"],
        &["help"],
        &["help", "call"],
        &["bridge", "expose", "--help"],
        &["--version"],
    ] {
        let ran = run(arguments);
        assert!(!ran.succeeded().is_empty(), "{arguments:?}");
        assert!(ran.stderr.is_empty(), "{ran:?}");
    }
    assert!(run(&["--version"]).succeeded().starts_with("ipc-cli "));
}

#[test]
fn what_cannot_be_understood_is_refused_with_status_2() {
    let refused: &[&[&str]] = &[
        &[],
        &["frobnicate"],
        &["call"],
        &["call", "demo.title", "title", "x", "--stream"],
        &["publish", "topic", "x", "--retain"],
        &["subscribe", "topic", "--group", "g"],
        &["subscribe", "topic", "--on-slow", "block"],
        &["subscribe", "topic", "--raw", "--json"],
        &["list", "nothing"],
        &["lock"],
        &["ping", "--timeout", "soon"],
        &["--address", "unix:/a", "--runtime-dir", "/b", "ping"],
    ];
    for arguments in refused {
        let ran = run(arguments);
        assert_eq!(ran.status, Some(2), "{arguments:?}: {ran:?}");
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn a_usage_error_is_an_object_for_programs() {
    let error = run(&["--json", "call", "demo.title"]).failed_with(2, "invalid_argument");
    assert!(error["message"].as_str().unwrap().contains("<METHOD>"), "{error}");
    let error = run(&["pong", "--json"]).failed_with(2, "invalid_argument");
    assert!(error["hint"].as_str().unwrap().contains("ping"), "{error}");
    let words_of_cmd = run(&["serve", "a.b", "--", "x", "--json"]);
    assert!(words_of_cmd.stderr.starts_with("error:"), "what follows -- is not ours: {words_of_cmd:?}");
}

#[test]
fn names_and_payloads_are_checked_before_anything_is_connected() {
    let nowhere = "/nonexistent-directory";
    let refused: &[&[&str]] = &[
        &["call", "no good", "title"],
        &["call", "demo.title", "two.words"],
        &["describe", ""],
        &["publish", "a..b", "x"],
        &["subscribe", "a.>.b"],
        &["call", "demo.title", "title", "{", "--as", "json"],
        &["serve", "demo.title", "title", "--", "/no/such/program"],
    ];
    for arguments in refused {
        let arguments = [&["--json", "--runtime-dir", nowhere], *arguments].concat();
        run(&arguments).failed_with(2, "invalid_argument");
    }
    let arguments = ["--json", "--runtime-dir", nowhere, "call", "a.b", "m", "-", "--as", "text"];
    run_with_input(&arguments, b"\xff").failed_with(2, "invalid_argument");
    let error = run(&["--json", "call", "a.b", "m", "@/no/such/file"]).failed_with(74, "io");
    assert!(error["message"].as_str().unwrap().contains("/no/such/file"), "{error}");
}

#[test]
fn completions_and_the_manual_are_generated() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        assert!(script.succeeded().contains("subscribe"), "{shell}");
        assert!(!script.text().contains("__role"), "{shell} would offer what is not for people");
    }
    assert_eq!(run(&["completions", "cobol"]).status, Some(2));
    let man = run(&["man"]);
    assert!(man.succeeded().contains(".TH ipc-cli 1"), "{man:?}");
    assert!(man.text().contains("Exit status: 0 done"), "{man:?}");
}
