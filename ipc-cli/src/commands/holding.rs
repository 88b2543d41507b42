//! Holding something while a command runs, or until standard input closes. What `lock`, `semaphore` and `elect` share.

use core::future::Future;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use ipc_core::client::{Client, Hold};
use ipc_core::{Error, ErrorCode, HoldOptions};
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::args::{Globals, HoldArgs};
use crate::bus;
use crate::child;
use crate::error::Failure;
use crate::interrupt::{Interrupts, unless_interrupted};
use crate::output::Output;

/// How long somebody who waits tries to reach a daemon that is gone, and how often.
const AWAY_MAX: Duration = Duration::from_secs(20);
const AWAY_PAUSE: Duration = Duration::from_millis(50);
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
    unless_interrupted(interrupts, bus::connect_and_hold(globals)).await
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
    let durability = args.durability.map(Into::into);
    let delay = args.delay.unwrap_or_default();
    let options = HoldOptions { ttl: args.ttl, delay, durability, ..HoldOptions::default() };
    let waiting = async {
        let once = HoldOptions { wait: Some(Duration::ZERO), ..options.clone() };
        match take(once).await {
            Err(error) if error.code == ErrorCode::Busy && args.wait != Some(Duration::ZERO) => {
                output.say(&format!("waiting: {}", error.message));
                wait_in_line(args.wait, &options, take).await
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

/// Waits for it as long as is said. Whoever waits when the daemon is started again stands in line anew.
async fn wait_in_line<F>(
    wait: Option<Duration>,
    options: &HoldOptions,
    take: impl Fn(HoldOptions) -> F,
) -> Result<Hold, Error>
where
    F: Future<Output = Result<Hold, Error>>,
{
    let end = wait.map(|wait| Instant::now() + wait);
    let mut asked_at = Instant::now();
    let mut away_since = None;
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let error = match take(HoldOptions { wait: left, ..options.clone() }).await {
            Err(error) if is_of_restart(error.code) => error,
            taken => return taken,
        };
        let now = Instant::now();
        if now.duration_since(asked_at) > 2 * AWAY_PAUSE {
            // It stood in line until then.
            away_since = None;
        }
        if now.duration_since(*away_since.get_or_insert(now)) > AWAY_MAX {
            return Err(error);
        }
        sleep(AWAY_PAUSE).await;
        asked_at = Instant::now();
    }
}

/// Whether a request ends so when the daemon is stopped or has died.
fn is_of_restart(code: ErrorCode) -> bool {
    [ErrorCode::Unreachable, ErrorCode::OutcomeUnknown, ErrorCode::ShuttingDown].contains(&code)
}

fn show(what: What<'_>, held: &Hold, is_alone: bool, output: &Output) -> Result<(), Failure> {
    let What { noun, name } = what;
    let token = held.token();
    if output.is_json() {
        let mut object = Map::new();
        object.insert(noun.to_owned(), json!(name));
        object.insert("token".to_owned(), json!(token));
        object.insert("ttl_ms".to_owned(), json!(held.ttl().map(whole_millis)));
        object.insert("durability".to_owned(), json!(held.durability().name()));
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
