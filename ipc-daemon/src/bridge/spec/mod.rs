//! SHELL. How a bridge is written: [`expose`] for a port of this machine, [`forward`] for a server of the network.

pub(crate) mod expose;
pub(crate) mod forward;

use core::fmt;
use core::time::Duration;

use ipc_core::Error;
use ipc_core::name::ServiceName;

use expose::ExposeSpec;
use forward::ForwardSpec;

/// A text that is read with `parse`, and written as it is displayed: on the command line, in the configuration, in `status`.
macro_rules! written_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                <$type>::parse(&text).map_err(|error| {
                    <D::Error as serde::de::Error>::custom($crate::failure::on_one_line(&error))
                })
            }
        }
    };
}
use written_as_text;

/// A bridge of either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spec {
    /// From the network.
    Expose(ExposeSpec),
    /// To the network.
    Forward(ForwardSpec),
}

impl Spec {
    /// The service on the bus.
    pub(super) fn service(&self) -> &ServiceName {
        match self {
            Spec::Expose(spec) => &spec.target.service,
            Spec::Forward(spec) => &spec.service,
        }
    }

    /// Its method.
    pub(super) fn method(&self) -> &str {
        match self {
            Spec::Expose(spec) => spec.target.method.as_str(),
            Spec::Forward(_) => forward::METHOD,
        }
    }

    /// Whether both would have the same port, or the same name on the bus.
    pub(super) fn has_place_of(&self, other: &Spec) -> bool {
        match (self, other) {
            (Spec::Expose(one), Spec::Expose(other)) => {
                let is_same_kind = core::mem::discriminant(&one.door) == core::mem::discriminant(&other.door);
                one.address == other.address && is_same_kind
            }
            (Spec::Forward(one), Spec::Forward(other)) => one.service == other.service,
            (Spec::Expose(_), Spec::Forward(_)) | (Spec::Forward(_), Spec::Expose(_)) => false,
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spec::Expose(spec) => spec.fmt(f),
            Spec::Forward(spec) => spec.fmt(f),
        }
    }
}

/// Text of somebody else's in a message: on one line, and not longer than one wants to read.
fn quoted(text: &str) -> String {
    const SHOWN_MAX_CHARS: usize = 100;
    let shown: String = text.chars().take(SHOWN_MAX_CHARS).collect();
    let more = if shown.len() < text.len() { "..." } else { "" };
    format!("\"{}{more}\"", shown.escape_debug())
}

fn shown(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

/// The options behind the commas, `name=value` each. `take` says whether the option was there already.
///
/// # Errors
/// What `take` says, and what `invalid` makes of an option that is none or stands there twice.
fn each_option<'a>(
    options: impl Iterator<Item = &'a str>,
    form: &str,
    invalid: impl Fn(&str) -> Error,
    mut take: impl FnMut(&str, &str) -> Result<bool, Error>,
) -> Result<(), Error> {
    for option in options {
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| invalid(&format!("{} is no option", quoted(option))).with_hint(form))?;
        if take(name, value)? {
            let what = format!("the option {name} is given twice");
            return Err(invalid(&what).with_hint("leave one of them out"));
        }
    }
    Ok(())
}
