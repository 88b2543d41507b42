//! What may, or may not, be done, as the configuration writes it: `call demo.title/title`, `publish,subscribe sensor.>`.

use core::fmt;

use ipc_core::name::{Filter, MethodName};
use ipc_core::{Error, ErrorCode};

use super::Action;
use super::verb::{Verb, Verbs};

const FORM: &str = "write an action and what it is for, as in \"call demo.title/title\", \"call demo.>\", \
                    \"resolve demo.>\" or \"publish,subscribe sensor.>\"";

/// Actions and what they are done with: `ACTION[,ACTION]... WHAT`, with `*` for every action.
///
/// | action | what |
/// |---|---|
/// | `own` | filter over names of services |
/// | `resolve` | filter over names of services: learn that they are there |
/// | `call` | `FILTER/METHOD`, or a filter alone for every method; who may call a service may resolve it too |
/// | `publish` | filter over topics |
/// | `subscribe` | filter over topics; a subscription is granted when it lets nothing pass but what this filter does |
/// | `monitor` | `peers`, `usage`: those of others; `sockets`: those of the daemon; `traffic`: the topic `ipc.monitor` |
/// | `administer` | methods of `ipc.daemon` that change what the daemon does, or tell what concerns others |
/// | `coordinate` | filter over names of locks, keys and the like, with their `/` read as `.`; leases and prefixes take `>` |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    verbs: Verbs,
    names: Filter,
    /// For calls: this method alone.
    method: Option<MethodName>,
}

impl Grant {
    /// Reads `ACTION[,ACTION]... WHAT`.
    ///
    /// # Errors
    /// `invalid_argument`; the hint says what to write.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut words = text.split_ascii_whitespace();
        let (Some(verbs), Some(what), None) = (words.next(), words.next(), words.next()) else {
            return Err(wrong(text, "it is not two words"));
        };
        let Some(verbs) = Verbs::parse(verbs) else {
            return Err(wrong(text, "there is no such action"));
        };
        let (names, method) = match what.split_once('/') {
            Some((names, method)) if verbs.is_only(Verb::Call) => (names, Some(MethodName::parse(method))),
            Some(_) => return Err(wrong(text, "only what is called has a method")),
            None => (what, None),
        };
        let names = Filter::parse(names).map_err(|error| wrong(text, &error.message))?;
        let method = method.transpose().map_err(|error| wrong(text, &error.message))?;
        Ok(Self { verbs, names, method })
    }

    /// The same, for a network peer that has proved nothing: it can resolve, call, publish and subscribe.
    ///
    /// # Errors
    /// `invalid_argument`.
    pub fn parse_anonymous(text: &str) -> Result<Self, Error> {
        let grant = Self::parse(text)?;
        if grant.verbs.are_among(Verbs::ANONYMOUS) {
            Ok(grant)
        } else {
            Err(wrong(text, "an anonymous network peer may resolve, call, publish and subscribe at most"))
        }
    }

    /// Whether this is enough for all of `action`.
    pub(super) fn covers(&self, action: &Action<'_>) -> bool {
        match action {
            Action::Subscribe(filter) => self.verbs.has(Verb::Subscribe) && self.names.covers(filter),
            Action::Resolve(name) => {
                (self.verbs.has(Verb::Resolve) || self.verbs.has(Verb::Call))
                    && self.names.matches(name.as_str())
            }
            Action::Coordinate(None) => self.verbs.has(Verb::Coordinate) && self.names.as_str() == ">",
            other => self.names_it(other),
        }
    }

    /// Whether any part of `action` is meant.
    pub(super) fn touches(&self, action: &Action<'_>) -> bool {
        match action {
            Action::Subscribe(filter) => self.verbs.has(Verb::Subscribe) && self.names.overlaps(filter),
            Action::Coordinate(None) => self.verbs.has(Verb::Coordinate),
            other => self.names_it(other),
        }
    }

    fn names_it(&self, action: &Action<'_>) -> bool {
        let (verb, name) = match action {
            Action::Own(name) => (Verb::Own, name.as_str()),
            Action::Resolve(name) => (Verb::Resolve, name.as_str()),
            Action::Call(service, method) => {
                if self.method.as_ref().is_some_and(|own| own != *method) {
                    return false;
                }
                (Verb::Call, service.as_str())
            }
            Action::Publish(topic) => (Verb::Publish, topic.as_str()),
            Action::Monitor(what) => (Verb::Monitor, *what),
            Action::Administer(method) => (Verb::Administer, *method),
            Action::Coordinate(Some(name)) => {
                return self.verbs.has(Verb::Coordinate)
                    && self.names.matches(&name.as_str().replace('/', "."));
            }
            Action::Subscribe(_) | Action::Watch | Action::Coordinate(None) => return false,
        };
        self.verbs.has(verb) && self.names.matches(name)
    }

    /// Whether it is about everything there is.
    pub(super) fn is_everything(&self) -> bool {
        self.verbs.is_every() && self.names.as_str() == ">"
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verbs, self.names)?;
        match &self.method {
            Some(method) => write!(f, "/{method}"),
            None => Ok(()),
        }
    }
}

