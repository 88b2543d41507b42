//! `serve SERVICE METHOD -- CMD...`: each call runs a command.

use std::ffi::OsString;
use std::sync::Arc;

use ipc_core::service::{Request, Service};
use ipc_core::{Error, ErrorCode, Identity, Payload, Peer, ServiceError};
use tokio::sync::{Semaphore, watch};

use crate::args::{Globals, ServeArgs};
use crate::bus;
use crate::child::{self, Job, Outcome};
use crate::error::Failure;
use crate::interrupt::{Interrupts, unless_interrupted};
use crate::output::Output;

/// What every call needs to know.
struct Plan {
    service: String,
    method: String,
    command: Vec<OsString>,
    output_max_bytes: usize,
    shows_stderr: bool,
    /// A permit for each command that may run.
    room: Arc<Semaphore>,
    /// Becomes true when every command is to end.
    stopping: watch::Receiver<bool>,
}

/// Offers the method until a signal, or until the daemon is gone for good.
pub(crate) async fn run(
    args: ServeArgs,
    globals: &Globals,
    output: &Output,
    mut interrupts: Interrupts,
) -> Result<(), Failure> {
    bus::check_method(&args.service, &args.method)?;
    let program = args.command.first().cloned().unwrap_or_default();
    if !child::is_found(&program) {
        let message = format!("there is no program '{}'", program.display());
        return Err(Error::new(ErrorCode::InvalidArgument, message).with_hint("write CMD behind --").into());
    }
    let client = unless_interrupted(&mut interrupts, bus::connect_and_stay(globals)).await?;
    let room = Arc::new(Semaphore::new(usize::from(args.concurrency)));
    let (stop, stopping) = watch::channel(false);
    let plan = Arc::new(Plan {
        service: args.service.clone(),
        method: args.method.clone(),
        command: args.command,
        output_max_bytes: client.daemon().payload_max_bytes as usize,
        shows_stderr: !output.is_quiet(),
        room: Arc::clone(&room),
        stopping,
    });
    let mut service = Service::new(&args.service)?
        .method(&args.method, move |request: Request| {
            let plan = Arc::clone(&plan);
            async move { answer(&plan, request).await }
        })
        .concurrency(usize::from(args.concurrency));
    if args.group {
        service = service.group();
    }
    let serving = unless_interrupted(&mut interrupts, client.serve(service)).await?;
    output.announce(&format!("serving {}/{}", args.service, args.method));
    let ended = tokio::select! {
        interruption = interrupts.interrupted() => Failure::Interrupted(interruption),
        error = serving.closed() => Failure::Error(error),
    };
    // No new calls, then an end to those that run; a permit is free again when nothing of its command is left.
    stop.send_replace(true);
    client.close().await;
    let _all = room.acquire_many(u32::from(args.concurrency)).await;
    Err(ended)
}

/// One call: waits for room and runs the command. Dropped when nobody waits for its answer any more.
async fn answer(plan: &Plan, request: Request) -> Result<Payload, ServiceError> {
    let Ok(permit) = Arc::clone(&plan.room).acquire_owned().await else {
        return Err(ServiceError::new("stopping", "this service is stopping"));
    };
    // Dropped with this future.
    let (_wanted, mut is_wanted) = watch::channel(());
    let mut stopping = plan.stopping.clone();
    let job = Job {
        command: plan.command.clone(),
        environment: environment(plan, &request.sender),
        input: request.payload.body.clone(),
        output_max_bytes: plan.output_max_bytes,
        shows_stderr: plan.shows_stderr,
    };
    // A task of its own: it ends the command in order even when this future is dropped.
    let running = tokio::spawn(async move {
        let stop = async {
            tokio::select! {
                // Either way the other side says that it is over.
                _ = stopping.wait_for(|stopping| *stopping) => {}
                _ = is_wanted.changed() => {}
            }
        };
        let outcome = child::run(job, stop).await;
        drop(permit);
        outcome
    });
    match running.await {
        Ok(Ok(outcome)) => conclude(outcome, plan),
        Ok(Err(error)) => {
            Err(ServiceError::new("not-started", format!("the command cannot be run: {error}")))
        }
        Err(error) => Err(ServiceError::new("not-started", format!("running the command failed: {error}"))),
    }
}

fn conclude(outcome: Outcome, plan: &Plan) -> Result<Payload, ServiceError> {
    match outcome {
        Outcome::Succeeded(output) => Ok(match String::from_utf8(output) {
            Ok(text) => Payload::text(text),
            Err(error) => Payload::bytes(error.into_bytes()),
        }),
        Outcome::Failed(status, said) => {
            let said = said.trim_end();
            let message =
                if said.is_empty() { format!("the command ended with {status}") } else { said.to_owned() };
            Err(ServiceError::new(child::status_code(status), message))
        }
        Outcome::OutputTooLarge => {
            let limit = plan.output_max_bytes;
            Err(ServiceError::new("output-too-large", format!("the command wrote more than {limit} bytes")))
        }
        Outcome::Stopped => Err(ServiceError::new("stopped", "the command was stopped before it ended")),
    }
}

/// What the command can know beside the payload. Variables of the other kind of sender are removed, so that none is
/// inherited from a call that this process itself was started for.
fn environment(plan: &Plan, sender: &Peer) -> Vec<(&'static str, Option<String>)> {
    let mut variables = vec![
        ("IPC_SERVICE", Some(plan.service.clone())),
        ("IPC_METHOD", Some(plan.method.clone())),
        ("IPC_SENDER_UID", None),
        ("IPC_SENDER_GID", None),
        ("IPC_SENDER_PID", None),
        ("IPC_SENDER_PRINCIPAL", None),
        ("IPC_SENDER_ADDRESS", None),
    ];
    let known = match &sender.identity {
        Identity::Local { uid, gid, pid } => vec![
            ("IPC_SENDER_UID", uid.to_string()),
            ("IPC_SENDER_GID", gid.to_string()),
            ("IPC_SENDER_PID", pid.to_string()),
        ],
        Identity::Remote { principal, address } => {
            vec![("IPC_SENDER_PRINCIPAL", principal.clone()), ("IPC_SENDER_ADDRESS", address.clone())]
        }
    };
    variables.extend(known.into_iter().map(|(name, value)| (name, Some(value.replace('\0', "")))));
    variables
}
