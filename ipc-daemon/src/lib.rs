//! The ipc message bus daemon.
//!
//! | module | colour | what it holds |
//! |---|---|---|
//! | [`broker`] | PURE | the whole bus as one state machine |
//! | [`datagram`] | PURE | senders of datagrams, and what makes their calls dependable |
//! | `bus` | SHELL | the broker with its connections: what a batch of input leads to |
//! | `store` | SHELL | what outlives the daemon: one file, written by one thread |
//! | `upkeep` | SHELL | what is done with a store while no daemon runs on it: checked, repaired, restored |
//! | `shell` | SHELL | the process around it: sockets, signals, readiness, the event loop |
//! | `net` | SHELL | what all sockets share: accepting, readiness |
//! | `bridge` | SHELL | plain ports whose bytes go to one method of a service, servers of the network as services |
//! | `admin` | SHELL | the service `ipc.daemon`, which answers for the daemon itself |
//! | `directory` | SHELL | users and groups of this machine |
//! | `args`, `config`, `logging`, `failure` | SHELL | what the daemon is told, and what it tells |
//!
//! `main` is a few lines over [`run`].

pub mod broker;
pub mod datagram;

#[cfg(feature = "shell")]
mod admin;
#[cfg(feature = "shell")]
mod args;
#[cfg(feature = "shell")]
mod bridge;
#[cfg(feature = "shell")]
mod bus;
#[cfg(feature = "shell")]
mod config;
#[cfg(feature = "shell")]
mod directory;
#[cfg(feature = "shell")]
mod failure;
#[cfg(feature = "shell")]
mod logging;
#[cfg(feature = "shell")]
mod net;
#[cfg(feature = "shell")]
mod random;
#[cfg(feature = "shell")]
mod shell;
#[cfg(feature = "shell")]
mod store;
#[cfg(feature = "shell")]
mod upkeep;

/// Runs the daemon as its command line says, and returns what the process is to exit with.
///
/// To be called once, from `main`: it takes over signals, the log and what happens on a panic.
#[cfg(feature = "shell")]
pub fn run() -> std::process::ExitCode {
    use clap::Parser;
    use std::process::ExitCode;

    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(answer) => {
            return match written(answer.print()) {
                Err(failure) if !answer.use_stderr() => {
                    logging::report(&failure);
                    ExitCode::from(failure.exit.status())
                }
                // A complaint that cannot be written is still one.
                _ => u8::try_from(answer.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
            };
        }
    };
    let exit = match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            logging::report(&failure);
            ExitCode::from(failure.exit.status())
        }
    };
    logging::finish();
    exit
}

#[cfg(feature = "shell")]
fn start(args: args::Args) -> Result<(), failure::Failure> {
    use upkeep::Upkeep;

    let (ready_fd, check_only, print_only) = (args.ready_fd, args.check_config, args.print_config);
    let upkeep = Upkeep::of(&args);
    let source = config::Source::new(args);
    let config = source.load()?;
    if print_only {
        return print(&config.to_toml()?);
    }
    if check_only {
        return Ok(());
    }
    match upkeep {
        Some(Upkeep::Check) => return print(&upkeep::check(&config)?),
        Some(Upkeep::Repair) => return print(&upkeep::repair(&config)?),
        Some(Upkeep::Restore(backup)) => return print(&upkeep::restore(&config, &backup)?),
        None => {}
    }
    logging::start(config.log)?;
    logging::abort_on_panic();
    shell::run(config, &source, shell::Readiness::take(ready_fd)?)
}

#[cfg(feature = "shell")]
fn print(text: &str) -> Result<(), failure::Failure> {
    use std::io::Write;

    written(std::io::stdout().write_all(text.as_bytes()))
}

/// What has become of the standard output. Whoever closed the pipe has read enough.
#[cfg(feature = "shell")]
fn written(outcome: std::io::Result<()>) -> Result<(), failure::Failure> {
    match outcome {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(failure::Failure::io("write to the standard output", error))
        }
        _ => Ok(()),
    }
}
