//! What an exclusive lock may do.

use super::Spec;

/// Something that was asked of a lock, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockOp {
    /// It was granted, with that token.
    Granted(u64),
    /// It was not to be had.
    Busy,
    /// It was asked for, and nobody knows what came of it.
    Asked,
    /// It was given back.
    Released(u64),
    /// It was to be given back, and was lost before.
    Lost(u64),
    /// Its holder ended, or nobody knows what became of giving it back: it is free from then on, if it was not before.
    Ended(u64),
    /// The daemon ended, and with it whatever was held.
    Forgotten,
}

/// Who holds it, and the last token that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockState {
    holder: Holder,
    last: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Nobody,
    Token(u64),
    /// Somebody whose request has no outcome.
    Somebody,
}

/// An exclusive lock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lock;

impl Spec for Lock {
    type State = LockState;
    type Op = LockOp;

    fn begin(&self) -> LockState {
        LockState { holder: Holder::Nobody, last: 0 }
    }

    fn step(&self, state: &LockState, op: &LockOp) -> Vec<LockState> {
        let free = LockState { holder: Holder::Nobody, ..*state };
        // Whoever got it without an outcome is not there any more, and it became free at some time.
        let is_free = state.holder == Holder::Nobody || state.holder == Holder::Somebody;
        match *op {
            LockOp::Granted(token) if is_free && token > state.last => {
                vec![LockState { holder: Holder::Token(token), last: token }]
            }
            LockOp::Busy if state.holder != Holder::Nobody => vec![*state],
            LockOp::Asked if is_free => vec![*state, LockState { holder: Holder::Somebody, ..*state }],
            LockOp::Asked => vec![*state],
            LockOp::Released(token) if state.holder == Holder::Token(token) => vec![free],
            LockOp::Lost(token) if state.holder != Holder::Token(token) => vec![*state],
            LockOp::Ended(token) if state.holder == Holder::Token(token) => vec![free],
            LockOp::Ended(_) => vec![*state],
            LockOp::Forgotten => vec![free],
            LockOp::Granted(_) | LockOp::Busy | LockOp::Released(_) | LockOp::Lost(_) => Vec::new(),
        }
    }
}
