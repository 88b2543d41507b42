//! PURE. Whether what several processes saw could have happened one after the other.
//!
//! A history is a list of operations, each with the time at which it was asked for and the time at which its outcome was
//! there. It is linearizable when there is an order of the operations in which each could have had its outcome, and in which
//! none stands before one that had ended before it began (Herlihy and Wing, 1990). The search is that of Wing and Gong
//! with what Lowe added: what has been done in whichever order, and led to the same state, is not searched twice.
//!
//! Objects that have nothing to do with one another are checked one by one: a history is linearizable if each part is.
//!
//! | file | noun |
//! |---|---|
//! | `keys`, `locks`, `entries` | what a key, a lock, an entry of a work queue may do |
//! | `record` | what a process writes down of what it does, and how that is read |
//! | `gather` | from what all have written down to the histories of single objects |

pub mod entries;
pub mod gather;
pub mod keys;
pub mod locks;
pub mod record;

use std::collections::HashSet;
use std::fmt::{self, Debug};
use std::hash::Hash;

/// What an object may do.
pub trait Spec {
    /// How it stands.
    type State: Clone + Eq + Hash + Debug;
    /// What is asked of it, with the outcome.
    type Op: Debug;

    /// How it stands at first.
    fn begin(&self) -> Self::State;

    /// How it can stand after that had that outcome; nothing if it cannot have had it. An operation whose outcome nobody
    /// knows may also have done nothing.
    fn step(&self, state: &Self::State, op: &Self::Op) -> Vec<Self::State>;
}

/// One operation of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<Op> {
    /// What was asked for, and what came of it.
    pub op: Op,
    /// It did not happen before.
    pub invoked: u64,
    /// It did not happen after.
    pub returned: u64,
}

/// A history that could not have been.
#[derive(Debug)]
pub struct Violation {
    /// How far the search came, for people.
    pub story: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.story)
    }
}

/// Which operations have been put in order: all before `first`, and these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Done {
    first: usize,
    beyond: Vec<usize>,
}

impl Done {
    fn has(&self, at: usize) -> bool {
        at < self.first || self.beyond.binary_search(&at).is_ok()
    }

    fn with(&self, at: usize) -> Self {
        let mut next = self.clone();
        if let Err(place) = next.beyond.binary_search(&at) {
            next.beyond.insert(place, at);
        }
        let settled =
            next.beyond.iter().enumerate().take_while(|(index, at)| next.first + index == **at).count();
        next.first += settled;
        next.beyond.drain(..settled);
        next
    }

    fn len(&self) -> usize {
        self.first + self.beyond.len()
    }
}

/// Finds an order in which everything could have happened.
///
/// # Errors
/// When there is none: how far one comes.
///
/// # Panics
/// When that is not found out within `steps_max` steps: the history is too wide for this search.
pub fn check<S: Spec>(spec: &S, history: &[Event<S::Op>], steps_max: usize) -> Result<(), Violation> {
    let mut order: Vec<&Event<S::Op>> = history.iter().collect();
    order.sort_by_key(|event| (event.invoked, event.returned));
    let mut seen = HashSet::new();
    let mut open = vec![(Done::default(), spec.begin())];
    let mut furthest = (Done::default(), spec.begin());
    for _ in 0..steps_max {
        let Some((done, state)) = open.pop() else { return Err(violation::<S>(&order, &furthest)) };
        if done.len() == order.len() {
            return Ok(());
        }
        // The last ones pushed are tried first: those that had ended first.
        let mut next = candidates(&order, &done);
        next.sort_by_key(|at| core::cmp::Reverse(order[*at].returned));
        for at in next {
            for after in spec.step(&state, &order[at].op) {
                let node = (done.with(at), after);
                if !seen.contains(&node) {
                    seen.insert(node.clone());
                    if node.0.len() > furthest.0.len() {
                        furthest = node.clone();
                    }
                    open.push(node);
                }
            }
        }
    }
    panic!("no verdict on {} operations after {steps_max} steps", history.len());
}

/// Those that may come next: not one that began when another that is not done had ended.
fn candidates<Op>(order: &[&Event<Op>], done: &Done) -> Vec<usize> {
    let mut ended = u64::MAX;
    let mut found = Vec::new();
    for (at, event) in order.iter().enumerate().skip(done.first) {
        if event.invoked > ended {
            break;
        }
        if !done.has(at) {
            ended = ended.min(event.returned);
            found.push(at);
        }
    }
    found.retain(|at| order[*at].invoked <= ended);
    found
}

fn violation<S: Spec>(order: &[&Event<S::Op>], furthest: &(Done, S::State)) -> Violation {
    let (done, state) = furthest;
    let next = candidates(order, done);
    let line = |at: &usize| format!("  {:?}", order[*at]);
    let first = next.iter().min().copied().unwrap_or(order.len());
    let before: Vec<usize> = (first.saturating_sub(12)..first).collect();
    let lines = |which: &[usize]| which.iter().map(line).collect::<Vec<_>>().join("\n");
    let story = format!(
        "{} of {} operations can be put in order; then it is {state:?}, after\n{}\nand none of these can come next:\n{}",
        done.len(),
        order.len(),
        lines(&before),
        lines(&next)
    );
    Violation { story }
}

#[cfg(test)]
mod tests;
