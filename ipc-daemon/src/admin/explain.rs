//! Which rule decides whether somebody may do something.

use ipc_core::identity::{Identity, Peer};
use ipc_core::name::ServiceName;
use ipc_core::{Error, ErrorCode};
use serde_json::{Value, json};

use super::method::Method;
use crate::broker::{Broker, Directory as _, Question, Reason, Subject};
use crate::directory;

const FORM: &str = "write WHO ACTION WHAT, as in \"user:alice call demo.title/title\"; WHO is user:NAME or uid:N, \
                    with further gid:N, group:NAME and service:NAME behind commas, or remote:PRINCIPAL";

/// Somebody, as asked about.
#[derive(Debug)]
struct Somebody {
    identity: Identity,
    groups: Vec<u32>,
    services: Vec<ServiceName>,
}

/// Somebody and something.
#[derive(Debug)]
pub(super) struct Asked {
    who: Somebody,
    what: Question,
}

/// Reads `WHO ACTION WHAT`. Users and groups are looked up on a thread for what may take its time.
///
/// # Errors
/// `invalid_argument`.
pub(super) async fn read(text: &str) -> Result<Asked, Error> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let &[who, action, what] = &words[..] else {
        return Err(wrong("that is not three words"));
    };
    let what = Question::parse(action, what)?;
    let who = who.to_owned();
    let found = tokio::task::spawn_blocking(move || somebody(&who)).await;
    let who = found.map_err(|_| Error::new(ErrorCode::Io, "cannot look up users and groups"))??;
    Ok(Asked { who, what })
}

fn somebody(text: &str) -> Result<Somebody, Error> {
    let system = directory::System;
    let mut parts = text.split(',');
    let mut who = match parts.next().and_then(|first| first.split_once(':')) {
        Some(("user", name)) => {
            let user = directory::user(name).ok_or_else(|| wrong("there is no such user"))?;
            local(user.uid, user.gid, user.groups)
        }
        Some(("uid", number)) => {
            let uid = parse_number(number)?;
            match directory::user_of(uid) {
                Some(user) => local(uid, user.gid, user.groups),
                None => local(uid, system.overflow(), Vec::new()),
            }
        }
        Some(("remote", principal)) if !principal.is_empty() => Somebody {
            identity: Identity::Remote { principal: principal.to_owned(), address: "anywhere".to_owned() },
            groups: Vec::new(),
            services: Vec::new(),
        },
        _ => return Err(wrong("that does not say who")),
    };
    for part in parts {
        match part.split_once(':') {
            Some(("gid", number)) => who.groups.push(parse_number(number)?),
            Some(("group", name)) => {
                who.groups.push(system.gid(name).ok_or_else(|| wrong("there is no such group"))?);
            }
            Some(("service", name)) => who.services.push(ServiceName::parse(name)?),
            _ => return Err(wrong("that does not say who")),
        }
    }
    Ok(who)
}

fn local(uid: u32, gid: u32, groups: Vec<u32>) -> Somebody {
    Somebody { identity: Identity::Local { uid, gid, pid: 0 }, groups, services: Vec::new() }
}

fn parse_number(text: &str) -> Result<u32, Error> {
    text.parse().map_err(|_| wrong("that is not a number of a user or group"))
}

fn wrong(message: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, message).with_hint(FORM)
}

/// The answer. Everybody may ask about their own user; about others whoever may administer.
///
/// # Errors
/// `permission_denied`.
pub(super) fn answer(broker: &Broker, caller: &Peer, asked: &Asked) -> Result<Value, Error> {
    let Asked { who, what } = asked;
    let is_own = match (&caller.identity, &who.identity) {
        (Identity::Local { uid, .. }, Identity::Local { uid: other, .. }) => uid == other,
        _ => false,
    };
    if !is_own {
        broker.view(caller.id).check_administer(Method::PolicyExplain.name())?;
    }
    let subject = Subject { identity: &who.identity, groups: &who.groups, services: &who.services };
    let (is_allowed, reason) = broker.policy().explain(&subject, what);
    let (rule, line) = match reason {
        Reason::Rule(rule) => (Some(rule.text().to_owned()), rule.line()),
        Reason::Listed(grant) => (Some(grant.to_string()), None),
        Reason::NoRule | Reason::NotListed | Reason::Reserved | Reason::LetIn => (None, None),
    };
    Ok(json!({ "allowed": is_allowed, "reason": reason.to_string(), "rule": rule, "line": line }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_is_a_user_with_what_is_said_of_it_or_a_principal() {
        let who = somebody("uid:4000000,gid:7,service:a.b").unwrap();
        assert!(matches!(who.identity, Identity::Local { uid: 4_000_000, .. }));
        assert_eq!((who.groups, who.services.len()), (vec![7], 1));
        let who = somebody("remote:laptop").unwrap();
        assert!(matches!(who.identity, Identity::Remote { principal, .. } if principal == "laptop"));
        assert!(matches!(somebody("user:root").unwrap().identity, Identity::Local { uid: 0, gid: 0, .. }));
        for text in
            ["", "alice", "uid:x", "user:", "user:no-such-user", "remote:", "gid:1", "uid:1,b", "uid:1,gid:"]
        {
            assert_eq!(somebody(text).unwrap_err().code, ErrorCode::InvalidArgument, "{text}");
        }
    }
}