fn wrong(text: &str, why: &str) -> Error {
    let shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    Error::new(ErrorCode::InvalidArgument, format!("\"{shown}\" grants nothing: {why}")).with_hint(FORM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_core::name::{ResourceName, ServiceName, TopicName};

    #[test]
    fn what_is_written_reads_back_the_same() {
        for text in [
            "resolve a.>",
            "call a.b/m",
            "own,call a.*",
            "publish a.b",
            "* >",
            "monitor peers",
            "administer >",
            "coordinate deploy.>",
        ] {
            let grant = Grant::parse(text).unwrap();
            assert_eq!(grant.to_string(), text);
            assert_eq!(Grant::parse(&format!(" {} ", text.replace(' ', "\t "))), Ok(grant));
        }
    }

    #[test]
    fn coordination_goes_by_parts_of_names() {
        let name = |text| ResourceName::parse(text).unwrap();
        let grant = Grant::parse("coordinate deploy.>").unwrap();
        let (web, other) = (name("deploy/web"), name("deployed/web"));
        assert!(grant.covers(&Action::Coordinate(Some(&web))));
        assert!(!grant.covers(&Action::Coordinate(Some(&other))));
        // A lease and a prefix are about everything.
        assert!(!grant.covers(&Action::Coordinate(None)) && grant.touches(&Action::Coordinate(None)));
        assert!(Grant::parse("coordinate >").unwrap().covers(&Action::Coordinate(None)));
        assert!(Grant::parse_anonymous("coordinate deploy.>").is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for text in [
            "",
            "call",
            "call a b",
            "look a",
            "call, a",
            ",call a",
            "CALL a",
            "call a/",
            "call /m",
            "call a/m/n",
            "call a/*x",
            "own,call a/m",
            "* a/m",
            "publish a/m",
            "subscribe a.>.b",
            "publish a..b",
        ] {
            let error = Grant::parse(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{text}");
            assert!(error.hint().is_some(), "{text}");
        }
        for (text, fits) in [("call,publish a", true), ("own a", false), ("* a", false), ("monitor a", false)]
        {
            assert_eq!(Grant::parse_anonymous(text).is_ok(), fits, "{text}");
        }
    }

    #[test]
    fn calls_are_granted_by_service_and_method() {
        let (service, method) = (ServiceName::parse("a.b").unwrap(), MethodName::parse("m").unwrap());
        for (text, call, resolve) in [
            ("call a.b/m", true, true),
            ("call a.b", true, true),
            ("call a.*/m", true, true),
            ("* >", true, true),
            ("call a.b/n", false, true),
            ("call a.c/m", false, false),
            ("resolve a.b", false, true),
            ("resolve a", false, false),
            ("publish a.b", false, false),
        ] {
            let grant = Grant::parse(text).unwrap();
            assert_eq!(grant.covers(&Action::Call(&service, &method)), call, "{text}");
            assert_eq!(grant.covers(&Action::Resolve(&service)), resolve, "{text}");
        }
        let denied = Grant::parse("call a.b").unwrap();
        assert!(!denied.touches(&Action::Resolve(&service)), "not to be called is not to be hidden");
    }

    #[test]
    fn a_subscription_must_lie_inside_of_what_is_granted_and_outside_of_what_is_denied() {
        let grant = Grant::parse("subscribe a.>").unwrap();
        for (filter, covered, touched) in [
            ("a.b", true, true),
            ("a.*.c", true, true),
            ("a.>", true, true),
            (">", false, true),
            ("*.b", false, true),
            ("b.>", false, false),
            ("a", false, false),
        ] {
            let filter = Filter::parse(filter).unwrap();
            let action = Action::Subscribe(&filter);
            assert_eq!((grant.covers(&action), grant.touches(&action)), (covered, touched), "{filter}");
        }
        assert!(!grant.covers(&Action::Publish(&TopicName::parse("a.b").unwrap())));
    }
}
