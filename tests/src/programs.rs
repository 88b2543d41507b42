//! Where the programs are that the end-to-end tests run.

use std::path::PathBuf;

/// A program of this workspace, built in the same profile as the running test.
///
/// # Panics
/// When it has not been built, with the command that builds it.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    // Tests stand in `deps` beside the programs, doc tests and examples elsewhere below.
    let found = test.ancestors().skip(1).take(3).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is not built beside {}: run `cargo build --workspace` first", test.display())
    })
}
