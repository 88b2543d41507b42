//! `queue take QUEUE -- CMD`: a command works on an entry, or several on many.

use std::ffi::OsString;
use std::time::Duration;

use ipc_core::client::{Client, NackOptions, TakeOptions, Taken};
use ipc_core::{Error, ErrorCode};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{holding, queue};
use crate::args::{Globals, QueueTakeArgs};
use crate::bus;
use crate::child;
use crate::error::{Failure, Interruption};
use crate::interrupt::{Interrupts, unless_interrupted};
use crate::output::Output;

/// How long an entry stays away after its command has failed, when there are more commands to come.
const FAILED_DELAY: Duration = Duration::from_secs(1);

/// What every worker needs to know.
#[derive(Clone)]
struct Plan {
    client: Client,
    queue: String,
    options: TakeOptions,
    delay: Duration,
    command: Vec<OsString>,
    output: Output,
    interrupts: Interrupts,
}

/// What became of one entry.
enum Ended {
    Done,
    /// The command failed with this status.
    Failed(u8),
    Interrupted(Interruption),
}

/// Runs the command for one entry, or for all there are.
pub(super) async fn run(
    args: QueueTakeArgs,
    globals: &Globals,
    output: &Output,
    mut interrupts: Interrupts,
) -> Result<(), Failure> {
    let options = queue::take_options(&args)?;
    holding::check_program(&args.command)?;
    let client = unless_interrupted(&mut interrupts, bus::connect(globals)).await?;
    let default = if args.workers.is_some() { FAILED_DELAY } else { Duration::ZERO };
    let mut plan = Plan {
        client,
        queue: args.which.queue,
        options,
        delay: args.delay.unwrap_or(default),
        command: args.command,
        output: output.clone(),
        interrupts,
    };
    let ended = match args.workers {
        None => work_once(&mut plan).await?,
        Some(workers) => work_in_a_loop(&plan, workers).await?,
    };
    plan.client.close().await;
    match ended {
        Ended::Done => Ok(()),
        Ended::Failed(status) => Err(Failure::Command(status)),
        Ended::Interrupted(interruption) => Err(Failure::Interrupted(interruption)),
    }
}

/// All workers, until there is nothing to be taken: the worst of how their entries ended.
async fn work_in_a_loop(plan: &Plan, workers: u16) -> Result<Ended, Failure> {
    let mut running = JoinSet::new();
    for _ in 0..workers {
        let mut plan = plan.clone();
        running.spawn(async move { work_on(&mut plan).await });
    }
    let (mut has_worked, mut worst, mut nothing) = (false, Ended::Done, None);
    while let Some(joined) = running.join_next().await {
        let (worked, ended, last) = joined.map_err(|error| broken(&error))??;
        has_worked |= worked;
        nothing = nothing.or(last);
        worst = worse(worst, ended);
    }
    match nothing {
        Some(error) if !has_worked && matches!(worst, Ended::Done) => Err(error.into()),
        Some(_) | None => Ok(worst),
    }
}

/// One worker: whether it has got anything, the worst of how that ended, and why it has ended itself.
async fn work_on(plan: &mut Plan) -> Result<(bool, Ended, Option<Error>), Failure> {
    let (mut has_worked, mut worst) = (false, Ended::Done);
    loop {
        match work_once(plan).await {
            Ok(interrupted @ Ended::Interrupted(_)) => return Ok((true, interrupted, None)),
            Ok(ended) => {
                has_worked = true;
                worst = worse(worst, ended);
            }
            Err(Failure::Error(error)) if error.code == ErrorCode::Busy => {
                return Ok((has_worked, worst, Some(error)));
            }
            // Somebody else has it now: the next one.
            Err(Failure::Error(error)) if error.code == ErrorCode::LockLost => {
                plan.output.error(&error);
                worst = worse(worst, Ended::Failed(error.code.exit_status()));
                has_worked = true;
            }
            Err(Failure::Interrupted(interruption)) => {
                return Ok((has_worked, Ended::Interrupted(interruption), None));
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn worse(one: Ended, other: Ended) -> Ended {
    match (one, other) {
        (Ended::Interrupted(interruption), _) | (_, Ended::Interrupted(interruption)) => {
            Ended::Interrupted(interruption)
        }
        (_, Ended::Failed(status)) | (Ended::Failed(status), _) => Ended::Failed(status),
        (Ended::Done, Ended::Done) => Ended::Done,
    }
}

/// Takes one entry, runs the command for it, and says what became of it.
async fn work_once(plan: &mut Plan) -> Result<Ended, Failure> {
    let Plan { client, queue, options, .. } = &*plan;
    let taking = client.take_entry(queue, options.clone());
    let work = unless_interrupted(&mut plan.interrupts.clone(), taking).await?;
    if plan.output.is_json() {
        queue::show_work(&work, &plan.output)?;
    } else {
        plan.output.say(&queue::describe(&work));
    }
    let (mut interruption, mut is_late) = (None, false);
    let stop = async {
        tokio::select! {
            signal = plan.interrupts.interrupted() => interruption = Some(signal),
            () = late(work.visibility) => is_late = true,
        }
    };
    let ran = child::feed_to(&plan.command, &environment(&work), work.payload.body.clone(), stop).await;
    let ended =
        ran.map_err(|error| Error::new(ErrorCode::Io, format!("the command cannot be run: {error}")))?;
    if let Some(interruption) = interruption {
        give_back(work, Duration::ZERO, "its worker was interrupted").await?;
        return Ok(Ended::Interrupted(interruption));
    }
    if is_late {
        let message = format!("the command took too long for {}, which goes back", queue::describe(&work));
        return Err(Error::new(ErrorCode::LockLost, message).with_hint("give it more --visibility").into());
    }
    match child::shell_status(ended) {
        0 => {
            work.ack().await?;
            Ok(Ended::Done)
        }
        status => {
            give_back(work, plan.delay, &child::status_code(ended)).await?;
            Ok(Ended::Failed(status))
        }
    }
}

async fn late(visibility: Option<Duration>) {
    match visibility {
        Some(visibility) => sleep(visibility).await,
        None => core::future::pending().await,
    }
}

async fn give_back(work: Taken, delay: Duration, reason: &str) -> Result<(), Error> {
    let options = NackOptions { delay, reason: reason.to_owned(), ..NackOptions::default() };
    work.nack(options).await.map(|_| ())
}

fn environment(work: &Taken) -> [(&'static str, Option<String>); 4] {
    [
        ("IPC_QUEUE", Some(work.queue.to_string())),
        ("IPC_ENTRY_ID", Some(work.id.replace('\0', ""))),
        ("IPC_DELIVERY", Some(work.delivery.to_string())),
        ("IPC_DELIVERIES", Some(work.deliveries.to_string())),
    ]
}

fn broken(error: &tokio::task::JoinError) -> Failure {
    Error::new(ErrorCode::Io, format!("a worker failed: {error}")).into()
}
