//! SHELL. One file per verb.

mod absent;
mod backup;
mod barrier;
pub(crate) mod bench;
mod bridge;
mod call;
mod completions;
pub(crate) mod demo;
mod describe;
mod elect;
mod holding;
mod kv;
mod lease;
mod list;
mod lock;
mod man;
mod monitor;
mod ping;
mod policy;
mod publish;
mod queue;
mod quota;
mod rows;
mod semaphore;
mod serve;
mod sockets;
mod status;
mod subscribe;
mod working;

use crate::args::{Command, Invocation, KvDo};
use crate::bus;
use crate::error::Failure;
use crate::interrupt::{Interrupts, OnSignal};
use crate::output::Output;

/// Runs the command to its end, or until a signal ends it.
///
/// # Errors
/// Why it ended early.
pub(crate) fn run(invocation: Invocation, output: &Output) -> Result<(), Failure> {
    match &invocation.command {
        Command::Completions(args) => return completions::run(args, output),
        Command::Man => return man::run(output),
        _ => {}
    }
    let interrupts = Interrupts::listen(on_signal(&invocation.command))?;
    let runtime = bus::runtime()?;
    let result = runtime.block_on(run_on_bus(invocation, output, interrupts));
    // A thread may still read standard input; it must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Commands that start processes end them; the others leave nothing behind that the daemon does not clear away.
fn on_signal(command: &Command) -> OnSignal {
    match command {
        Command::Serve(_)
        | Command::Demo
        | Command::Bench(_)
        | Command::Lock(_)
        | Command::Semaphore(_)
        | Command::Elect(_)
        | Command::Queue(_) => OnSignal::Tell,
        Command::Kv(args) if matches!(args.action, KvDo::Watch { .. }) => OnSignal::Tell,
        _ => OnSignal::Exit,
    }
}

async fn run_on_bus(invocation: Invocation, output: &Output, interrupts: Interrupts) -> Result<(), Failure> {
    let globals = &invocation.globals;
    match invocation.command {
        Command::Demo => demo::run(output, interrupts).await,
        Command::Ping(args) => ping::run(&args, globals, output).await,
        Command::Status(args) => status::run(&args, globals, output).await,
        Command::List(args) => list::run(&args, globals, output).await,
        Command::Describe(args) => describe::run(&args, globals, output).await,
        Command::Sockets => sockets::run(globals, output).await,
        Command::Call(args) => call::run(args, globals, output).await,
        Command::Serve(args) => serve::run(args, globals, output, interrupts).await,
        Command::Publish(args) => publish::run(args, globals, output).await,
        Command::Subscribe(args) => subscribe::run(args, globals, output).await,
        Command::Monitor(args) => monitor::run(args, globals, output).await,
        Command::Lock(args) => lock::run(args, globals, output, interrupts).await,
        Command::Semaphore(args) => semaphore::run(args, globals, output, interrupts).await,
        Command::Elect(args) => elect::run(args, globals, output, interrupts).await,
        Command::Barrier(args) => barrier::run(&args, globals, output).await,
        Command::Lease(args) => lease::run(&args, globals, output).await,
        Command::Kv(args) => kv::run(args, globals, output, interrupts).await,
        Command::Queue(args) => queue::run(args, globals, output, interrupts).await,
        Command::Bridge(args) => bridge::run(&args, globals, output).await,
        Command::Backup(args) => backup::run(&args, globals, output).await,
        Command::Quota => quota::run(globals, output).await,
        Command::Policy(args) => policy::run(&args, globals, output).await,
        Command::Bench(args) => bench::run(&args, globals, output, interrupts).await,
        Command::Completions(args) => completions::run(&args, output),
        Command::Man => man::run(output),
    }
}
