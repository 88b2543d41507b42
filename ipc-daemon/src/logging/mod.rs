//! SHELL. Log lines, to the standard error: [`sink`] writes them, [`rate`] bounds those that peers can cause.

pub(crate) mod rate;
mod sink;

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt, reload};

use crate::args::{LogFormat, LogLevel};
use crate::config::Log;
use crate::failure::Failure;
use crate::store;
use sink::Sink;

/// How log lines are written, once it has been decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Text { is_coloured: bool },
    Json,
}

/// Which lines this process writes, to be changed while it runs.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts logging. To be called once.
///
/// # Errors
/// 74 when the thread that writes cannot be started.
pub(crate) fn start(log: Log) -> Result<(), Failure> {
    let sink = Sink::to_standard_error()
        .map_err(|error| Failure::io("start the thread that writes the log", error))?;
    let (level, handle) = reload::Layer::new(level_filter(log.level));
    LEVEL.get_or_init(|| handle);
    let lines = fmt::layer().with_writer(sink).with_target(false);
    let registry = tracing_subscriber::registry();
    match style(log.format, std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").is_some()) {
        Style::Text { is_coloured } => registry.with(lines.with_ansi(is_coloured).with_filter(level)).init(),
        Style::Json => registry.with(lines.json().flatten_event(true).with_filter(level)).init(),
    }
    Ok(())
}

/// Writes the lines of another level from here on. Before [`start`] it does nothing.
pub(crate) fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        // It fails only when the log has ended, and then nothing is written anyway.
        let _: Result<(), reload::Error> = handle.reload(level_filter(level));
    }
}

/// Sees to it that what was logged is written before the process ends.
pub(crate) fn finish() {
    sink::flush();
}

fn style(format: LogFormat, is_terminal: bool, no_colour: bool) -> Style {
    let text = Style::Text { is_coloured: is_terminal && !no_colour };
    match (format, is_terminal) {
        (LogFormat::Text, _) | (LogFormat::Auto, true) => text,
        (LogFormat::Json, _) | (LogFormat::Auto, false) => Style::Json,
    }
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Says why the daemon ends, to people: it has perhaps not come as far as to log.
pub(crate) fn report(failure: &Failure) {
    if tracing::dispatcher::has_been_set() {
        tracing::error!(hint = failure.hint, "{}", failure.message);
    } else {
        eprintln!("ipc-daemon: {failure}");
    }
}

/// Makes a panic the end of the process. What has panicked may be the broker, whose state is then not to be trusted: no
/// task may swallow that and go on. The thread of the store is another matter: a damaged file can bring it to that, and then
/// it is the store alone that is not to be trusted.
pub(crate) fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() == Some(store::THREAD_NAME) {
            tracing::error!("the thread of the store has ended: {panic}");
            return;
        }
        sink::flush();
        report(panic);
        eprintln!(
            "ipc-daemon: this is a defect of the daemon; it ends here, because its state is not to be trusted"
        );
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_is_text_on_a_terminal_and_json_elsewhere() {
        for (format, is_terminal, no_colour, expected) in [
            (LogFormat::Auto, true, false, Style::Text { is_coloured: true }),
            (LogFormat::Auto, true, true, Style::Text { is_coloured: false }),
            (LogFormat::Auto, false, false, Style::Json),
            (LogFormat::Text, false, false, Style::Text { is_coloured: false }),
            (LogFormat::Json, true, false, Style::Json),
        ] {
            assert_eq!(style(format, is_terminal, no_colour), expected, "{format:?} {is_terminal}");
        }
    }
}
