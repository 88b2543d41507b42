//! The words for what can be done.

use core::fmt;

/// What is done with something, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Own,
    Resolve,
    Call,
    Publish,
    Subscribe,
    Monitor,
    Administer,
    Coordinate,
}

impl Verb {
    const ALL: [Verb; 8] = [
        Verb::Own,
        Verb::Resolve,
        Verb::Call,
        Verb::Publish,
        Verb::Subscribe,
        Verb::Monitor,
        Verb::Administer,
        Verb::Coordinate,
    ];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Verb::Own => "own",
            Verb::Resolve => "resolve",
            Verb::Call => "call",
            Verb::Publish => "publish",
            Verb::Subscribe => "subscribe",
            Verb::Monitor => "monitor",
            Verb::Administer => "administer",
            Verb::Coordinate => "coordinate",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.word() == word)
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Several of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Verbs(u16);

impl Verbs {
    const EVERY: Verbs = Verbs(u16::MAX);
    /// What can be granted to a peer that has proved nothing.
    pub(super) const ANONYMOUS: Verbs =
        Verbs(Verb::Resolve.bit() | Verb::Call.bit() | Verb::Publish.bit() | Verb::Subscribe.bit());

    /// Reads `VERB[,VERB]...`, or `*` for every one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::EVERY);
        }
        text.split(',').try_fold(Self(0), |verbs, word| Some(Self(verbs.0 | Verb::parse(word)?.bit())))
    }

    pub(super) fn has(self, verb: Verb) -> bool {
        self.0 & verb.bit() != 0
    }

    /// Whether it is this verb and no other.
    pub(super) fn is_only(self, verb: Verb) -> bool {
        self.0 == verb.bit()
    }

    pub(super) fn is_every(self) -> bool {
        self == Self::EVERY
    }

    /// Whether none is outside of `others`.
    pub(super) fn are_among(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }
}

impl fmt::Display for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_every() {
            return f.write_str("*");
        }
        for (at, verb) in Verb::ALL.into_iter().filter(|verb| self.has(*verb)).enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            f.write_str(verb.word())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
