//! What a key may do.

use super::Spec;

/// What a put or a delete was bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Any,
    /// The key was not to exist.
    Absent,
    /// Its last change was to have this revision.
    Revision(u64),
}

/// Something that was asked of a key, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOp {
    /// It was put.
    Put {
        /// The value.
        value: u64,
        /// What it was bound to.
        condition: Condition,
        /// The revision; `Err(true)` when the condition did not hold, `Err(false)` when nobody knows.
        outcome: Result<u64, bool>,
    },
    /// It was deleted.
    Delete {
        /// The revision; `Err(true)` when it did not exist, `Err(false)` when nobody knows.
        outcome: Result<u64, bool>,
    },
    /// It was got: revision and value, if it existed.
    Get(Option<(u64, u64)>),
    /// The daemon ended, and has forgotten it.
    Forgotten,
}

/// Revision and value of the key; the revision is `None` when nobody was told it.
pub type KeyState = Option<(Option<u64>, u64)>;

/// A key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Key;

impl Spec for Key {
    type State = KeyState;
    type Op = KeyOp;

    fn begin(&self) -> KeyState {
        None
    }

    fn step(&self, state: &KeyState, op: &KeyOp) -> Vec<KeyState> {
        match op {
            KeyOp::Put { value, condition, outcome } => {
                let holds = match condition {
                    Condition::Any => vec![true],
                    Condition::Absent => vec![state.is_none()],
                    Condition::Revision(wanted) => match state {
                        None => vec![false],
                        Some((Some(revision), _)) => vec![revision == wanted],
                        Some((None, _)) => vec![true, false],
                    },
                };
                let could = |wanted| holds.contains(&wanted);
                match outcome {
                    Ok(revision) if could(true) && grows(state, *revision) => {
                        vec![Some((Some(*revision), *value))]
                    }
                    Ok(_) => Vec::new(),
                    Err(true) => {
                        if could(false) {
                            vec![*state]
                        } else {
                            Vec::new()
                        }
                    }
                    Err(false) if could(true) => vec![*state, Some((None, *value))],
                    Err(false) => vec![*state],
                }
            }
            KeyOp::Delete { outcome } => match outcome {
                Ok(revision) if state.is_some() && grows(state, *revision) => vec![None],
                Err(true) if state.is_none() => vec![None],
                Ok(_) | Err(true) => Vec::new(),
                Err(false) => vec![*state, None],
            },
            KeyOp::Get(found) => match (state, found) {
                (None, None) => vec![None],
                (Some((known, value)), Some((revision, got))) => {
                    let fits = value == got && known.is_none_or(|known| known == *revision);
                    if fits { vec![Some((Some(*revision), *value))] } else { Vec::new() }
                }
                (None, Some(_)) | (Some(_), None) => Vec::new(),
            },
            KeyOp::Forgotten => vec![None],
        }
    }
}

/// Revisions grow.
fn grows(state: &KeyState, revision: u64) -> bool {
    state.is_none_or(|(known, _)| known.is_none_or(|known| known < revision))
}
