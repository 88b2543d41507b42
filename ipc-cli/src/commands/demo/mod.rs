//! `demo`: the bus at work, in a few seconds, with real separate processes.

mod narrator;
mod network;
mod plain;
mod scenes;
pub(crate) mod service;
mod stage;

use std::time::Instant;

use crate::error::Failure;
use crate::interrupt::{Interrupts, unless_interrupted};
use crate::output::Output;
use narrator::Narrator;

/// Plays the demo and removes everything after, also when it is interrupted or fails in the middle.
pub(crate) async fn run(output: &Output, mut interrupts: Interrupts) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut narrator = Narrator::new(output);
    let stage = unless_interrupted(&mut interrupts, scenes::daemon(&mut narrator)).await?;
    let played = unless_interrupted(&mut interrupts, scenes::play(&stage, &mut narrator)).await;
    if let Err(failure) = played {
        narrator.fail(&failure.to_string());
        // The first failure is the one to report; the directory goes in any case.
        let _second = stage.clear().await;
        narrator.finish_step()?;
        return Err(failure);
    }
    scenes::curtain(stage, &mut narrator).await?;
    narrator.end(begun.elapsed())
}
