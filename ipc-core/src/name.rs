//! PURE. Names: parsed once, valid after.
//!
//! | name | grammar | longest |
//! |---|---|---|
//! | service, topic | parts of `[A-Za-z0-9_-]+` joined by `.` | 255 bytes |
//! | method | one such part | 64 bytes |
//! | filter | a topic whose parts may be `*` (one part) and whose last may be `>` (one or more parts) | 255 bytes |
//! | lock and other resources | parts of `[A-Za-z0-9_-]+` joined by `.` or `/` | 512 bytes |

use core::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorCode};
use crate::limits::{METHOD_NAME_MAX_BYTES, NAME_MAX_BYTES, RESOURCE_NAME_MAX_BYTES};

/// Names under this prefix belong to the daemon.
pub const RESERVED_PREFIX: &str = "ipc.";

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Parses a name.
            ///
            /// # Errors
            /// `invalid_argument`, saying which rule the text breaks.
            pub fn parse(text: &str) -> Result<Self, Error> {
                let check: fn(&str) -> Result<(), &'static str> = $check;
                match check(text) {
                    Ok(()) => Ok(Self(Arc::from(text))),
                    Err(rule) => Err(invalid($what, text, rule)),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl core::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type! {
    /// The name of a service, such as `demo.title`.
    ServiceName, "service name", |text| check_parts(text, NAME_MAX_BYTES)
}

name_type! {
    /// The name of a method, such as `title`.
    MethodName, "method name", check_method
}

name_type! {
    /// The name of a topic, such as `sensor.kitchen.temperature`.
    TopicName, "topic", |text| check_parts(text, NAME_MAX_BYTES)
}

name_type! {
    /// A filter over dotted names: `sensor.*.temperature`, `sensor.>`.
    Filter, "filter", check_filter
}

name_type! {
    /// The name of a lock, a semaphore, an election or a barrier, such as `deploy/web`.
    ResourceName, "resource name", check_resource
}

impl ResourceName {
    /// Whether the name belongs to the daemon.
    pub fn is_reserved(&self) -> bool {
        self.0.split(['.', '/']).next() == Some("ipc")
    }

    /// The name of the queue of dead letters that belongs to the work queue of this name.
    ///
    /// # Errors
    /// `invalid_argument` when it would be too long.
    pub fn dead_letters(&self) -> Result<Self, Error> {
        Self::parse(&format!("{self}.dead"))
    }
}

impl ServiceName {
    /// Whether the name belongs to the daemon.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_PREFIX) || &*self.0 == "ipc"
    }
}

impl TopicName {
    /// Whether the topic belongs to the daemon.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_PREFIX) || &*self.0 == "ipc"
    }
}

impl Filter {
    /// Whether the filter holds no wildcard, so that it matches exactly one name.
    pub fn is_literal(&self) -> bool {
        !self.0.split('.').any(|part| part == "*" || part == ">")
    }

    /// Whether `name`, a dotted name, passes the filter.
    pub fn matches(&self, name: &str) -> bool {
        let mut wanted = self.0.split('.');
        let mut given = name.split('.');
        loop {
            match (wanted.next(), given.next()) {
                (Some(">"), Some(_)) => return true,
                (Some("*"), Some(_)) => {}
                (Some(want), Some(have)) if want == have => {}
                (None, None) => return true,
                (Some(_), _) | (None, Some(_)) => return false,
            }
        }
    }

    /// Whether there is a name that passes both.
    pub fn overlaps(&self, other: &Filter) -> bool {
        let mut ours = self.0.split('.');
        let mut theirs = other.0.split('.');
        loop {
            match (ours.next(), theirs.next()) {
                (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
                (None, Some(_)) | (Some(_), None) => return false,
                (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
                (Some(one), Some(other)) if one == other => {}
                (Some(_), Some(_)) => return false,
            }
        }
    }

    /// Whether every name that passes `other` passes this filter.
    pub fn covers(&self, other: &Filter) -> bool {
        let mut wide = self.0.split('.');
        let mut narrow = other.0.split('.');
        loop {
            match (wide.next(), narrow.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                // Nothing but `>` covers what has no bound.
                (_, Some(">")) | (None, Some(_)) | (Some(_), None) => return false,
                (Some("*"), Some(_)) => {}
                (Some(wide), Some(narrow)) if wide == narrow => {}
                (Some(_), Some(_)) => return false,
            }
        }
    }
}

const RULE_PART: &str = "parts are letters, digits, '_' and '-', joined by '.', none empty";

fn invalid(what: &str, text: &str, rule: &str) -> Error {
    let shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    Error::new(ErrorCode::InvalidArgument, format!("\"{shown}\" is not a {what}: {rule}"))
}

fn is_part(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn check_parts(text: &str, max_bytes: usize) -> Result<(), &'static str> {
    if text.len() > max_bytes {
        return Err("it is longer than 255 bytes");
    }
    if text.split('.').all(is_part) { Ok(()) } else { Err(RULE_PART) }
}

fn check_resource(text: &str) -> Result<(), &'static str> {
    if text.len() > RESOURCE_NAME_MAX_BYTES {
        return Err("it is longer than 512 bytes");
    }
    if text.split(['.', '/']).all(is_part) {
        Ok(())
    } else {
        Err("parts are letters, digits, '_' and '-', joined by '.' or '/', none empty")
    }
}

fn check_method(text: &str) -> Result<(), &'static str> {
    if text.len() > METHOD_NAME_MAX_BYTES {
        return Err("it is longer than 64 bytes");
    }
    if is_part(text) { Ok(()) } else { Err("it is letters, digits, '_' and '-', and not empty") }
}

