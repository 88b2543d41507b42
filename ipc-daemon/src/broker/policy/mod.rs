//! PURE. Who may do what.
//!
//! A connection is accepted with an [`Access`]: either the one method that an exposed port grants, or whatever the
//! [`Policy`] grants to the identity that was verified when it was accepted. The policy is asked when something is bound
//! or asked for (a handle, a name, a subscription), never for a call or an event that goes over a handle. When it
//! changes, what is held already is judged anew.
//!
//! **The first rule that is about who asks and what is asked for decides.** What no rule is about is denied. So the
//! special comes before the general, and a rule can be read without those after it: there is no last match that
//! overrides, no contexts and no priorities. Two rules that contradict each other are no error; the first one holds,
//! and `ipc-cli policy explain` names it.
//!
//! - A subscription is for many topics at once. A rule that allows must cover all of them, a rule that denies need only
//!   touch one: what is denied never comes in through a wider filter.
//! - Whoever may call a method of a service may resolve that service; what may not be resolved is not listed either.
//! - Somebody may connect when a rule allows anything to its user, groups or principal. Rules about services do not count
//!   for that.
//! - An anonymous network peer is not `anyone`. It has what `[remote] allow` lists and never owns a name, watches names,
//!   takes a lock, or sees other connections.
//!
//! A door hands over the identity it has verified and [`Access::Granted`], and is done.

mod action;
mod allowance;
mod grant;
mod rule;
mod verb;
mod who;

use core::fmt;

use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::{Error, ErrorCode};

pub(super) use self::action::Action;
pub use self::action::Question;
pub use self::allowance::Allowance;
pub use self::grant::Grant;
use self::rule::Effect;
pub use self::rule::Rule;
use self::who::Who;
pub use self::who::{Directory, Subject};
use super::event::{Access, Transport};

/// The rules, and what is listed for network peers that have proved nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    anonymous: Vec<Grant>,
    allowances: Vec<Allowance>,
}

/// A connection whose rights are in question.
#[derive(Debug)]
pub(super) struct Asker<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) transport: Transport,
    pub(super) access: &'a Access,
}

