//! Circles of sessions that wait for one another.

use std::collections::BTreeSet;

use crate::broker::keys::PeerKey;

/// One thread of control of a session, as the session numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Party {
    pub(super) peer: PeerKey,
    pub(super) owner: u64,
}

/// The circle through `start`, if `start` now waits for `first`: each waits for the one behind it, and the last for `start`.
/// `waits_for` says for whom a party waits. A circle within one session is not looked for: it has to sort that out itself.
pub(super) fn circle(
    start: Party,
    first: &[Party],
    waits_for: impl Fn(Party) -> Vec<Party>,
) -> Option<Vec<Party>> {
    let mut search = Search { start, seen: BTreeSet::new(), path: Vec::new() };
    search.enter(first, false);
    while let Some(level) = search.path.last() {
        match level.last().copied() {
            Some(Step { party, is_foreign: true }) if party == start => return Some(search.circle()),
            Some(step) if step.party.owner != 0 && search.seen.insert(step) => {
                search.enter(&waits_for(step.party), step.is_foreign);
            }
            Some(_) => search.done_with_last(),
            None => {
                search.path.pop();
                search.done_with_last();
            }
        }
    }
    None
}

/// A party on the way, and whether the way has led through another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    party: Party,
    is_foreign: bool,
}

/// A search in depth.
struct Search {
    start: Party,
    seen: BTreeSet<Step>,
    /// Each level holds who is still to be looked at; the last of them is being looked at.
    path: Vec<Vec<Step>>,
}

impl Search {
    fn enter(&mut self, parties: &[Party], is_foreign: bool) {
        let step =
            |party: &Party| Step { party: *party, is_foreign: is_foreign || party.peer != self.start.peer };
        let level = parties.iter().map(step).collect();
        self.path.push(level);
    }

    /// The last of the last level has been looked at.
    fn done_with_last(&mut self) {
        if let Some(level) = self.path.last_mut() {
            level.pop();
        }
    }

    /// The way from the start back to it.
    fn circle(&self) -> Vec<Party> {
        let mut way: Vec<Party> =
            self.path.iter().filter_map(|level| level.last().map(|step| step.party)).collect();
        way.pop();
        let from = way.iter().rposition(|party| *party == self.start).map_or(0, |at| at + 1);
        core::iter::once(self.start).chain(way.into_iter().skip(from)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    #[test]
    fn circles_are_found_and_chains_are_not() {
        let mut keys = SlotMap::<PeerKey, ()>::with_key();
        let parties: Vec<Party> = (0..5).map(|_| Party { peer: keys.insert(()), owner: 1 }).collect();
        let p = |at: usize| parties[at];
        // 1 waits for 2, 2 for 3 and 4, 3 for nobody, 4 for 0.
        let edges = [vec![], vec![2], vec![3, 4], vec![], vec![0]];
        let waits_for = |party: Party| {
            let at = parties.iter().position(|other| *other == party).unwrap();
            edges[at].iter().map(|at| p(*at)).collect::<Vec<_>>()
        };
        assert_eq!(circle(p(0), &[p(1)], waits_for), Some(vec![p(0), p(1), p(2), p(4)]));
        assert_eq!(circle(p(0), &[p(3)], waits_for), None);
        assert_eq!(circle(p(3), &[p(1)], waits_for), Some(vec![p(3), p(1), p(2)]));
        assert_eq!(circle(p(2), &[p(3)], waits_for), None);
        assert_eq!(circle(p(0), &[], waits_for), None);
        // Around and around without the one who asks.
        assert_eq!(circle(p(0), &[p(1)], |party| vec![if party == p(1) { p(2) } else { p(1) }]), None);
    }

    #[test]
    fn a_way_through_its_own_session_hides_no_circle() {
        let mut keys = SlotMap::<PeerKey, ()>::with_key();
        let (a, b) = (keys.insert(()), keys.insert(()));
        let (start, own, other) =
            (Party { peer: a, owner: 1 }, Party { peer: a, owner: 2 }, Party { peer: b, owner: 1 });
        let waits_for = |party: Party| if party == own { vec![start] } else { vec![own] };
        for first in [[own, other], [other, own]] {
            assert_eq!(circle(start, &first, waits_for), Some(vec![start, other, own]), "{first:?}");
        }
        // It waits at the same place already, behind the other.
        let waits_for = |party: Party| if party == start { vec![other] } else { vec![start] };
        assert_eq!(circle(start, &[start], waits_for), Some(vec![start, other]));
    }

    #[test]
    fn one_session_alone_and_nobody_in_particular_are_no_circle() {
        let mut keys = SlotMap::<PeerKey, ()>::with_key();
        let (a, b) = (keys.insert(()), keys.insert(()));
        let party = |peer, owner| Party { peer, owner };
        let (one, two) = (party(a, 1), party(a, 2));
        assert_eq!(circle(one, &[one], |_| vec![]), None);
        assert_eq!(circle(one, &[two], |_| vec![one]), None);
        assert_eq!(circle(one, &[party(b, 0)], |_| vec![one]), None);
        assert_eq!(circle(one, &[party(b, 7)], |_| vec![one]), Some(vec![one, party(b, 7)]));
    }
}
