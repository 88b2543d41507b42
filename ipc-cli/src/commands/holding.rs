//! Holding something while a command runs, or until standard input closes. What `lock`, `semaphore` and `elect` share.

use core::future::Future;
use std::ffi::OsString;
use std::time::Duration;

use ipc_core::client::{Client, Hold};
use ipc_core::{Error, ErrorCode, HoldOptions};
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

use crate::args::{Globals, HoldArgs};
use crate::bus;
use crate::child;
use crate::error::Failure;
use crate::interrupt::{Interrupts, unless_interrupted};
use crate::output::Output;

/// The variable that tells a command its token.
const TOKEN_VARIABLE: &str = "IPC_FENCING_TOKEN";

/// What is held, in the words of the command line.
#[derive(Clone, Copy, Debug)]
pub(super) struct What<'a> {
    /// `lock`, `semaphore` or `election`.
    pub(super) noun: &'static str,
    pub(super) name: &'a str,
}

/// Connects for holding something, once it is known that what is to be done with it can be.
pub(super) async fn begin(
    name: &str,
    args: &HoldArgs,
    globals: &Globals,
    interrupts: &mut Interrupts,
) -> Result<Client, Failure> {
    bus::check_resource(name)?;
    check_program(&args.command)?;
    unless_interrupted(interrupts, bus::connect(globals)).await
}

/// Fails for a command that cannot be run, before anything is held for it.
pub(super) fn check_program(command: &[OsString]) -> Result<(), Error> {
    match command.first() {
        Some(program) if !child::is_found(program) => {
            let message = format!("there is no program '{}'", program.display());
            Err(Error::new(ErrorCode::InvalidArgument, message).with_hint("write CMD behind --"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Takes it as the arguments say, and holds it as long as they say. `take` is called once, or again to wait.
pub(super) async fn hold<F>(
    what: What<'_>,
    args: HoldArgs,
    output: &Output,
    mut interrupts: Interrupts,
    take: impl Fn(HoldOptions) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<Hold, Error>>,
{
    let options = HoldOptions { ttl: args.ttl, ..HoldOptions::default() };
    let waiting = async {
        let once = HoldOptions { wait: Some(Duration::ZERO), ..options.clone() };
        match take(once).await {
            Err(error) if error.code == ErrorCode::Busy && args.wait != Some(Duration::ZERO) => {
                output.say(&format!("waiting: {}", error.message));
                take(HoldOptions { wait: args.wait, ..options.clone() }).await
            }
            taken => taken,
        }
    };
    let held = unless_interrupted(&mut interrupts, waiting).await?;
    show(what, &held, args.command.is_empty(), output)?;
    if args.command.is_empty() {
        return until_closed(held, interrupts).await;
    }
    run_command(held, &args, output, interrupts).await
}

fn show(what: What<'_>, held: &Hold, is_alone: bool, output: &Output) -> Result<(), Failure> {
    let What { noun, name } = what;
    let token = held.token();
    if output.is_json() {
        let mut object = Map::new();
        object.insert(noun.to_owned(), json!(name));
        object.insert("token".to_owned(), json!(token));
        object.insert("ttl_ms".to_owned(), json!(held.ttl().map(whole_millis)));
        return output.object(&Value::Object(object));
    }
    output.say(&format!("holding {noun} {name} with token {token}"));
    if is_alone { output.line(&token.to_string()) } else { Ok(()) }
}

/// Milliseconds, as far as they go.
pub(super) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Holds it until standard input closes.
async fn until_closed(held: Hold, mut interrupts: Interrupts) -> Result<(), Failure> {
    // An input that cannot be read is as good as closed.
    let closed = spawn_blocking(|| std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
    let ended = tokio::select! {
        _ = closed => None,
        error = held.lost() => return Err(error.into()),
        interruption = interrupts.interrupted() => Some(Failure::Interrupted(interruption)),
    };
    held.release().await?;
    ended.map_or(Ok(()), Err)
}

/// Runs the command while it is held, and ends with its status.
async fn run_command(
    held: Hold,
    args: &HoldArgs,
    output: &Output,
    mut interrupts: Interrupts,
) -> Result<(), Failure> {
    let environment = [(TOKEN_VARIABLE, Some(held.token().to_string()))];
    let mut interruption = None;
    let stop = async {
        tokio::select! {
            error = held.lost() => output.error(&error),
            signal = interrupts.interrupted() => interruption = Some(signal),
        }
    };
    let ended = child::supervise(&args.command, &environment, stop).await;
    let status =
        ended.map_err(|error| Error::new(ErrorCode::Io, format!("the command cannot be run: {error}")))?;
    if held.is_held() {
        held.release().await?;
    }
    match (interruption, child::shell_status(status)) {
        (Some(interruption), _) => Err(Failure::Interrupted(interruption)),
        (None, 0) => Ok(()),
        (None, status) => Err(Failure::Command(status)),
    }
}
