//! Tells the story: paragraphs for people as it happens, one object a step for programs.

use core::time::Duration;
use std::time::Instant;

use serde::Serialize;

use crate::error::Failure;
use crate::output::Output;
use crate::render::{duration_for_people, escape};

/// One step, as programs see it.
#[derive(Debug, Serialize)]
struct Step {
    step: &'static str,
    ok: bool,
    duration_ms: f64,
    commands: Vec<CommandShown>,
    observations: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CommandShown {
    command: String,
    exit_status: Option<i32>,
    stdout: String,
    stderr: String,
    duration_ms: f64,
}

/// What a command did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ran {
    /// The command line as a person would type it.
    pub(crate) line: String,
    /// Its exit status, or none when it was ended by a signal or still runs.
    pub(crate) status: Option<i32>,
    /// What it wrote to standard output.
    pub(crate) stdout: String,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
    /// How long it ran.
    pub(crate) duration: Duration,
}

/// Tells the steps in order.
#[derive(Debug)]
pub(crate) struct Narrator<'a> {
    output: &'a Output,
    begun: Instant,
    number: usize,
    current: Option<Step>,
}

impl<'a> Narrator<'a> {
    /// Begins the story.
    pub(crate) fn new(output: &'a Output) -> Self {
        Self { output, begun: Instant::now(), number: 0, current: None }
    }

    /// Begins a step: its name for programs, its title and what to know before it for people.
    pub(crate) fn step(&mut self, name: &'static str, title: &str, explanation: &str) -> Result<(), Failure> {
        self.finish_step()?;
        self.number += 1;
        self.begun = Instant::now();
        self.current = Some(Step {
            step: name,
            ok: true,
            duration_ms: 0.0,
            commands: Vec::new(),
            observations: Vec::new(),
        });
        if self.output.is_json() {
            return Ok(());
        }
        let palette = self.output.palette();
        let number = palette.quiet(&format!("{:>2}", self.number));
        self.output.line(&format!("\n{number}  {}", palette.heading(title)))?;
        explanation.lines().try_for_each(|line| self.output.line(&format!("    {}", line.trim())))
    }

    /// Shows a command and what it wrote.
    pub(crate) fn ran(&mut self, ran: &Ran) -> Result<(), Failure> {
        self.show_command(&ran.line)?;
        self.wrote(ran)
    }

    /// Shows a command that goes on beside the story.
    pub(crate) fn started(&mut self, line: &str) -> Result<(), Failure> {
        self.show_command(&format!("{line} &"))
    }

    /// Shows what a command wrote that was shown before.
    pub(crate) fn wrote(&mut self, ran: &Ran) -> Result<(), Failure> {
        if let Some(step) = &mut self.current {
            step.commands.push(CommandShown {
                command: ran.line.clone(),
                exit_status: ran.status,
                stdout: ran.stdout.clone(),
                stderr: ran.stderr.clone(),
                duration_ms: milliseconds(ran.duration),
            });
        }
        if self.output.is_json() {
            return Ok(());
        }
        let palette = self.output.palette();
        for line in ran.stdout.lines() {
            self.output.line(&format!("      {}", escape(line)))?;
        }
        let is_bad = ran.status.is_some_and(|status| status != 0);
        for line in ran.stderr.lines().map(escape) {
            let line = if is_bad { palette.warn(&line) } else { palette.quiet(&line) };
            self.output.line(&format!("      {line}"))?;
        }
        Ok(())
    }

    fn show_command(&self, line: &str) -> Result<(), Failure> {
        if self.output.is_json() {
            return Ok(());
        }
        let palette = self.output.palette();
        self.output.line(&format!("    {} {}", palette.quiet("$"), palette.strong(line)))
    }

    /// Says what is to be seen in it.
    pub(crate) fn observe(&mut self, text: &str) -> Result<(), Failure> {
        if let Some(step) = &mut self.current {
            step.observations.push(text.to_owned());
        }
        if self.output.is_json() {
            return Ok(());
        }
        let palette = self.output.palette();
        self.output.line(&format!("    {} {}", palette.good("->"), escape(text)))
    }

    /// Says that it did not go as it should have.
    pub(crate) fn fail(&mut self, text: &str) {
        if let Some(step) = &mut self.current {
            step.ok = false;
            step.observations.push(text.to_owned());
        }
    }

    /// Ends the last step.
    pub(crate) fn finish_step(&mut self) -> Result<(), Failure> {
        let Some(mut step) = self.current.take() else { return Ok(()) };
        step.duration_ms = milliseconds(self.begun.elapsed());
        if self.output.is_json() { self.output.object(&step) } else { Ok(()) }
    }

    /// Says good-bye.
    pub(crate) fn end(&mut self, whole: Duration) -> Result<(), Failure> {
        self.finish_step()?;
        if self.output.is_json() {
            return Ok(());
        }
        let palette = self.output.palette();
        self.output.line(&format!("\n    That was the bus, in {}.", duration_for_people(whole)))?;
        let next = [
            ("ipc-daemon", "start a daemon of your own"),
            ("ipc-cli serve demo.upper upper -- tr a-z A-Z", "offer a service with one command"),
            ("ipc-cli call demo.upper upper hello", "call it from anywhere"),
            ("ipc-cli --help", "see the rest"),
        ];
        for (command, meaning) in next {
            self.output.line(&format!(
                "    {} {}",
                palette.strong(&format!("{command:<46}")),
                palette.quiet(meaning)
            ))?;
        }
        Ok(())
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
