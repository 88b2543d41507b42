//! Generated rules, principals, actions and resources: the policy decides as a reference does that is too simple to be
//! wrong. The reference reads the rules as text and tries every name there is instead of comparing filters.

use ipc_core::identity::Identity;
use ipc_core::name::ServiceName;
use ipc_daemon::broker::{Grant, Policy, Question, Rule, Subject};
use ipc_tests::rng::{Rng, for_each_seed};
use ipc_tests::users::FewUsers;

const VERBS: [&str; 7] = ["own", "resolve", "call", "publish", "subscribe", "monitor", "administer"];
const PARTS: [&str; 2] = ["a", "b"];

/// Somebody, in the words of the reference.
struct Somebody {
    identity: Identity,
    groups: Vec<u32>,
    services: Vec<ServiceName>,
}

/// Every name of up to three parts: enough to tell filters of up to two parts from one another.
fn names() -> Vec<String> {
    let mut names: Vec<String> = PARTS.map(str::to_owned).to_vec();
    for from in [0, 2] {
        let longer: Vec<String> =
            names[from..].iter().flat_map(|head| PARTS.map(|part| format!("{head}.{part}"))).collect();
        names.extend(longer);
    }
    names
}

fn passes(filter: &[&str], name: &[&str]) -> bool {
    match (filter, name) {
        ([], []) => true,
        ([">"], [_, ..]) => true,
        (["*", filter @ ..], [_, name @ ..]) => passes(filter, name),
        ([want, filter @ ..], [have, name @ ..]) => want == have && passes(filter, name),
        _ => false,
    }
}

fn does_pass(filter: &str, name: &str) -> bool {
    passes(&filter.split('.').collect::<Vec<_>>(), &name.split('.').collect::<Vec<_>>())
}

fn is_about(who: &str, somebody: &Somebody) -> bool {
    let (uid, mut gids, principal) = match &somebody.identity {
        Identity::Local { uid, gid, .. } => (Some(*uid), vec![*gid], None),
        Identity::Remote { principal, .. } => (None, Vec::new(), Some(principal.as_str())),
    };
    gids.extend(&somebody.groups);
    match who.split_once(':') {
        None => who == "anyone" || principal.is_some(),
        Some(("user", _)) => uid == Some(1),
        Some(("group", _)) => uid.is_some() && gids.contains(&20),
        Some(("uid", number)) => uid.is_some_and(|uid| uid.to_string() == number),
        Some(("gid", number)) => uid.is_some() && gids.iter().any(|gid| gid.to_string() == number),
        Some(("remote", name)) => principal == Some(name),
        Some((_, name)) => somebody.services.iter().any(|service| service.as_str() == name),
    }
}

fn is_meant(verbs: &str, what: &str, is_allowing: bool, asked: (&str, &str)) -> bool {
    let (verb, thing) = asked;
    let has = |wanted: &str| verbs == "*" || verbs.split(',').any(|verb| verb == wanted);
    let (filter, method) = what.split_once('/').unwrap_or((what, ""));
    if verb == "subscribe" {
        let mut wanted = names();
        wanted.retain(|name| does_pass(thing, name));
        let hit = wanted.iter().filter(|name| does_pass(filter, name)).count();
        return has(verb) && if is_allowing { hit == wanted.len() } else { hit > 0 };
    }
    let (name, called) = thing.split_once('/').unwrap_or((thing, ""));
    let is_named = does_pass(filter, name);
    match verb {
        "call" => has(verb) && is_named && (method.is_empty() || method == called),
        "resolve" => (has(verb) || is_allowing && has("call")) && is_named,
        _ => has(verb) && is_named,
    }
}

fn reference(rules: &[String], listed: &[String], somebody: &Somebody, asked: (&str, &str)) -> bool {
    let (verb, thing) = asked;
    if ["own", "publish"].contains(&verb) && (thing == "ipc" || thing.starts_with("ipc.")) {
        return false;
    }
    if matches!(&somebody.identity, Identity::Remote { principal, .. } if principal == "anonymous") {
        return listed.iter().any(|entry| {
            let (verbs, what) = entry.split_once(' ').expect("two words");
            is_meant(verbs, what, true, asked)
        });
    }
    for rule in rules {
        let words: Vec<&str> = rule.split(' ').collect();
        let [effect, who, verbs, what] = words[..] else { panic!("{rule}") };
        if is_about(who, somebody) && is_meant(verbs, what, effect == "allow", asked) {
            return effect == "allow";
        }
    }
    false
}

