//! SHELL. The command line of the daemon.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::bridge::spec::expose::ExposeSpec;
use crate::bridge::spec::forward::ForwardSpec;
use crate::failure::on_one_line;

/// The message bus: a socket in a runtime directory, over which local processes call each other.
///
/// Flags override the environment, and the environment overrides the configuration file.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "ipc-daemon", version = VERSION, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Directory for the sockets [default: $IPC_RUNTIME_DIR, $XDG_RUNTIME_DIR/ipc, /run/ipc (root), TMPDIR/ipc-UID]
    #[arg(long, value_name = "DIR")]
    pub(crate) runtime_dir: Option<PathBuf>,

    /// Directory for what outlives the daemon [default: $IPC_STATE_DIR, $XDG_STATE_HOME/ipc, ~/.local/state/ipc,
    /// /var/lib/ipc (root)]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// Configuration file [default: $IPC_CONFIG, $XDG_CONFIG_HOME/ipc/daemon.toml, /etc/ipc/daemon.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Address on loopback where the bus protocol is spoken over TCP; such a client may do what `[remote] allow` lists
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    pub(crate) tcp: Option<SocketAddr>,

    /// Address on loopback where datagrams of the bus protocol are taken over UDP, from clients who may do the same
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    pub(crate) udp: Option<SocketAddr>,

    /// Plain port whose bytes go to one method of a service: tcp:ADDR:PORT=SERVICE/METHOD[,framing=chunk|line][,idle=DUR]
    /// or udp:ADDR:PORT=SERVICE/METHOD; can be given several times
    #[arg(long, value_name = "SPEC", value_parser = expose)]
    pub(crate) expose: Vec<ExposeSpec>,

    /// Server of the network that becomes a service with the method send:
    /// SERVICE=tcp:HOST:PORT[,framing=chunk|line|until-close] or SERVICE=udp:HOST:PORT; can be given several times
    #[arg(long, value_name = "SPEC", value_parser = forward)]
    pub(crate) forward: Vec<ForwardSpec>,

    /// How log lines are written; auto is text on a terminal and JSON elsewhere
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,

    /// Which log lines are written [default: $IPC_LOG, else info]
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub(crate) log_level: Option<LogLevel>,

    /// Open file descriptor that gets the line READY=1 once clients can connect, and is closed then
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) ready_fd: Option<i32>,

    /// Look through the store, change nothing, and exit: 0 when it is sound, 74 when it is damaged. No daemon may be running on it
    #[arg(long, conflicts_with_all = ["check_config", "print_config"])]
    pub(crate) check_store: bool,

    /// Put a store in the place of a damaged one, with everything that can be read of that, and exit. The old one is kept beside it
    #[arg(long, conflicts_with_all = ["check_config", "print_config", "check_store"])]
    pub(crate) repair: bool,

    /// Put a backup, as `ipc-cli backup` has made it, in the place of the store, and exit. The old one is kept beside it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["check_config", "print_config", "check_store", "repair"])]
    pub(crate) restore: Option<PathBuf>,

    /// Check the configuration and exit: 0 when it is good, 78 when it is not
    #[arg(long)]
    pub(crate) check_config: bool,

    /// Print the effective configuration as TOML and exit
    #[arg(long)]
    pub(crate) print_config: bool,
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (protocol 1)");
const AFTER_HELP: &str = "\
Exit status: 0 clean; 2 usage; 74 I/O; 75 another daemon holds the directory; 77 permission; 78 configuration.
Signals: SIGTERM and SIGINT drain and stop, a second one stops at once; SIGHUP reads the configuration again.";

fn expose(text: &str) -> Result<ExposeSpec, String> {
    ExposeSpec::parse(text).map_err(|error| on_one_line(&error))
}

fn forward(text: &str) -> Result<ForwardSpec, String> {
    ForwardSpec::parse(text).map_err(|error| on_one_line(&error))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write an IP address and a port, as in 127.0.0.1:7100; port 0 takes any free one".to_owned()
    })
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    /// None.
    Off,
    /// What the daemon cannot go on with.
    Error,
    /// What somebody should look at.
    Warn,
    /// Start, ready, stop.
    #[default]
    Info,
    /// What peers do that is not allowed, and what becomes of it.
    Debug,
    /// Everything.
    Trace,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn one_thing_is_done_at_a_time() {
        let all = ["--repair", "--check-store", "--restore=/b", "--check-config"];
        for (at, one) in all.iter().enumerate() {
            assert!(Args::try_parse_from(["ipc-daemon", one]).is_ok(), "{one}");
            for other in &all[..at] {
                let error = Args::try_parse_from(["ipc-daemon", one, other]).unwrap_err();
                assert_eq!(error.exit_code(), 2, "{one} {other}");
            }
        }
    }

    #[test]
    fn every_flag_is_taken() {
        let args = Args::try_parse_from([
            "ipc-daemon",
            "--runtime-dir=/r",
            "--state-dir=/s",
            "--config=/c",
            "--tcp=127.0.0.1:0",
            "--expose=tcp:127.0.0.1:0=a/b",
            "--expose=udp:127.0.0.1:0=c/d",
            "--forward=e=tcp:localhost:1",
            "--forward=f=udp:[::1]:1",
            "--log-format=json",
            "--log-level=debug",
            "--ready-fd=3",
            "--check-config",
            "--print-config",
        ])
        .unwrap();
        assert_eq!((args.expose.len(), args.forward.len()), (2, 2));
        assert_eq!((args.log_format, args.log_level), (Some(LogFormat::Json), Some(LogLevel::Debug)));
        assert_eq!(args.ready_fd, Some(3));
        assert!(Args::try_parse_from(["ipc-daemon", "--ready-fd=-1"]).is_err());
    }

    #[test]
    fn a_wrong_address_is_a_wrong_command_line() {
        for text in ["localhost:1", "127.0.0.1", "[::1]"] {
            let error = Args::try_parse_from(["ipc-daemon", "--tcp", text]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("127.0.0.1:7100"), "{error}");
        }
    }

    #[test]
    fn a_wrong_port_is_a_wrong_command_line_and_says_what_to_write() {
        let error = Args::try_parse_from(["ipc-daemon", "--expose=tcp:localhost:1=a/b"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
}
