//! The processes of the demo: a daemon of its own, services, and this program itself as a person would call it.

use core::time::Duration;
use std::process::{Command as StdCommand, Stdio};
use std::time::Instant;

use ipc_core::client::{Client, ConnectOptions};
use ipc_core::{Error, ErrorCode};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::narrator::Ran;
use crate::private::{Mortal, PrivateDaemon};
use crate::role;

/// No process of the demo needs more than a blink; this is for machines in trouble.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// The stage, and everybody on it.
pub(crate) struct Stage {
    pub(crate) daemon: PrivateDaemon,
}

/// A service in a process of its own. Dropped, it is killed.
pub(crate) struct Actor {
    process: Mortal,
    pub(crate) pid: u32,
}

/// The tool at work beside the story, such as a subscriber.
pub(crate) struct Running {
    process: Child,
    line: String,
    begun: Instant,
    stderr: BufReader<ChildStderr>,
}

impl Stage {
    /// Starts the daemon.
    pub(crate) async fn set() -> Result<Self, Error> {
        // Whoever comes over the network proves nothing: this is all that he may do.
        let config = "tcp = \"127.0.0.1:0\"\nudp = \"127.0.0.1:0\"\n\
                      [remote]\nallow = [\"call demo.title/title\", \"call demo.title/whoami\"]\n";
        Ok(Self { daemon: PrivateDaemon::configured(config).await? })
    }

    /// Connects to the daemon.
    pub(crate) async fn connect(&self) -> Result<Client, Error> {
        Client::connect(ConnectOptions::new().runtime_dir(self.daemon.runtime_dir()).name("ipc-cli demo"))
            .await
    }

    /// Starts a service process and waits until it serves.
    pub(crate) async fn service(&self, name: &str, is_group: bool) -> Result<Actor, Error> {
        let mut command = role::demo_service_command(name, is_group);
        self.furnish(&mut command);
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let spawned = command.spawn().map_err(|error| broken("a service", &error))?;
        let mut process = Mortal(spawned);
        let pid = process.0.id().unwrap_or_default();
        let stdout = process.0.stdout.take().ok_or_else(|| broken("a service", &"it has no output"))?;
        let mut line = String::new();
        match timeout(PATIENCE, BufReader::new(stdout).read_line(&mut line)).await {
            Ok(Ok(1..)) => Ok(Actor { process, pid }),
            Ok(Ok(0)) => Err(broken("a service", &"it ended before it served")),
            Ok(Err(error)) => Err(broken("a service", &error)),
            Err(_) => Err(broken("a service", &"it is not ready in time")),
        }
    }

    /// Runs the tool to its end.
    pub(crate) async fn tool(&self, arguments: &[&str]) -> Result<Ran, Error> {
        self.start_tool(arguments)?.finish().await
    }

    /// Starts the tool.
    pub(crate) fn start_tool(&self, arguments: &[&str]) -> Result<Running, Error> {
        let mut command = StdCommand::new(role::program());
        command.args(arguments);
        self.furnish(&mut command);
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let begun = Instant::now();
        let mut process = command.spawn().map_err(|error| broken("ipc-cli", &error))?;
        let stderr = process.stderr.take().ok_or_else(|| broken("ipc-cli", &"it has no standard error"))?;
        let line = as_typed(arguments);
        Ok(Running { process, line, begun, stderr: BufReader::new(stderr) })
    }

    /// Every process finds the daemon by the environment, and nothing else in it.
    fn furnish(&self, command: &mut StdCommand) {
        command
            .env("IPC_RUNTIME_DIR", self.daemon.runtime_dir())
            .env_remove("IPC_ADDRESS")
            .env("NO_COLOR", "1");
    }

    /// Lets the daemon end in order and removes its directory.
    pub(crate) async fn clear(self) -> Result<(), Error> {
        self.daemon.stop().await
    }
}

impl Actor {
    /// Kills it without warning, as the kernel would for want of memory.
    pub(crate) async fn kill(mut self) -> Result<(), Error> {
        timeout(PATIENCE, self.process.0.kill())
            .await
            .map_err(|_| broken("a service", &"it does not die"))?
            .map_err(|error| broken("a service", &error))
    }
}

impl Running {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id().unwrap_or_default()
    }

    /// The command line as a person would type it.
    pub(crate) fn line(&self) -> &str {
        &self.line
    }

    /// Waits for its first line on standard error, which says that it is ready.
    pub(crate) async fn speaks(&mut self) -> Result<(), Error> {
        let mut first = String::new();
        match timeout(PATIENCE, self.stderr.read_line(&mut first)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(broken(&self.line, &error)),
            Err(_) => Err(broken(&self.line, &"it says nothing")),
        }
    }

    /// Waits for its end.
    pub(crate) async fn finish(mut self) -> Result<Ran, Error> {
        let mut stderr = Vec::new();
        let (rest, output) = timeout(PATIENCE, async {
            tokio::join!(self.stderr.read_to_end(&mut stderr), self.process.wait_with_output())
        })
        .await
        .map_err(|_| broken(&self.line, &"it does not end"))?;
        rest.map_err(|error| broken(&self.line, &error))?;
        let output = output.map_err(|error| broken(&self.line, &error))?;
        Ok(Ran {
            line: self.line,
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            duration: self.begun.elapsed(),
        })
    }
}

fn as_typed(arguments: &[&str]) -> String {
    let mut line = String::from("ipc-cli");
    for argument in arguments {
        let is_plain = !argument.is_empty()
            && argument.chars().all(|c| c.is_ascii_alphanumeric() || "-_.,:/=@%".contains(c));
        line.push(' ');
        line.push_str(&if is_plain { (*argument).to_owned() } else { format!("'{argument}'") });
    }
    line
}

pub(crate) fn broken(what: &str, why: &dyn core::fmt::Display) -> Error {
    Error::new(ErrorCode::Io, format!("the demo cannot go on: {what}: {why}"))
}
