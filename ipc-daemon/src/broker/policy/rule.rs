//! One rule: `allow WHO ACTION[,ACTION]... WHAT` or `deny WHO ACTION[,ACTION]... WHAT`.

use core::fmt;

use ipc_core::{Error, ErrorCode};

use super::Action;
use super::grant::Grant;
use super::who::{Directory, Subject, Who};

/// What a rule that applies leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// A rule of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As it was written.
    text: String,
    /// Where, counted from 1; 0 for a rule that the daemon brings itself.
    line: u32,
    pub(super) effect: Effect,
    pub(super) who: Who,
    grant: Grant,
}

impl Rule {
    /// Reads a rule that stands in that line of the configuration. Names of users and groups are looked up here and
    /// nowhere else.
    ///
    /// # Errors
    /// `invalid_argument`; the hint says what to write.
    pub fn parse(text: &str, line: u32, directory: &dyn Directory) -> Result<Self, Error> {
        let text: String = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let mut words = text.splitn(3, ' ');
        let effect = match words.next() {
            Some("allow") => Effect::Allow,
            Some("deny") => Effect::Deny,
            _ => return Err(wrong(&text, "it begins neither with \"allow\" nor with \"deny\"")),
        };
        let (Some(who), Some(grant)) = (words.next(), words.next()) else {
            return Err(wrong(&text, "it does not say who, what is done and with what"));
        };
        let who = Who::parse(who, directory, effect == Effect::Allow)?;
        let grant = Grant::parse(grant)?;
        Ok(Self { text, line, effect, who, grant })
    }

    /// A rule that the daemon brings itself: everything is allowed.
    pub(super) fn everything_for(who: Who) -> Result<Self, Error> {
        let text = format!("allow {who} * >");
        Ok(Self { text, line: 0, effect: Effect::Allow, who, grant: Grant::parse("* >")? })
    }

    /// Whether it decides `action` of `subject`. What is allowed must be meant as a whole; what is denied is denied when
    /// any part of it is meant.
    pub(super) fn decides(&self, subject: &Subject<'_>, action: &Action<'_>) -> bool {
        let is_meant = match self.effect {
            Effect::Allow => self.grant.covers(action),
            Effect::Deny => self.grant.touches(action),
        };
        is_meant && self.who.is(subject)
    }

    /// Whether it denies everything, so that nothing after it counts for whom it is about.
    pub(super) fn shuts_out(&self) -> bool {
        self.effect == Effect::Deny && self.grant.is_everything()
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its line in the configuration; `None` for a rule that the daemon brings itself.
    pub fn line(&self) -> Option<u32> {
        (self.line > 0).then_some(self.line)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line() {
            Some(line) => write!(f, "the rule of line {line}"),
            None => f.write_str("a rule that is built in"),
        }
    }
}

fn wrong(text: &str, why: &str) -> Error {
    let shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    Error::new(ErrorCode::InvalidArgument, format!("\"{shown}\" is no rule: {why}"))
        .with_hint("write allow or deny, who, actions, and what, as in \"allow user:alice own,call demo.>\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::policy::who::FewUsers;

    #[test]
    fn rules_are_read_with_the_names_of_users_and_groups() {
        for (text, who) in [
            ("allow anyone call a.>", Who::Anyone),
            ("  allow   user:alice own,call a.> ", Who::Uid(1000)),
            ("deny uid:7 * >", Who::Uid(7)),
            ("deny user:nobody * >", Who::Uid(65_534)),
            ("allow group:audio own a", Who::Gid(29)),
            ("allow gid:0 own a", Who::Gid(0)),
            ("allow remote call a", Who::AnyRemote),
            ("allow remote:laptop call a", Who::Remote("laptop".to_owned())),
        ] {
            let rule = Rule::parse(text, 3, &FewUsers).unwrap();
            assert_eq!((&rule.who, rule.line()), (&who, Some(3)), "{text}");
            assert!(!rule.text().contains("  ") && rule.text() == rule.text().trim(), "{text}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_a_hint() {
        for (text, why) in [
            ("", "begins neither"),
            ("permit anyone call a", "begins neither"),
            ("allow anyone", "does not say"),
            ("allow anyone call", "not two words"),
            ("allow everyone call a", "nobody"),
            ("allow user:bob call a", "no such user"),
            ("allow group:bob call a", "no such group"),
            ("allow uid:-1 call a", "not a number"),
            ("allow uid:4294967295 call a", "not a number"),
            ("allow user:nobody call a", "everybody it has no name for"),
            ("allow gid:65534 call a", "everybody it has no name for"),
            ("allow remote:anonymous call a", "listed elsewhere"),
            ("allow remote: call a", "nobody"),
            ("allow anyone look a", "no such action"),
        ] {
            let error = Rule::parse(text, 1, &FewUsers).unwrap_err();
            assert!(error.message.contains(why) && error.hint().is_some(), "{text}: {error}");
        }
    }
}
