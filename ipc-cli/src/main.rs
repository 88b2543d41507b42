//! The tool people and scripts use on the ipc message bus.

mod args;
mod bus;
mod child;
mod commands;
mod error;
mod interrupt;
mod output;
mod private;
mod render;
mod role;
mod terminal;
mod title;
mod watchdog;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::error::Failure;
use crate::output::Output;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(role) = role::requested(&arguments) {
        return role::play(role);
    }
    let invocation = match args::parse(&arguments) {
        Ok(invocation) => invocation,
        Err(error) => return refuse(&error, args::asks_for_json(&arguments)),
    };
    let output = Output::new(&invocation.globals);
    match commands::run(invocation, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Failure::Error(error) = &failure {
                output.error(error);
            }
            ExitCode::from(failure.exit_status())
        }
    }
}

/// Help and version are answers; everything else clap reports is a usage error.
fn refuse(error: &clap::Error, json: bool) -> ExitCode {
    let status = u8::try_from(error.exit_code()).unwrap_or(2);
    if json && error.use_stderr() {
        Output::before_options(json).error(&error::usage(error));
        return ExitCode::from(status);
    }
    match error.print().map_err(Failure::from) {
        Err(Failure::Error(failed)) if !error.use_stderr() => {
            Output::before_options(json).error(&failed);
            ExitCode::from(failed.code.exit_status())
        }
        // The reader of the help may have gone: a quiet exit. A complaint that cannot be written is still one.
        _ => ExitCode::from(status),
    }
}
