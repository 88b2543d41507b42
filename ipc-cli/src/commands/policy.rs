//! `policy explain WHO ACTION WHAT`: which rule decides.

use serde_json::Value;

use super::rows::{number, text};
use crate::args::{ExplainArgs, Globals, PolicyArgs, PolicyDo};
use crate::bus;
use crate::error::Failure;
use crate::output::Output;

/// Asks the daemon about its policy.
pub(crate) async fn run(args: &PolicyArgs, globals: &Globals, output: &Output) -> Result<(), Failure> {
    let PolicyDo::Explain(ExplainArgs { who, action, what }) = &args.action;
    let decision = bus::ask_daemon(globals, "policy-explain", &format!("{who} {action} {what}")).await?;
    if output.is_json() {
        return output.object(&decision);
    }
    let is_allowed = decision.get("allowed").and_then(Value::as_bool).unwrap_or(false);
    output.line(&format!(
        "{}: {}",
        if is_allowed { "allowed" } else { "denied" },
        text(&decision, "reason")
    ))?;
    let rule = text(&decision, "rule");
    match number(&decision, "line") {
        Some(line) => output.line(&format!("line {line}: {rule}")),
        None if !rule.is_empty() => output.line(&rule),
        None => Ok(()),
    }
}
