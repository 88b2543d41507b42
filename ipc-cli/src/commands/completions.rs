//! `completions SHELL`: generated from the definition of the command line.

use crate::args::{CompletionsArgs, definition};
use crate::error::Failure;
use crate::output::Output;

/// Prints the completions of a shell.
pub(crate) fn run(args: &CompletionsArgs, output: &Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition(), "ipc-cli", &mut script);
    output.bytes(&script)
}
