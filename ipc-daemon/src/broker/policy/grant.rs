//! What may be done, as the configuration writes it: `call demo.title/title`, `publish sensor.>`.

use core::fmt;

use ipc_core::name::{Filter, MethodName};
use ipc_core::{Error, ErrorCode};

use super::Action;

const FORM: &str = "write an action and what it is for, as in \"call demo.title/title\", \"call demo.>\", \
                    \"resolve demo.>\", \"publish sensor.>\" or \"subscribe sensor.*.temperature\"";

/// The word for an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Resolve,
    Call,
    Publish,
    Subscribe,
}

impl Verb {
    const ALL: [Verb; 4] = [Verb::Resolve, Verb::Call, Verb::Publish, Verb::Subscribe];

    const fn word(self) -> &'static str {
        match self {
            Verb::Resolve => "resolve",
            Verb::Call => "call",
            Verb::Publish => "publish",
            Verb::Subscribe => "subscribe",
        }
    }
}

/// One action and what it may be done with: `ACTION WHAT`.
///
/// | action | what |
/// |---|---|
/// | `resolve` | filter over names of services |
/// | `call` | `FILTER/METHOD`, or a filter alone for every method; who may call a service may resolve it too |
/// | `publish` | filter over topics |
/// | `subscribe` | filter over topics; a subscription is granted when it lets nothing pass but what this filter does |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    verb: Verb,
    names: Filter,
    /// For calls: this method alone.
    method: Option<MethodName>,
}

impl Grant {
    /// Reads `ACTION WHAT`.
    ///
    /// # Errors
    /// `invalid_argument`; the hint says what to write.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut words = text.split_ascii_whitespace();
        let (Some(word), Some(what), None) = (words.next(), words.next(), words.next()) else {
            return Err(wrong(text, "it is not two words"));
        };
        let Some(verb) = Verb::ALL.into_iter().find(|verb| verb.word() == word) else {
            return Err(wrong(text, "there is no such action"));
        };
        let (names, method) = match what.split_once('/') {
            Some((names, method)) if verb == Verb::Call => (names, Some(MethodName::parse(method))),
            Some(_) => return Err(wrong(text, "only what is called has a method")),
            None => (what, None),
        };
        let names = Filter::parse(names).map_err(|error| wrong(text, &error.message))?;
        let method = method.transpose().map_err(|error| wrong(text, &error.message))?;
        Ok(Self { verb, names, method })
    }

    /// Whether this is enough for `action`.
    pub(super) fn covers(&self, action: &Action<'_>) -> bool {
        match (self.verb, action) {
            (Verb::Resolve | Verb::Call, Action::Resolve(name)) => self.names.matches(name.as_str()),
            (Verb::Call, Action::Call(service, method)) => {
                self.names.matches(service.as_str()) && self.method.as_ref().is_none_or(|own| own == *method)
            }
            (Verb::Publish, Action::Publish(topic)) => self.names.matches(topic.as_str()),
            (Verb::Subscribe, Action::Subscribe(filter)) => self.names.covers(filter),
            _ => false,
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb.word(), self.names)?;
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
    use ipc_core::name::{ServiceName, TopicName};

    #[test]
    fn what_is_written_reads_back_the_same() {
        for text in ["resolve a.>", "call a.b/m", "call a.*", "publish a.b", "subscribe >"] {
            let grant = Grant::parse(text).unwrap();
            assert_eq!(grant.to_string(), text);
            assert_eq!(Grant::parse(&format!(" {} ", text.replace(' ', "\t "))), Ok(grant));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for text in [
            "",
            "call",
            "call a b",
            "own a",
            "administer x",
            "CALL a",
            "call a/",
            "call /m",
            "call a/m/n",
            "call a/*x",
            "publish a/m",
            "subscribe a.>.b",
            "publish a..b",
        ] {
            let error = Grant::parse(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{text}");
            assert!(error.hint().is_some(), "{text}");
        }
    }

    #[test]
    fn calls_are_granted_by_service_and_method() {
        let (service, method) = (ServiceName::parse("a.b").unwrap(), MethodName::parse("m").unwrap());
        for (text, call, resolve) in [
            ("call a.b/m", true, true),
            ("call a.b", true, true),
            ("call a.*/m", true, true),
            ("call >", true, true),
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
    }

    #[test]
    fn a_subscription_must_lie_inside_of_what_is_granted() {
        let grant = Grant::parse("subscribe a.>").unwrap();
        for (filter, expected) in
            [("a.b", true), ("a.*.c", true), ("a.>", true), (">", false), ("*.b", false)]
        {
            assert_eq!(
                grant.covers(&Action::Subscribe(&Filter::parse(filter).unwrap())),
                expected,
                "{filter}"
            );
        }
        assert!(!grant.covers(&Action::Publish(&TopicName::parse("a.b").unwrap())));
    }
}
