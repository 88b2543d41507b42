//! The tokens of locks that nobody has to do with any more, so that older ones are known to be stale.

use std::collections::BTreeMap;

use ipc_core::name::ResourceName;

/// The last token of each lock, for as many as there is room for; the oldest go first, and count as unknown.
#[derive(Debug, Default)]
pub(super) struct Fences {
    by_name: BTreeMap<ResourceName, u64>,
    by_token: BTreeMap<u64, ResourceName>,
}

impl Fences {
    pub(super) fn get(&self, lock: &ResourceName) -> Option<u64> {
        self.by_name.get(lock).copied()
    }

    /// The lock is in use again, and remembers its token itself.
    pub(super) fn take(&mut self, lock: &ResourceName) -> Option<u64> {
        let token = self.by_name.remove(lock)?;
        self.by_token.remove(&token);
        Some(token)
    }

    /// Nobody has to do with the lock any more.
    pub(super) fn keep(&mut self, lock: ResourceName, token: u64, max: usize) {
        self.by_token.insert(token, lock.clone());
        self.by_name.insert(lock, token);
        while self.by_name.len() > max {
            let Some((_, oldest)) = self.by_token.pop_first() else { return };
            self.by_name.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let name = |text| ResourceName::parse(text).unwrap();
        let mut fences = Fences::default();
        for (at, text) in ["a", "b", "c"].into_iter().enumerate() {
            fences.keep(name(text), at as u64 + 1, 2);
        }
        assert_eq!(
            (fences.get(&name("a")), fences.get(&name("b")), fences.get(&name("c"))),
            (None, Some(2), Some(3))
        );
        assert_eq!((fences.take(&name("b")), fences.take(&name("b"))), (Some(2), None));
        fences.keep(name("a"), 9, 2);
        assert_eq!(fences.by_name.len(), fences.by_token.len());
        assert_eq!(fences.get(&name("c")), Some(3));
    }
}