/// Why something is, or is not, allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason<'a> {
    /// This rule decides.
    Rule(&'a Rule),
    /// No rule is about it.
    NoRule,
    /// It is listed for anonymous network peers.
    Listed(&'a Grant),
    /// It is not.
    NotListed,
    /// Names that begin with `ipc.` belong to the daemon.
    Reserved,
    /// Whoever is let in may do this.
    LetIn,
}

impl Policy {
    /// Rules in their order, and what an anonymous network peer may do.
    pub fn new(rules: Vec<Rule>, anonymous: Vec<Grant>) -> Self {
        Self { rules, anonymous, allowances: Vec::new() }
    }

    /// What holds for a user's own daemon: its own user and root may do everything, others nothing.
    pub fn of_session(owner: u32, anonymous: Vec<Grant>) -> Self {
        let rules = [Who::Uid(owner), Who::Uid(0)].into_iter().map(Rule::everything_for);
        Self::new(rules.filter_map(Result::ok).collect(), anonymous)
    }

    /// Every user of this machine may do everything, and anonymous network peers what is listed.
    pub fn open(anonymous: Vec<Grant>) -> Self {
        Self::new(Rule::everything_for(Who::Anyone).into_iter().collect(), anonymous)
    }

    /// The same with limits that some have instead of the daemon's.
    #[must_use]
    pub fn with_allowances(mut self, allowances: Vec<Allowance>) -> Self {
        self.allowances = allowances;
        self
    }

    /// The limits of a user or principal: those of the daemon, or what the first allowance sets that is about it.
    pub(super) fn limits_for(&self, uid: Option<u32>, principal: Option<&str>, limits: &Limits) -> Limits {
        let mut limits = limits.clone();
        if let Some(allowance) = self.allowances.iter().find(|one| one.is_about(uid, principal)) {
            allowance.apply(&mut limits);
        }
        limits
    }

    /// Whether `subject` may do that, and why.
    pub fn explain(&self, subject: &Subject<'_>, question: &Question) -> (bool, Reason<'_>) {
        self.decide(subject, &question.action())
    }

    fn decide(&self, subject: &Subject<'_>, action: &Action<'_>) -> (bool, Reason<'_>) {
        if action.is_reserved() {
            return (false, Reason::Reserved);
        }
        if is_anonymous(subject.identity) {
            return match self.anonymous.iter().find(|grant| grant.covers(action)) {
                Some(grant) => (true, Reason::Listed(grant)),
                None => (false, Reason::NotListed),
            };
        }
        if matches!(action, Action::Watch) {
            return (true, Reason::LetIn);
        }
        match self.rules.iter().find(|rule| rule.decides(subject, action)) {
            Some(rule) => (rule.effect == Effect::Allow, Reason::Rule(rule)),
            None => (false, Reason::NoRule),
        }
    }

    /// Whether the connection may do it.
    ///
    /// # Errors
    /// `permission_denied`, saying what was missing.
    pub(super) fn check(&self, asker: &Asker<'_>, action: &Action<'_>) -> Result<(), Error> {
        if asker.transport == Transport::Internal {
            return Ok(());
        }
        let denied = |message, hint| Err(Error::new(ErrorCode::PermissionDenied, message).with_hint(hint));
        match (asker.access, action) {
            (Access::Granted, _) => {}
            (Access::Only { service, method }, Action::Call(wanted, called))
                if (*wanted, *called) == (service, method) =>
            {
                return Ok(());
            }
            (Access::Only { service, method }, _) => {
                let message = format!("this connection may call {service}/{method} and nothing else");
                return denied(message, "expose the other method on a port of its own");
            }
            (Access::Offer { service }, Action::Own(name)) if *name == service && !action.is_reserved() => {
                return Ok(());
            }
            (Access::Offer { service }, _) => {
                let message = format!("this connection may own {service} and do nothing else");
                return denied(message, "a forward offers its service, and that is all");
            }
        }
        match self.decide(&asker.subject, action) {
            (true, _) => Ok(()),
            (false, reason) => {
                denied(format!("{} may not {action}: {reason}", asker.subject.identity), reason.remedy())
            }
        }
    }

    /// Whether somebody may connect: whether anything is allowed to it that does not depend on what it will own.
    pub(super) fn admits(&self, subject: &Subject<'_>) -> bool {
        if is_anonymous(subject.identity) {
            return true;
        }
        let mut own = self.rules.iter().filter(|rule| rule.who.is_lasting() && rule.who.is(subject));
        let first = own.find(|rule| rule.effect == Effect::Allow || rule.shuts_out());
        first.is_some_and(|rule| rule.effect == Effect::Allow)
    }

    /// Whether it matters which names somebody owns.
    pub(super) fn asks_for_services(&self) -> bool {
        self.rules.iter().any(|rule| !rule.who.is_lasting())
    }
}

/// A network peer that has proved nothing, or whose door has no way to prove anything.
fn is_anonymous(identity: &Identity) -> bool {
    matches!(identity, Identity::Remote { principal, .. } if principal == "anonymous")
}

impl Reason<'_> {
    /// What to do about it when it stands in the way.
    const fn remedy(&self) -> &'static str {
        match self {
            Reason::Rule(_) | Reason::NoRule => {
                "`ipc-cli policy explain WHO ACTION WHAT` shows what decides; the rules are in the daemon's configuration"
            }
            Reason::Listed(_) | Reason::NotListed => {
                "over the network only what [remote] allow in the daemon's configuration lists may be done"
            }
            Reason::Reserved => "choose a name that does not begin with \"ipc.\"",
            Reason::LetIn => "",
        }
    }
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Rule(rule) if rule.effect == Effect::Allow => write!(f, "{rule} allows it"),
            Reason::Rule(rule) => write!(f, "{rule} denies it"),
            Reason::NoRule => f.write_str("no rule allows it"),
            Reason::Listed(grant) => write!(f, "[remote] allow lists \"{grant}\""),
            Reason::NotListed => f.write_str("[remote] allow lacks it"),
            Reason::Reserved => f.write_str("what begins with \"ipc.\" belongs to the daemon"),
            Reason::LetIn => f.write_str("whoever is let in may do it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::who::FewUsers;
    use super::*;
    use ipc_core::name::{Filter, MethodName, ResourceName, ServiceName, TopicName};

    fn policy(rules: &[&str]) -> Policy {
        let read = |(at, text): (usize, &&str)| Rule::parse(text, at as u32 + 1, &FewUsers).unwrap();
        Policy::new(rules.iter().enumerate().map(read).collect(), Vec::new())
    }

    const fn local(uid: u32) -> Identity {
        Identity::Local { uid, gid: uid, pid: 1 }
    }

    fn remote(principal: &str) -> Identity {
        Identity::Remote { principal: principal.to_owned(), address: "127.0.0.1:1".to_owned() }
    }

    fn subject(identity: &Identity) -> Subject<'_> {
        Subject { identity, groups: &[], services: &[] }
    }

    fn check(policy: &Policy, who: &Identity, access: &Access, action: &Action<'_>) -> Result<(), Error> {
        policy.check(&Asker { subject: subject(who), transport: Transport::UnixStream, access }, action)
    }

    fn may(policy: &Policy, who: &Identity, action: &str, what: &str) -> bool {
        policy.explain(&subject(who), &Question::parse(action, what).unwrap()).0
    }

    fn service(text: &str) -> ServiceName {
        ServiceName::parse(text).unwrap()
    }

    fn method(text: &str) -> MethodName {
        MethodName::parse(text).unwrap()
    }

    #[test]
    fn a_granted_method_is_all_that_a_bridged_connection_has() {
        let (a, b, m, n) = (service("a"), service("b"), method("m"), method("n"));
        let access = Access::Only { service: a.clone(), method: m.clone() };
        let policy = Policy::open(vec![Grant::parse("call >").unwrap()]);
        let may = |action: &Action<'_>| check(&policy, &remote("anonymous"), &access, action).is_ok();
        assert!(may(&Action::Call(&a, &m)));
        assert!(!may(&Action::Call(&a, &n)) && !may(&Action::Call(&b, &m)) && !may(&Action::Own(&a)));
        assert!(!may(&Action::Publish(&TopicName::parse("t").unwrap())) && !may(&Action::Watch));
    }

    #[test]
    fn the_name_of_a_forward_is_all_that_it_has() {
        let (a, b, m) = (service("a"), service("b"), method("m"));
        let may = |offered: &ServiceName, action: &Action<'_>| {
            let access = Access::Offer { service: offered.clone() };
            check(&Policy::open(Vec::new()), &local(1000), &access, action).is_ok()
        };
        assert!(may(&a, &Action::Own(&a)));
        assert!(!may(&a, &Action::Own(&b)) && !may(&a, &Action::Call(&a, &m)) && !may(&a, &Action::Watch));
        let reserved = service("ipc.daemon");
        assert!(!may(&reserved, &Action::Own(&reserved)));
    }

    #[test]
    fn the_daemons_names_are_its_own() {
        let (name, topic) = (service("ipc.daemon"), TopicName::parse("ipc.t").unwrap());
        let (open, root) = (Policy::open(Vec::new()), local(0));
        let lock = ResourceName::parse("ipc/a").unwrap();
        for action in [Action::Own(&name), Action::Publish(&topic), Action::Coordinate(Some(&lock))] {
            let refused = check(&open, &root, &Access::Granted, &action).unwrap_err();
            assert_eq!(refused.code, ErrorCode::PermissionDenied);
            let asker =
                Asker { subject: subject(&root), transport: Transport::Internal, access: &Access::Granted };
            assert_eq!(open.check(&asker, &action), Ok(()));
        }
    }

    #[test]
    fn the_first_rule_that_applies_decides() {
        let policy = policy(&["deny uid:7 call a.secret", "allow anyone call a.>", "deny uid:8 call a.b"]);
        for (uid, what, expected) in [
            (7, "a.secret/m", false),
            (7, "a.b/m", true),
            (8, "a.secret/m", true),
            // The rule before it has decided.
            (8, "a.b/m", true),
            (8, "b.c/m", false),
        ] {
            assert_eq!(may(&policy, &local(uid), "call", what), expected, "{uid} {what}");
        }
        let question = Question::parse("call", "a.secret/m").unwrap();
        let who = local(7);
        let (is_allowed, reason) = policy.explain(&subject(&who), &question);
        assert!(!is_allowed);
        assert_eq!(reason.to_string(), "the rule of line 1 denies it");
    }

    #[test]
    fn what_is_denied_does_not_come_in_through_a_wider_filter() {
        let policy = policy(&["deny anyone subscribe a.secret.>", "allow anyone subscribe a.>"]);
        for (filter, expected) in
            [("a.b", true), ("a.*", true), ("a.>", false), ("a.*.x", false), (">", false)]
        {
            assert_eq!(may(&policy, &local(1), "subscribe", filter), expected, "{filter}");
        }
    }

    #[test]
    fn a_session_is_open_to_its_owner_and_root() {
        let policy = Policy::of_session(1000, Vec::new());
        for (who, expected) in [
            (local(1000), true),
            (local(0), true),
            (local(1001), false),
            (local(65_534), false),
            (remote("1000"), false),
            (remote("root"), false),
        ] {
            assert_eq!(policy.admits(&subject(&who)), expected, "{who}");
            assert_eq!(may(&policy, &who, "administer", "bridge-expose"), expected, "{who}");
        }
    }

    #[test]
    fn who_may_connect_follows_from_the_rules() {
        let policy = policy(&[
            "deny uid:3 * >",
            "deny uid:4 call x",
            "allow gid:44 call a",
            "allow service:a call b",
            "allow uid:5 resolve a",
        ]);
        for (uid, plain, in_group) in [(3, false, false), (4, false, true), (5, true, true), (6, false, true)]
        {
            let who = local(uid);
            assert_eq!(policy.admits(&subject(&who)), plain, "{uid}");
            assert_eq!(policy.admits(&Subject { groups: &[44], ..subject(&who) }), in_group, "{uid}");
        }
        assert!(policy.asks_for_services());
    }

    /// Everything there is to ask for, with what lets an anonymous peer do it, if anything does.
    #[test]
    fn an_anonymous_peer_may_do_what_is_listed_and_nothing_else() {
        let (name, called) = (ServiceName::parse("a.b").unwrap(), MethodName::parse("m").unwrap());
        let (topic, filter) = (TopicName::parse("a.b").unwrap(), Filter::parse("a.*").unwrap());
        let lock = ResourceName::parse("a.b").unwrap();
        let actions = [
            (Action::Call(&name, &called), Some("call a.b/m")),
            (Action::Resolve(&name), Some("resolve a.b")),
            (Action::Publish(&topic), Some("publish a.b")),
            (Action::Subscribe(&filter), Some("subscribe a.>")),
            (Action::Own(&name), None),
            (Action::Watch, None),
            (Action::Monitor("peers"), None),
            (Action::Administer("bridge-expose"), None),
            (Action::Coordinate(Some(&lock)), None),
            (Action::Coordinate(None), None),
        ];
        let listed = ["call a.b/m", "resolve a.b", "publish a.b", "subscribe a.>"];
        let anonymous = remote("anonymous");
        for (action, needed) in &actions {
            for entry in listed.into_iter().chain(["call >"]) {
                let policy = Policy::open(vec![Grant::parse_anonymous(entry).unwrap()]);
                let is_called = matches!(action, Action::Call(..) | Action::Resolve(_));
                let expected = *needed == Some(entry) || is_called && entry.starts_with("call ");
                let checked = check(&policy, &anonymous, &Access::Granted, action);
                assert_eq!(checked.is_ok(), expected, "{entry}: {action}");
            }
            let open = Policy::open(Vec::new());
            let refused = check(&open, &anonymous, &Access::Granted, action).unwrap_err();
            assert!(refused.message.contains(&action.to_string()), "{refused}");
            assert_eq!(check(&open, &local(1000), &Access::Granted, action), Ok(()));
        }
    }
}
