//! The program starts. That this file stands here is what makes `cargo test --workspace` build `ipc-cli`
//! itself, which the end-to-end tests run: cargo builds a package's programs only for its own tests.

use std::process::{Command, Stdio};

#[test]
fn help_is_given_on_request() {
    let program = env!("CARGO_BIN_EXE_ipc-cli");
    let output = Command::new(program).arg("--help").stdin(Stdio::null()).output().expect("ipc-cli starts");
    assert!(output.status.success(), "ipc-cli --help: {output:?}");
}
