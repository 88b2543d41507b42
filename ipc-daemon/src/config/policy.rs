//! The part of the configuration that says who may do what. Errors have the line and column of the entry.

use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::Place;
use crate::broker::Grant;
use crate::failure::{Failure, on_one_line};

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
    #[serde(serialize_with = "as_texts")]
    allow: Vec<Grant>,
}

impl WrittenRemote {
    pub(super) fn read(self, place: &Place) -> Result<Remote, Failure> {
        let read = |entry: &Spanned<String>| {
            let wrong = |error| place.wrong_at(entry.span().start, on_one_line(&error));
            Grant::parse(entry.get_ref()).map_err(wrong)
        };
        Ok(Remote { allow: self.allow.iter().map(read).collect::<Result<_, Failure>>()? })
    }
}

impl Remote {
    /// What anonymous peers may do.
    pub(super) fn grants(&self) -> Vec<Grant> {
        self.allow.clone()
    }
}

fn as_texts<S: Serializer>(grants: &[Grant], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(grants.iter().map(Grant::to_string))
}
