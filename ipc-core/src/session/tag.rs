//! Whose key a correlation is.

use super::slab::Key;

/// Whose key a correlation is: the two highest bits, which no key uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Request,
    Subscription,
    Watch,
    Registration,
}

const TAG_SHIFT: u32 = 62;

impl Tag {
    /// A key as a correlation.
    pub(super) const fn on(self, key: Key) -> u64 {
        key.bits() | (self as u64) << TAG_SHIFT
    }

    /// A correlation as a key.
    pub(super) fn split(correlation: u64) -> (Tag, Key) {
        let tag = match correlation >> TAG_SHIFT {
            0 => Tag::Request,
            1 => Tag::Subscription,
            2 => Tag::Watch,
            _ => Tag::Registration,
        };
        (tag, Key::from_bits(correlation & (u64::MAX >> 2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tagged_key_comes_back() {
        let key = Key::from_bits(5 | 9 << 32);
        for tag in [Tag::Request, Tag::Subscription, Tag::Watch, Tag::Registration] {
            assert_eq!(Tag::split(tag.on(key)), (tag, key));
        }
    }
}
