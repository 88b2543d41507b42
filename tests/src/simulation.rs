//! Runs simulated worlds, many at a time, and makes the story of one that failed short.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ipc_core::limits::Limits;

use crate::generator::{Generator, Step, small_limits};
use crate::rng::{Rng, SEED_VARIABLE, seeds};
use crate::world::{Coverage, World};

/// Steps at the end of the story of a failure that are printed.
const TAIL: usize = 40;
/// Time spent on making the story of a failure shorter.
const SHRINK_TIME: Duration = Duration::from_secs(20);

/// A run that failed.
#[derive(Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What is wrong.
    pub reason: String,
    /// The steps that led there, the last one among them.
    pub steps: Vec<Step>,
}

/// The world of a seed and its generator. In one world out of four everything has its usual bounds, and in one out of four
/// nothing is kept.
fn set_out(seed: u64, steps: usize) -> (World, Generator) {
    let mut rng = Rng::new(seed);
    let limits = if rng.chance(1, 4) { Limits::default() } else { small_limits(&mut rng) };
    let world = World::new(limits, rng.chance(3, 4));
    (world, Generator::new(rng.fork(), steps))
}

/// Runs the world of one seed for that many steps, and then until everything is quiet.
///
/// # Errors
/// What went wrong, and how it came to it.
pub fn run(seed: u64, steps: usize) -> Result<Coverage, Failure> {
    let (mut world, mut generator) = set_out(seed, steps);
    let mut taken = Vec::with_capacity(steps);
    for _ in 0..steps {
        let step = generator.next(&world);
        taken.push(step.clone());
        if let Err(reason) = guarded(|| world.step(&step)) {
            return Err(Failure { seed, reason, steps: taken });
        }
    }
    match guarded(|| world.wind_down(&mut Rng::new(seed))) {
        Ok(()) => Ok(world.coverage),
        Err(reason) => Err(Failure { seed, reason, steps: taken }),
    }
}

/// A panic is a failure like any other: its steps are wanted too.
fn guarded(act: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    // The world is not looked at again after a panic.
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err("it panicked".to_owned()))
}

/// Plays steps again. Says what is wrong, if it is.
fn replay(seed: u64, steps: &[Step]) -> Option<String> {
    let (mut world, _) = set_out(seed, steps.len());
    for step in steps {
        if let Err(reason) = guarded(|| world.step(step)) {
            return Some(reason);
        }
    }
    guarded(|| world.wind_down(&mut Rng::new(seed))).err()
}

/// Leaves out steps as long as something still goes wrong.
pub fn shrink(failure: &Failure) -> Failure {
    let mut best =
        Failure { seed: failure.seed, reason: failure.reason.clone(), steps: failure.steps.clone() };
    let started = Instant::now();
    let mut chunk = best.steps.len() / 2;
    while chunk > 0 && started.elapsed() < SHRINK_TIME {
        let mut at = 0;
        while at < best.steps.len() && started.elapsed() < SHRINK_TIME {
            let mut fewer = best.steps.clone();
            fewer.drain(at..(at + chunk).min(best.steps.len()));
            match replay(failure.seed, &fewer) {
                Some(reason) => {
                    best.steps = fewer;
                    best.reason = reason;
                }
                None => at += chunk,
            }
        }
        chunk /= 2;
    }
    best
}

impl Failure {
    /// The failure as a report: what, with which seed, after which steps, and how to see it again.
    pub fn report(&self) -> String {
        // Each try would print its panic.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let short = shrink(self);
        std::panic::set_hook(hook);
        let tail = short.steps.len().saturating_sub(TAIL);
        let mut text = format!(
            "seed {0} failed at step {1}: {2}\nrepeat it with {SEED_VARIABLE}={0}\n",
            self.seed,
            self.steps.len(),
            self.reason
        );
        text += &format!("{} of these steps are enough for: {}\n", short.steps.len(), short.reason);
        for (number, step) in short.steps.iter().enumerate().skip(tail) {
            text += &format!("{number:>5}  client {} {:?}\n", step.slot, step.action);
        }
        text
    }
}

/// Runs all seeds of a test on as many threads as there are processors, and sums up what occurred.
///
/// # Panics
/// When one fails, with its report.
pub fn run_all(ordinary: u64, long: u64, steps: usize) -> Coverage {
    let range = seeds(ordinary, long);
    let next = AtomicU64::new(range.start);
    let has_failed = AtomicBool::new(false);
    let results: Mutex<(Coverage, Option<Failure>)> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Coverage::default();
                while !has_failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end {
                        break;
                    }
                    match run(seed, steps) {
                        Ok(coverage) => own.merge(&coverage),
                        Err(failure) => {
                            has_failed.store(true, Ordering::Relaxed);
                            if let Ok(mut results) = results.lock() {
                                results.1 = Some(failure);
                            }
                        }
                    }
                }
                if let Ok(mut results) = results.lock() {
                    results.0.merge(&own);
                }
            });
        }
    });
    let (coverage, failure) = results.into_inner().unwrap_or_default();
    if let Some(failure) = failure {
        panic!("{}", failure.report());
    }
    coverage
}