fn check_filter(text: &str) -> Result<(), &'static str> {
    if text.len() > NAME_MAX_BYTES {
        return Err("it is longer than 255 bytes");
    }
    let mut parts = text.split('.').peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        let fits = part == "*" || (part == ">" && is_last) || is_part(part);
        if !fits {
            return Err("parts are names or '*', and '>' may stand last");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_their_length_limits() {
        for (length, fits) in [(254, true), (255, true), (256, false)] {
            assert_eq!(ServiceName::parse(&"a".repeat(length)).is_ok(), fits, "{length}");
            assert_eq!(TopicName::parse(&"a".repeat(length)).is_ok(), fits, "{length}");
            assert_eq!(Filter::parse(&"a".repeat(length)).is_ok(), fits, "{length}");
        }
        for (length, fits) in [(511, true), (512, true), (513, false)] {
            assert_eq!(ResourceName::parse(&"a".repeat(length)).is_ok(), fits, "{length}");
        }
        for (length, fits) in [(63, true), (64, true), (65, false)] {
            assert_eq!(MethodName::parse(&"m".repeat(length)).is_ok(), fits, "{length}");
        }
    }

    #[test]
    fn grammar() {
        for good in ["a", "demo.title", "A-1.b_2"] {
            assert!(ServiceName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a/b", "ä", "a.*", ">", "a\n"] {
            assert!(ServiceName::parse(bad).is_err(), "{bad}");
        }
        for good in ["a", "deploy/web.1", "A-1/b_2"] {
            assert!(ResourceName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "/a", "a/", "a//b", "a/.b", "a b", "a:1", "ä", "a/*"] {
            assert!(ResourceName::parse(bad).is_err(), "{bad}");
        }
        for bad in ["a.b", "", "*"] {
            assert!(MethodName::parse(bad).is_err(), "{bad}");
        }
        for bad in ["a.>.b", "a.b*", "", "**", "a..>"] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn filters_match_as_documented() {
        let cases = [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*.b", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("*.>", "a", false),
            ("*.>", "a.b", true),
        ];
        for (filter, name, expected) in cases {
            assert_eq!(Filter::parse(filter).unwrap().matches(name), expected, "{filter} over {name}");
        }
        assert!(Filter::parse("a.b").unwrap().is_literal());
        assert!(!Filter::parse("a.>").unwrap().is_literal());
    }

    /// Held against all names that can make a difference: those of the filters' words and one more, a part longer.
    #[test]
    fn filters_cover_and_overlap_as_the_names_that_pass_them_do() {
        let words = ["a", "b"];
        let mut names: Vec<String> = words.map(str::to_owned).to_vec();
        let mut filters: Vec<String> = ["a", "b", "*", ">"].map(str::to_owned).to_vec();
        for _ in 0..3 {
            let longer = |known: &[String], words: &[&str]| -> Vec<String> {
                let heads = known.iter().filter(|head| !head.ends_with('>'));
                heads.flat_map(|head| words.iter().map(move |word| format!("{head}.{word}"))).collect()
            };
            let more = longer(&names, &words);
            names.extend(more);
            if filters.len() < 20 {
                let more = longer(&filters, &["a", "*", ">"]);
                filters.extend(more);
            }
        }
        let filters: Vec<Filter> = filters.iter().map(|text| Filter::parse(text).unwrap()).collect();
        for wide in &filters {
            for narrow in &filters {
                let expected =
                    names.iter().filter(|name| narrow.matches(name)).all(|name| wide.matches(name));
                assert_eq!(wide.covers(narrow), expected, "{wide} over {narrow}");
                let expected = names.iter().any(|name| narrow.matches(name) && wide.matches(name));
                assert_eq!(wide.overlaps(narrow), expected, "{wide} with {narrow}");
            }
        }
    }

    #[test]
    fn the_daemon_keeps_its_names() {
        for (name, reserved) in [("ipc.daemon", true), ("ipc", true), ("ipcx.a", false), ("a.ipc", false)] {
            assert_eq!(ServiceName::parse(name).unwrap().is_reserved(), reserved, "{name}");
            assert_eq!(ResourceName::parse(name).unwrap().is_reserved(), reserved, "{name}");
        }
    }
}
