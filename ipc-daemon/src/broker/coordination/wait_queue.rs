//! Who waits, in the order of asking.

use std::collections::VecDeque;

/// A place in a queue; a later one is a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

/// A fair queue. The first is taken in constant time, one in the middle leaves in logarithmic time, and whoever has left takes
/// no room for long.
#[derive(Debug)]
pub(super) struct WaitQueue<T> {
    /// In order of their place; those who have left are `None`.
    entries: VecDeque<(Place, Option<T>)>,
    waiting: usize,
    next: u64,
}

impl<T> Default for WaitQueue<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), waiting: 0, next: 0 }
    }
}

impl<T: Copy> WaitQueue<T> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// The last place is taken by this one.
    pub(super) fn push(&mut self, waiter: T) -> Place {
        let place = Place(self.next);
        self.next += 1;
        self.entries.push_back((place, Some(waiter)));
        self.waiting += 1;
        place
    }

    /// Who is first.
    pub(super) fn first(&self) -> Option<T> {
        // The front is never one who has left.
        self.entries.front().and_then(|(_, waiter)| *waiter)
    }

    /// Who stands before that place, or at all, the nearest first.
    pub(super) fn ahead(&self, place: Option<Place>) -> impl Iterator<Item = T> {
        let at = place
            .map_or(self.entries.len(), |place| self.entries.partition_point(|(other, _)| *other < place));
        self.entries.iter().take(at).rev().filter_map(|(_, waiter)| *waiter)
    }

    /// Whoever stands at that place leaves.
    pub(super) fn remove(&mut self, place: Place) -> Option<T> {
        let at = self.entries.binary_search_by_key(&place, |(other, _)| *other).ok()?;
        let left = self.entries.get_mut(at)?.1.take()?;
        self.waiting -= 1;
        while let Some((_, None)) = self.entries.front() {
            self.entries.pop_front();
        }
        if self.entries.len() > 2 * self.waiting + 16 {
            self.entries.retain(|(_, waiter)| waiter.is_some());
        }
        Some(left)
    }

    /// All who wait, the first one first.
    pub(super) fn iter(&self) -> impl Iterator<Item = T> {
        self.entries.iter().filter_map(|(_, waiter)| *waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The obvious queue.
    #[derive(Default)]
    struct Plain(Vec<(Place, u32)>);

    #[test]
    fn it_is_the_obvious_queue() {
        let (mut queue, mut plain) = (WaitQueue::default(), Plain::default());
        let mut state = 88172645463325252u64;
        for number in 0..20_000u32 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = if plain.0.is_empty() { 0 } else { (state >> 8) as usize % plain.0.len() };
            match state % 5 {
                0 | 1 => {
                    let place = queue.push(number);
                    plain.0.push((place, number));
                }
                2 if !plain.0.is_empty() => {
                    let (place, waiter) = plain.0.remove(at);
                    assert_eq!(queue.remove(place), Some(waiter));
                    assert_eq!(queue.remove(place), None);
                }
                3 if !plain.0.is_empty() => {
                    let (place, waiter) = plain.0.remove(0);
                    assert_eq!((queue.first(), queue.remove(place)), (Some(waiter), Some(waiter)));
                }
                _ => {}
            }
            if let Some((place, _)) = plain.0.get(at) {
                let ahead = plain.0.iter().take(at).rev().map(|(_, waiter)| *waiter);
                assert!(queue.ahead(Some(*place)).eq(ahead));
            }
            assert_eq!((queue.len(), queue.is_empty()), (plain.0.len(), plain.0.is_empty()));
            assert!(queue.ahead(None).eq(plain.0.iter().rev().map(|(_, waiter)| *waiter)));
            assert!(queue.iter().eq(plain.0.iter().map(|(_, waiter)| *waiter)));
            assert!(queue.entries.len() <= 2 * plain.0.len() + 17, "who has left takes room");
        }
    }
}
