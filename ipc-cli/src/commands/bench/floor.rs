//! Runs the floor programs.

use core::time::Duration;
use std::path::PathBuf;
use std::process::Stdio;

use ipc_core::{Error, ErrorCode};
use tokio::process::Command;
use tokio::time::timeout;

use super::cases::Case;
use super::figures::Figures;
use crate::private::find_program;

/// How long a floor may take beyond the measurement itself.
const OVERHEAD: Duration = Duration::from_secs(30);

/// The floor program.
#[derive(Debug)]
pub(crate) struct Floor {
    program: PathBuf,
}

impl Floor {
    /// Looks for it beside this program, then in `$PATH`.
    ///
    /// # Errors
    /// `unreachable` when it is in neither place.
    pub(crate) fn find() -> Result<Self, Error> {
        find_program("ipc-floor").map(|program| Self { program })
    }

    /// Measures the floor of a case once.
    ///
    /// # Errors
    /// `io` when the program fails, takes too long or says something else than figures.
    pub(crate) async fn measure(
        &self,
        case: &Case,
        pin: Option<usize>,
        time: Duration,
    ) -> Result<Figures, Error> {
        let mut command = Command::new(&self.program);
        command.args(case.floor).arg("--seconds").arg(format!("{:.3}", time.as_secs_f64()));
        if let Some(cpu) = pin {
            command.arg("--pin").arg(cpu.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let failed = |why: String| {
            Error::new(ErrorCode::Io, format!("{} {}: {why}", self.program.display(), case.floor.join(" ")))
        };
        let output = timeout(time * 2 + OVERHEAD, command.output())
            .await
            .map_err(|_| failed("did not end in time".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| failed(format!("no figures: {error}")))
    }
}
