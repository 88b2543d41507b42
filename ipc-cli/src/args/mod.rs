//! SHELL. The command line: what can be asked for, and the global options of every command.

mod coordination;
mod options;
mod payload;
mod queue;
mod verbs;

pub(crate) use coordination::{
    BarrierArgs, ElectArgs, HoldArgs, KvArgs, KvChange, KvDo, KvTxn, KvWhich, LeaseArgs, LeaseDo, LockArgs,
    SemaphoreArgs,
};
pub(crate) use options::{ColorWhen, Globals, PayloadAs};
pub(crate) use payload::PayloadArgument;
pub(crate) use queue::{QueueArgs, QueueDo, QueuePutArgs, QueueTakeArgs, QueueWhich};
pub(crate) use verbs::{
    BackupArgs, BenchArgs, BenchWhat, BridgeArgs, BridgeDo, CallArgs, Command, CompletionsArgs, DescribeArgs,
    ExplainArgs, ListArgs, ListWhat, MonitorArgs, OnSlowArg, PingArgs, PolicyArgs, PolicyDo, PublishArgs,
    ServeArgs, StatusArgs, SubscribeArgs,
};

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

const AFTER_HELP: &str = "\
Payloads are a literal, '-' for standard input or '@FILE'; valid UTF-8 is text, anything else bytes.
Durations are written like 500ms, 5s or 1m30s.

Exit status: 0 done; 1 the service answered with an error; 2 usage; 69 daemon not reached or no such service; \
74 I/O; 75 try again; 76 protocol or version mismatch; 77 not permitted; 124 deadline passed; 130 interrupted.";

/// Talk to the ipc message bus: call services, offer them, publish and receive events.
#[derive(Debug, Parser)]
#[command(
    name = "ipc-cli",
    version,
    after_help = AFTER_HELP,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Invocation {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Understands a command line.
///
/// # Errors
/// Help and version, which are answers, and what cannot be understood.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Invocation, clap::Error> {
    let invocation = Invocation::try_parse_from(arguments)?;
    if let Command::Subscribe(args) = &invocation.command
        && args.raw
        && invocation.globals.json
    {
        let message = "the argument '--raw' cannot be used with '--json'";
        return Err(definition().error(ErrorKind::ArgumentConflict, message));
    }
    Ok(invocation)
}

/// The whole command line as clap knows it, for completions and the manual.
pub(crate) fn definition() -> clap::Command {
    Invocation::command()
}

/// Whether the command line asks for JSON, for errors found before it is understood. What follows `--` is not ours.
pub(crate) fn asks_for_json(arguments: &[OsString]) -> bool {
    arguments.iter().skip(1).take_while(|argument| *argument != "--").any(|argument| argument == "--json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Invocation, clap::Error> {
        let line: Vec<OsString> =
            core::iter::once("ipc-cli").chain(line.iter().copied()).map(Into::into).collect();
        super::parse(&line)
    }

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let refused: &[&[&str]] = &[
            &[],
            &["lock"],
            &["lock", "a", "true"],
            &["lock", "a", "--ttl", "1ms"],
            &["lock", "a", "--wait", "2h"],
            &["semaphore", "a"],
            &["semaphore", "a", "--permits", "0"],
            &["semaphore", "a", "--permits", "1", "--release"],
            &["lock", "a", "--release", "--shared"],
            &["lock", "a", "--release", "--delay", "1s"],
            &["lock", "a", "--delay", "3601s"],
            &["lock", "a", "--release", "--", "true"],
            &["elect", "a", "--release", "--observe"],
            &["barrier", "a"],
            &["elect", "a", "--observe", "--value", "b"],
            &["lease"],
            &["lease", "grant"],
            &["kv"],
            &["kv", "put", "a", "x", "--if-absent", "--if-revision", "1"],
            &["kv", "list", "a", "--prefix", "b"],
            &["call", "a.b", "m", "x", "--stream"],
            &["publish", "t", "x", "--retain"],
            &["subscribe", "t", "--group", "g"],
            &["subscribe", "t", "--on-slow", "block"],
            &["subscribe"],
            &["serve", "a.b", "m"],
            &["serve", "a.b", "m", "cat"],
            &["queue"],
            &["queue", "take", "a", "--workers", "2"],
            &["queue", "take", "a", "--delay", "1s"],
            &["queue", "put", "a", "x", "--overflow", "ignore"],
            &["queue", "put", "a", "x", "--max-length", "0"],
            &["queue", "ack", "a"],
            &["queue", "peek", "a", "--count", "101"],
            &["bridge", "link", "tcp:b:1"],
            &["ping", "--count", "0"],
            &["ping", "--timeout", "0s"],
            &["ping", "--timeout", "5"],
            &["call", "a.b", "m", "--deadline", "2h"],
            &["call", "a.b", "m", "--oneway", "--deadline", "2h"],
            &["subscribe", "t", "--raw", "--json"],
        ];
        for line in refused {
            let error = parse(line).expect_err("refused");
            assert_eq!(error.exit_code(), 2, "{line:?}: {error}");
        }
    }

    #[test]
    fn a_wait_may_be_nothing_and_a_lease_a_week() {
        let Command::Lock(lock) =
            parse(&["lock", "a", "--wait", "0", "--ttl", "7d"]).expect("parses").command
        else {
            panic!("not lock");
        };
        assert_eq!(lock.hold.wait, Some(std::time::Duration::ZERO));
        assert!(parse(&["lock", "a", "--ttl", "8d"]).is_err());
    }

    #[test]
    fn options_stand_before_and_after_the_verb() {
        for line in [["--json", "ping"], ["ping", "--json"]] {
            assert!(parse(&line).expect("parses").globals.json);
        }
    }

    #[test]
    fn the_command_of_serve_keeps_its_own_options() {
        let Command::Serve(serve) =
            parse(&["serve", "a.b", "m", "--", "sh", "--json", "-c"]).expect("parses").command
        else {
            panic!("not serve");
        };
        assert_eq!(serve.command, ["sh", "--json", "-c"]);
        let line: Vec<OsString> = ["ipc-cli", "serve", "a", "b", "--", "x", "--json"].map(Into::into).into();
        assert!(!asks_for_json(&line));
    }

    #[test]
    fn a_payload_may_look_like_a_number_or_an_option() {
        for line in [&["call", "a.b", "m", "-5"][..], &["call", "a.b", "m", "--", "--weird"]] {
            let Command::Call(call) = parse(line).expect("parses").command else { panic!("not call") };
            assert!(call.payload.is_some(), "{line:?}");
        }
    }
}
