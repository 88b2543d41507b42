//! The part of the configuration that says who may do what. Errors have the line and column of the entry.

use ipc_core::Error;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::Place;
use crate::broker::{Allowance, Grant, Policy, Rule};
use crate::directory::System;
use crate::failure::{Failure, on_one_line};

/// The rules, as the file has them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenRules {
    rules: Option<Vec<Spanned<String>>>,
    quotas: Vec<Spanned<String>>,
}

/// The rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Rules {
    /// In their order; `None` leaves it to what holds for a user's own daemon.
    #[serde(serialize_with = "rules_as_texts", skip_serializing_if = "Option::is_none")]
    rules: Option<Vec<Rule>>,
    /// Limits that some have instead of the daemon's.
    #[serde(serialize_with = "allowances_as_texts", skip_serializing_if = "Vec::is_empty")]
    quotas: Vec<Allowance>,
}

/// Network peers of the bus protocol, as the file has them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenRemote {
    allow: Vec<Spanned<String>>,
}

/// Network peers of the bus protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Remote {
    /// What those may do that have proved nothing.
    #[serde(serialize_with = "grants_as_texts")]
    allow: Vec<Grant>,
}

impl WrittenRules {
    pub(super) fn read(self, place: &Place) -> Result<Rules, Failure> {
        let read = |text: &str, line| Rule::parse(text, line, &System);
        let rules = self.rules.map(|rules| entries(&rules, place, read)).transpose()?;
        let quotas = entries(&self.quotas, place, |text, _| Allowance::parse(text, &System))?;
        Ok(Rules { rules, quotas })
    }
}

impl WrittenRemote {
    pub(super) fn read(self, place: &Place) -> Result<Remote, Failure> {
        let allow = entries(&self.allow, place, |text, _| Grant::parse_anonymous(text))?;
        Ok(Remote { allow })
    }
}

/// Reads each entry, which is given with its line.
fn entries<T>(
    written: &[Spanned<String>],
    place: &Place,
    read: impl Fn(&str, u32) -> Result<T, Error>,
) -> Result<Vec<T>, Failure> {
    let read = |entry: &Spanned<String>| {
        let start = entry.span().start;
        read(entry.get_ref(), place.line_of(start))
            .map_err(|error| place.wrong_at(start, on_one_line(&error)))
    };
    written.iter().map(read).collect()
}

/// Who may do what, in the daemon of user `owner`.
pub(super) fn policy(rules: &Rules, remote: &Remote, owner: u32) -> Policy {
    let anonymous = remote.allow.clone();
    let policy = match &rules.rules {
        Some(rules) => Policy::new(rules.clone(), anonymous),
        None => Policy::of_session(owner, anonymous),
    };
    policy.with_allowances(rules.quotas.clone())
}

fn grants_as_texts<S: Serializer>(grants: &[Grant], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(grants.iter().map(Grant::to_string))
}

fn rules_as_texts<S: Serializer>(rules: &Option<Vec<Rule>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(rules.iter().flatten().map(Rule::text))
}

fn allowances_as_texts<S: Serializer>(allowances: &[Allowance], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(allowances.iter().map(Allowance::to_string))
}