fn filter(rng: &mut Rng) -> String {
    let part = |rng: &mut Rng| *rng.pick(&["a", "b", "*", ">"]);
    let first = part(rng);
    if first == ">" || rng.chance(1, 2) {
        return first.to_owned();
    }
    format!("{first}.{}", part(rng))
}

fn verbs(rng: &mut Rng, from: &[&str]) -> String {
    let mut verbs: Vec<&str> = Vec::new();
    for _ in 0..rng.between(1, 3) {
        let verb = *rng.pick(from);
        if !verbs.contains(&verb) {
            verbs.push(verb);
        }
    }
    verbs.join(",")
}

fn grant(rng: &mut Rng, from: &[&str]) -> String {
    if rng.chance(1, 4) {
        return format!("call {}/{}", filter(rng), rng.pick(&["m", "n"]));
    }
    format!("{} {}", verbs(rng, from), filter(rng))
}

fn rule(rng: &mut Rng) -> String {
    let effect = *rng.weighted(&[(2, "allow"), (1, "deny")]);
    let who = *rng.pick(&[
        "anyone",
        "user:alice",
        "uid:1",
        "uid:2",
        "group:audio",
        "gid:1",
        "gid:21",
        "service:a",
        "service:a.b",
        "remote",
        "remote:laptop",
    ]);
    let what = if rng.chance(1, 10) { format!("* {}", filter(rng)) } else { grant(rng, &VERBS) };
    format!("{effect} {who} {what}")
}

fn somebody(rng: &mut Rng) -> Somebody {
    let identity = match rng.below(4) {
        0 => {
            let principal = *rng.pick(&["anonymous", "laptop", "1", "alice"]);
            Identity::Remote { principal: principal.to_owned(), address: "127.0.0.1:1".to_owned() }
        }
        _ => Identity::Local { uid: rng.between(0, 3) as u32, gid: rng.between(0, 2) as u32, pid: 1 },
    };
    let is_local = matches!(identity, Identity::Local { .. });
    let groups = if is_local && rng.chance(1, 2) { vec![*rng.pick(&[20, 21])] } else { Vec::new() };
    let mut services = Vec::new();
    if rng.chance(1, 3) {
        let name = *rng.pick(&["a", "a.b"]);
        services.push(ServiceName::parse(name).unwrap());
    }
    Somebody { identity, groups, services }
}

/// Every question about names of up to two parts.
fn questions() -> Vec<(&'static str, String)> {
    let mut names = names();
    names.retain(|name| name.len() <= 3);
    names.push("ipc.daemon".to_owned());
    let mut questions = Vec::new();
    for verb in VERBS {
        for name in &names {
            match verb {
                "subscribe" if name.starts_with("ipc") => {}
                "call" => questions.extend(["m", "n"].map(|method| (verb, format!("{name}/{method}")))),
                _ => questions.push((verb, name.clone())),
            }
        }
    }
    questions
        .extend(["*", ">", "a.*", "a.>", "*.b", "*.*", "*.>"].map(|filter| ("subscribe", filter.to_owned())));
    questions
}

#[test]
fn the_policy_decides_as_the_reference_does() {
    let questions = questions();
    let (mut allowed, mut denied) = (0u32, 0u32);
    for_each_seed(300, 20_000, |_, mut rng| {
        let rules: Vec<String> = (0..rng.below(8)).map(|_| rule(&mut rng)).collect();
        let listed: Vec<String> = (0..rng.below(4)).map(|_| grant(&mut rng, &VERBS[1..5])).collect();
        let read = |(at, text): (usize, &String)| Rule::parse(text, at as u32 + 1, &FewUsers).unwrap();
        let policy = Policy::new(
            rules.iter().enumerate().map(read).collect(),
            listed.iter().map(|text| Grant::parse_anonymous(text).unwrap()).collect(),
        );
        for _ in 0..5 {
            let somebody = somebody(&mut rng);
            let subject = Subject {
                identity: &somebody.identity,
                groups: &somebody.groups,
                services: &somebody.services,
            };
            for (verb, thing) in &questions {
                let expected = reference(&rules, &listed, &somebody, (verb, thing));
                let (decided, reason) = policy.explain(&subject, &Question::parse(verb, thing).unwrap());
                assert_eq!(
                    decided, expected,
                    "{} {verb} {thing} by {rules:#?} and {listed:?}: {reason}",
                    somebody.identity
                );
                *(if decided { &mut allowed } else { &mut denied }) += 1;
            }
        }
    });
    assert!(allowed > 5_000 && denied > 5_000, "{allowed} allowed, {denied} denied: nothing was tried");
}
