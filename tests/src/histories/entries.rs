//! What an entry of a work queue may do.

use super::Spec;

/// Something that was asked about an entry, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryOp {
    /// It was put.
    Put,
    /// It was to be put, and had been before.
    Duplicate,
    /// It was to be put, and nobody knows what came of that.
    Asked,
    /// It was delivered, with that token.
    Delivered(u64),
    /// Its queue had nothing to give.
    Nothing,
    /// It was acknowledged.
    Acked(u64),
    /// It was to be acknowledged or given back, and that delivery was over.
    Lost(u64),
    /// It was to be acknowledged, and nobody knows what came of that.
    AckAsked(u64),
    /// It was given back, or whoever worked on it has ended.
    GivenBack(u64),
    /// It was given back, or its taker has ended, unless that delivery was over before.
    MayBeGivenBack(u64),
    /// It may have been delivered to somebody who has not heard of it, from where it comes back some time.
    MayBeDelivered,
    /// The daemon ended, and forgot it, or, if it was durable, put it back.
    Restarted {
        /// Whether it was durable.
        is_durable: bool,
    },
    /// Everything is over: it is not there any more.
    Over,
}

/// Where the entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryState {
    /// It was not put so far.
    Absent,
    /// It waits.
    Ready,
    /// It is in the delivery with that token.
    Out(u64),
    /// It waits, or somebody who does not know it has it.
    Unheard,
    /// It is gone for good.
    Gone,
}

/// An entry with an id, of a queue in which deliveries are bound to their sessions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry;

impl Spec for Entry {
    type State = EntryState;
    type Op = EntryOp;

    fn begin(&self) -> EntryState {
        EntryState::Absent
    }

    fn step(&self, state: &EntryState, op: &EntryOp) -> Vec<EntryState> {
        use EntryState::{Absent, Gone, Out, Ready, Unheard};
        if *state == Unheard {
            if *op == EntryOp::Nothing {
                return vec![Unheard];
            }
            let is_over = matches!(op, EntryOp::Restarted { .. });
            let waits = self.step(&Ready, op).into_iter();
            return waits.map(|after| if after == Ready && !is_over { Unheard } else { after }).collect();
        }
        let is_out = |token: u64| *state == Out(token);
        match *op {
            EntryOp::Put if *state == Absent => vec![Ready],
            EntryOp::Duplicate if *state != Absent => vec![*state],
            EntryOp::Asked if *state == Absent => vec![Absent, Ready],
            EntryOp::Delivered(token) if *state == Ready => vec![Out(token)],
            EntryOp::Nothing if *state != Ready => vec![*state],
            EntryOp::Acked(token) if is_out(token) => vec![Gone],
            EntryOp::Lost(token) if !is_out(token) => vec![*state],
            EntryOp::AckAsked(token) if is_out(token) => vec![*state, Gone],
            EntryOp::GivenBack(token) if is_out(token) => vec![Ready],
            EntryOp::MayBeGivenBack(token) if is_out(token) => vec![Ready],
            EntryOp::Asked | EntryOp::AckAsked(_) | EntryOp::MayBeGivenBack(_) => vec![*state],
            EntryOp::MayBeDelivered if *state == Ready => vec![Ready, Unheard],
            EntryOp::MayBeDelivered => vec![*state],
            EntryOp::Restarted { is_durable: true } => match state {
                Out(_) | Unheard => vec![Ready],
                Absent | Ready | Gone => vec![*state],
            },
            // Ids are forgotten with everything else.
            EntryOp::Restarted { is_durable: false } => vec![Absent],
            EntryOp::Over if [Absent, Gone].contains(state) => vec![*state],
            EntryOp::Put
            | EntryOp::Duplicate
            | EntryOp::Delivered(_)
            | EntryOp::Nothing
            | EntryOp::Acked(_)
            | EntryOp::Lost(_)
            | EntryOp::GivenBack(_)
            | EntryOp::Over => Vec::new(),
        }
    }
}
