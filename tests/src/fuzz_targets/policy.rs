//! The rules of the policy, as texts.

use ipc_core::identity::Identity;
use ipc_daemon::broker::{Allowance, Grant, Policy, Question, Rule, Subject};

use crate::users::FewUsers;

/// Lines are rules, grants, allowances, or questions. Whatever is one reads back the same from what it says of itself;
/// every question has an answer for everybody, and nobody is given more by a rule that denies.
pub fn policy(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (mut rules, mut grants, mut questions) = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines().take(64) {
        if let Ok(rule) = Rule::parse(line, 1, &FewUsers) {
            assert_eq!(Rule::parse(rule.text(), 1, &FewUsers).as_ref(), Ok(&rule));
            rules.push(rule);
        }
        if let Ok(grant) = Grant::parse_anonymous(line) {
            assert_eq!(Grant::parse(&grant.to_string()).as_ref(), Ok(&grant));
            grants.push(grant);
        }
        if let Ok(allowance) = Allowance::parse(line, &FewUsers) {
            assert_eq!(Allowance::parse(&allowance.to_string(), &FewUsers), Ok(allowance));
        }
        if let Some(question) = line.split_once(' ').and_then(|(verb, what)| Question::parse(verb, what).ok())
        {
            questions.push(question);
        }
    }
    let policy = Policy::new(rules.clone(), grants.clone());
    rules.retain(|rule| rule.text().starts_with("allow"));
    let generous = Policy::new(rules, grants);
    let local = |uid| Identity::Local { uid, gid: 20, pid: 1 };
    let remote =
        |principal: &str| Identity::Remote { principal: principal.to_owned(), address: String::new() };
    for identity in [local(0), local(1), local(65_534), remote("anonymous"), remote("laptop")] {
        let subject = Subject { identity: &identity, groups: &[20], services: &[] };
        for question in &questions {
            let (is_allowed, _) = policy.explain(&subject, question);
            assert!(!is_allowed || generous.explain(&subject, question).0, "{identity}: {question:?}");
        }
    }
}
