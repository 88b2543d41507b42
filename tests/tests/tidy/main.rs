//! The house rules as tests: each reads the tree and lists, as `file:line: what`, whatever breaks its rule.
//!
//! The rules are text scans with matched brackets, good enough for formatted code; each is shown to catch a
//! small sample that breaks it, in the file of the rule.

mod arrows;
mod colours;
mod guarantees;
mod knobs;
mod lengths;
mod modules;
mod paths;
mod scan;
mod tree;
mod words;

use std::sync::LazyLock;

use tree::Tree;

static TREE: LazyLock<Tree> = LazyLock::new(Tree::read);

/// Fails with every finding, each on a line of its own.
fn assert_clean(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}: {} found\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn the_tree_is_the_one_of_this_project() {
    for path in ["Cargo.toml", "ipc-core/src/lib.rs", "ipc-daemon/src/lib.rs", "tests/tests/tidy/main.rs"] {
        assert!(TREE.file(path).is_some(), "{path} was not read: every rule would pass on an empty tree");
    }
}

#[test]
fn every_folder_says_its_colour() {
    assert_clean("a folder is PURE or SHELL and says which", colours::undeclared(&TREE));
}

#[test]
fn pure_code_is_pure() {
    assert_clean("PURE code knows no I/O, clock, randomness or async", colours::impure(&TREE));
}

#[test]
fn arrows_point_one_way() {
    assert_clean("layers import downwards only", arrows::violations(&TREE));
}

#[test]
fn files_and_functions_are_short() {
    assert_clean("a file has at most 500 lines without its tests", lengths::long_files(&TREE));
    assert_clean("a function has at most 70 lines", lengths::long_functions(&TREE));
}

#[test]
fn every_file_is_documented_and_used() {
    assert_clean("a file starts with its module doc", modules::undocumented(&TREE));
    assert_clean("a file is part of some crate", modules::dead(&TREE));
}

#[test]
fn every_knob_has_an_effect() {
    assert_clean("a configuration key is read", knobs::unread_keys(&TREE));
    assert_clean("a limit is used and documented", knobs::unused_limits(&TREE));
}

#[test]
fn every_guarantee_is_proved() {
    assert_clean("a test that the guarantees name is there", guarantees::unproved(&TREE));
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    assert_clean("words that are not in this project", words::unwanted(&TREE));
    assert_clean("unsafe code has one place", words::unsafe_code(&TREE));
    assert_clean("a test waits for a state, not for a time", words::sleeping_tests(&TREE));
    assert_clean("a dropped result has its reason beside it", words::unexplained(&TREE));
}
