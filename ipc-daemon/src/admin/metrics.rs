//! The numbers of the daemon as a page in the text format of Prometheus (exposition format 0.0.4).
//!
//! Labels are bounded: of users and principals the first [`USERS_MAX`] have a line of their own, the others one together.

use core::fmt::{self, Write};
use core::time::Duration;

use crate::broker::{Charges, Counters, Status, Usage};

/// Most users and principals with a line of their own.
const USERS_MAX: usize = 64;

/// Something of which each user has some.
type Part = (&'static str, &'static str, fn(&Charges) -> u64);

const PARTS: [Part; 8] = [
    ("connections", "Connections of a user.", |charges| charges.connections.into()),
    ("queued_bytes", "Bytes queued toward the connections of a user.", |charges| charges.queued_bytes as u64),
    ("names", "Service registrations of a user.", |charges| charges.names.into()),
    ("subscriptions", "Subscriptions of a user.", |charges| charges.subscriptions.into()),
    ("watches", "Name watches of a user.", |charges| charges.watches.into()),
    ("pending_calls", "Calls that a user waits for.", |charges| charges.pending_calls.into()),
    ("handles", "Places in the tables of handles of a user.", |charges| charges.handles.into()),
    ("memory_bytes", "Memory that a user is charged with.", Charges::memory_bytes),
];

/// The page.
pub(crate) fn page(status: &Status, tally: &[(&'static str, u64)], uptime: Duration) -> String {
    let mut page = Page::default();
    page.head("build_info", "gauge", "The version of the daemon.");
    page.line("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.single("uptime_seconds", "gauge", "Time since the daemon started.", uptime.as_secs());
    let present = &status.present;
    for (name, help, value) in [
        ("connections", "Connections to the daemon.", present.connections),
        ("services", "Service names that are held.", present.services),
        ("topics", "Topics that have a counter.", present.topics),
        ("open_calls", "Calls that are open.", present.calls),
    ] {
        page.single(name, "gauge", help, value as u64);
    }
    for ((name, value), help) in status.counters.iter().zip(Counters::DESCRIPTIONS) {
        page.single(&format!("{name}_total"), "counter", help, *value);
    }
    for (name, value) in tally {
        page.single(&format!("{name}_total"), "counter", &format!("{}.", name.replace('_', " ")), *value);
    }
    for (name, help, of) in PARTS {
        page.users(&format!("user_{name}"), help, &status.usage, of);
    }
    page.head("limit", "gauge", "A limit of the daemon, by its name, in the unit of the name.");
    for (name, value) in &status.limits {
        page.line("limit", &[("name", name)], *value);
    }
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.write(format_args!("# HELP ipc_{name} {}\n# TYPE ipc_{name} {kind}\n", help.trim()));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        self.line(name, &[], value);
    }

    fn users(&mut self, name: &str, help: &str, usage: &[Usage], of: fn(&Charges) -> u64) {
        self.head(name, "gauge", help);
        for user in usage.iter().take(USERS_MAX) {
            let who = match (user.uid, &user.principal) {
                (Some(uid), _) => uid.to_string(),
                (None, principal) => format!("remote:{}", principal.as_deref().unwrap_or_default()),
            };
            self.line(name, &[("user", &who)], of(&user.charges));
        }
        if usage.len() > USERS_MAX {
            let sum = usage.iter().skip(USERS_MAX).map(|user| of(&user.charges)).sum();
            self.line(name, &[("user", "others")], sum);
        }
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.write(format_args!("ipc_{name}"));
        for (at, (label, text)) in labels.iter().enumerate() {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.write(format_args!("{}{label}=\"{escaped}\"", if at == 0 { '{' } else { ',' }));
        }
        self.write(format_args!("{} {value}\n", if labels.is_empty() { "" } else { "}" }));
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Present;

    fn status(users: u32) -> Status {
        let usage = |at| Usage {
            uid: (at > 0).then_some(at),
            principal: (at == 0).then(|| "a\"b\\c\nd".to_owned()),
            charges: Charges { connections: 1, ..Charges::default() },
        };
        Status {
            counters: Counters::default().by_name(),
            present: Present { connections: 1, services: 2, topics: 3, calls: 4 },
            limits: vec![("connections_max", 7)],
            usage: (0..users).map(usage).collect(),
        }
    }

    #[test]
    fn labels_are_escaped_and_bounded() {
        let page = page(&status(70), &[("refused_access", 3)], Duration::from_secs(9));
        let of = |name: &str| page.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
        let connections = of("ipc_user_connections{");
        assert_eq!(connections.len(), USERS_MAX + 1);
        assert_eq!(connections[0], "ipc_user_connections{user=\"remote:a\\\"b\\\\c\\nd\"} 1");
        assert_eq!(connections[USERS_MAX], "ipc_user_connections{user=\"others\"} 6");
        assert_eq!(of("ipc_refused_access_total"), ["ipc_refused_access_total 3"]);
        assert_eq!(of("ipc_uptime_seconds"), ["ipc_uptime_seconds 9"]);
        assert_eq!(of("ipc_limit"), ["ipc_limit{name=\"connections_max\"} 7"]);
    }

    #[test]
    fn every_counter_says_what_it_counts() {
        assert_eq!(Counters::DESCRIPTIONS.len(), Counters::default().by_name().len());
        assert!(Counters::DESCRIPTIONS.iter().all(|text| text.trim().ends_with('.')));
    }
}
