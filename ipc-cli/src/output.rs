//! SHELL. Standard output and standard error: data goes to the one, talk to the other.

use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use serde::Serialize;

use crate::args::{ColorWhen, Globals};
use crate::error::{self, Failure};
use crate::render::{Palette, Table};

/// Where a command writes, and how.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    /// Colour on standard output.
    palette: Palette,
    /// Colour on standard error.
    talk_palette: Palette,
    /// Columns of the terminal on standard output, if it is one.
    width: Option<u16>,
}

impl Output {
    /// As the options and the two streams have it.
    pub(crate) fn new(globals: &Globals) -> Self {
        Self {
            json: globals.json,
            quiet: globals.quiet,
            palette: Palette::new(wants_colour(globals.color, &io::stdout())),
            talk_palette: Palette::new(wants_colour(globals.color, &io::stderr())),
            width: terminal_width(),
        }
    }

    /// Before the options are understood: JSON or not, colour as the environment has it.
    pub(crate) fn before_options(json: bool) -> Self {
        let talk_palette = Palette::new(wants_colour(ColorWhen::Auto, &io::stderr()));
        Self { json, quiet: false, palette: Palette::new(false), talk_palette, width: None }
    }

    /// Whether the output is for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether talk is unwanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether people read standard output as it comes.
    pub(crate) fn is_terminal(&self) -> bool {
        self.width.is_some()
    }

    /// The colours of standard output.
    pub(crate) fn palette(&self) -> Palette {
        self.palette
    }

    /// The colours of standard error.
    pub(crate) fn talk_palette(&self) -> Palette {
        self.talk_palette
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// [`Failure::OutputClosed`] when nobody reads any more.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()?;
        Ok(())
    }

    /// Writes text as it is, line breaks included.
    ///
    /// # Errors
    /// [`Failure::OutputClosed`] when nobody reads any more.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// Writes one line.
    ///
    /// # Errors
    /// [`Failure::OutputClosed`] when nobody reads any more.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        self.text(&format!("{text}\n"))
    }

    /// Writes a value as one JSON object on one line.
    ///
    /// # Errors
    /// [`Failure::OutputClosed`] when nobody reads any more.
    pub(crate) fn object(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(io::Error::other)?;
        self.line(&text)
    }

    /// Writes a table, as wide as the terminal allows.
    ///
    /// # Errors
    /// [`Failure::OutputClosed`] when nobody reads any more.
    pub(crate) fn table(&self, table: &Table) -> Result<(), Failure> {
        self.text(&table.render(self.palette, self.width))
    }

    /// Says something to the people who watch. Programs are told nothing but errors.
    pub(crate) fn say(&self, text: &str) {
        if !self.json {
            self.announce(text);
        }
    }

    /// Says that something has begun that goes on, to whoever waits for it. Standard error may be gone: nobody is left to tell.
    pub(crate) fn announce(&self, text: &str) {
        if !self.quiet {
            // In one piece, for others write there too.
            let _nobody_listens = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
        }
    }

    /// Shows what is going on in a line that is overwritten by the next, on a terminal only. Empty text clears it.
    pub(crate) fn progress(&self, text: &str) {
        if !self.quiet && !self.json && io::stderr().is_terminal() {
            let mut stderr = io::stderr().lock();
            let _nobody_listens = write!(stderr, "\r\u{1b}[K{}", self.talk_palette.quiet(text));
            let _nobody_listens = stderr.flush();
        }
    }

    /// Reports an error, for people or for programs.
    pub(crate) fn error(&self, error: &ipc_core::Error) {
        let text =
            if self.json { error::to_json(error) + "\n" } else { error::to_text(error, self.talk_palette) };
        let _nobody_listens = io::stderr().lock().write_all(text.as_bytes());
    }
}

fn wants_colour(when: ColorWhen, stream: &impl anstream::stream::RawStream) -> bool {
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        ColorWhen::Auto => !matches!(AutoStream::choice(stream), ColorChoice::Never | ColorChoice::Auto),
    }
}

/// The columns of the terminal on standard output; a terminal that does not say has 80.
fn terminal_width() -> Option<u16> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(stdout).map_or(0, |size| size.ws_col);
    Some(if columns == 0 { 80 } else { columns.max(40) })
}
