//! Who may do what in these worlds: users everything, a client of an exposed port one method, and an anonymous peer over TCP
//! what is listed in [`ANONYMOUS`].

use ipc_core::error::ErrorCode;

use super::expect::Refusal;
use super::{Model, filter};

/// What anonymous network peers may do, as `[remote] allow` would have it.
pub const ANONYMOUS: [&str; 4] = ["call a.b", "call b.c/m0", "publish a.>", "subscribe a.*"];

/// What a connection wants to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish<'a> {
    /// Call that method of that service.
    Call(&'a str, &'a str),
    /// Publish on that topic.
    Publish(&'a str),
    /// Subscribe to all that this filter lets through.
    Subscribe(&'a str),
    /// Anything that no network peer may do.
    Other,
}

impl Model {
    /// Whether a connection may do that.
    pub(super) fn may(&self, from: usize, wish: Wish<'_>) -> Result<(), Refusal> {
        let Some(connection) = self.connections.get(&from) else { return Ok(()) };
        let is_allowed = match &connection.only {
            Some((service, method)) => {
                matches!(wish, Wish::Call(wanted, called) if wanted == service && called == method)
            }
            None => !connection.is_tcp || is_listed(wish),
        };
        if is_allowed { Ok(()) } else { Err(Refusal::of(ErrorCode::PermissionDenied)) }
    }
}

/// Whether [`ANONYMOUS`] has it, in other words than the broker's.
fn is_listed(wish: Wish<'_>) -> bool {
    match wish {
        Wish::Call(service, method) => service == "a.b" || (service, method) == ("b.c", "m0"),
        Wish::Publish(topic) => topic.starts_with("a."),
        Wish::Subscribe(asked) => {
            let mut passed = names().into_iter().filter(|name| filter::passes(asked, name));
            passed.all(|name| filter::passes("a.*", &name))
        }
        Wish::Other => false,
    }
}

/// Names of up to three parts, enough to tell filters apart.
fn names() -> Vec<String> {
    let parts = ["a", "b", "c", "x"];
    let longer = |names: &[String]| -> Vec<String> {
        names.iter().flat_map(|name| parts.map(|part| format!("{name}.{part}"))).collect()
    };
    let one: Vec<String> = parts.map(str::to_owned).into();
    let two = longer(&one);
    let three = longer(&two);
    [one, two, three].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_listed_when_all_that_it_lets_through_is() {
        for (filter, expected) in
            [("a.b", true), ("a.*", true), ("a", false), ("a.>", false), ("*.b", false), (">", false)]
        {
            assert_eq!(is_listed(Wish::Subscribe(filter)), expected, "{filter}");
        }
    }
}
