//! Payload arguments: a literal, `-` for standard input, or `@FILE`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use ipc_core::limits::PAYLOAD_MAX_CEILING_BYTES;
use ipc_core::{Error, ErrorCode, Payload, PayloadKind};
use serde::de::IgnoredAny;

use super::PayloadAs;

/// Where the bytes of a payload come from, and what they are declared to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PayloadArgument {
    source: Source,
    kind: Option<PayloadAs>,
}

#[derive(Debug, PartialEq, Eq)]
enum Source {
    Literal(Vec<u8>),
    Stdin,
    File(PathBuf),
}

impl PayloadArgument {
    /// Reads the argument as written; one that is not there is the empty payload.
    pub(crate) fn new(argument: Option<OsString>, kind: Option<PayloadAs>) -> Self {
        let bytes = argument.map(OsString::into_vec).unwrap_or_default();
        let source = match bytes.as_slice() {
            b"-" => Source::Stdin,
            [b'@', path @ ..] => Source::File(OsStr::from_bytes(path).into()),
            _ => Source::Literal(bytes),
        };
        Self { source, kind }
    }

    /// Reads the bytes, blocking on standard input or the file, and says what they are.
    ///
    /// # Errors
    /// `io` for a file that cannot be read, `payload_too_large` past what any daemon takes, `invalid_argument` when
    /// the bytes are not what they are declared to be.
    pub(crate) fn read(self) -> Result<Payload, Error> {
        let body = match self.source {
            Source::Literal(bytes) => bytes,
            Source::Stdin => read_bounded(std::io::stdin().lock(), "standard input")?,
            Source::File(path) => {
                let name = format!("'{}'", path.display());
                let file = File::open(&path).map_err(|error| io_error("open", &name, &error))?;
                read_bounded(file, &name)?
            }
        };
        declare(body, self.kind)
    }
}

/// Reads to the end, but never more than the largest payload any daemon takes.
fn read_bounded(source: impl Read, name: &str) -> Result<Vec<u8>, Error> {
    let limit = u64::from(PAYLOAD_MAX_CEILING_BYTES);
    let mut body = Vec::new();
    source.take(limit + 1).read_to_end(&mut body).map_err(|error| io_error("read", name, &error))?;
    if body.len() as u64 > limit {
        return Err(Error::new(
            ErrorCode::PayloadTooLarge,
            format!("{name} holds more than {limit} bytes, the largest payload any daemon takes"),
        )
        .with_hint("send it in parts"));
    }
    Ok(body)
}

fn io_error(verb: &str, name: &str, error: &std::io::Error) -> Error {
    Error::new(ErrorCode::Io, format!("cannot {verb} the payload from {name}: {error}"))
        .with_hint("a payload is a literal, '-' for standard input, or '@FILE'")
}

/// The payload of `body`, as declared, or by its looks.
fn declare(body: Vec<u8>, kind: Option<PayloadAs>) -> Result<Payload, Error> {
    let utf8 = core::str::from_utf8(&body);
    let kind = match (kind, utf8) {
        (None, Ok(_)) | (Some(PayloadAs::Text), Ok(_)) => PayloadKind::Text,
        (None, Err(_)) | (Some(PayloadAs::Bytes), _) => PayloadKind::Bytes,
        (Some(PayloadAs::Text), Err(error)) => {
            return Err(invalid(
                format!("the payload is not UTF-8 text: {error}"),
                "send it with --as bytes",
            ));
        }
        (Some(PayloadAs::Json), _) => {
            serde_json::from_slice::<IgnoredAny>(&body).map_err(|error| {
                invalid(
                    format!("the payload is not JSON: {error}"),
                    "mind the shell's quotes: '{\"key\": 1}'",
                )
            })?;
            PayloadKind::Json
        }
    };
    Ok(Payload { kind, body: body.into() })
}

fn invalid(message: String, hint: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, message).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(argument: &str, kind: Option<PayloadAs>) -> Result<Payload, Error> {
        PayloadArgument::new(Some(argument.into()), kind).read()
    }

    #[test]
    fn literals_are_text_when_they_are_utf8() {
        assert_eq!(read("grüß", None), Ok(Payload::from("grüß")));
        assert_eq!(PayloadArgument::new(None, None).read(), Ok(Payload::from("")));
        let bytes = PayloadArgument::new(Some(OsString::from_vec(vec![0xff, 0x00])), None).read();
        assert_eq!(bytes, Ok(Payload::bytes(vec![0xff, 0x00])));
    }

    #[test]
    fn a_declaration_is_checked() {
        assert_eq!(read("{\"a\": [1]}", Some(PayloadAs::Json)), Ok(Payload::json("{\"a\": [1]}")));
        assert_eq!(read("hi", Some(PayloadAs::Bytes)), Ok(Payload::bytes(b"hi".to_vec())));
        for (bytes, kind) in
            [(&b"{\"a\""[..], PayloadAs::Json), (b"", PayloadAs::Json), (b"\xff", PayloadAs::Text)]
        {
            let argument = OsString::from_vec(bytes.to_vec());
            let error = PayloadArgument::new(Some(argument), Some(kind)).read().expect_err("refused");
            assert_eq!(error.code, ErrorCode::InvalidArgument);
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn a_source_never_holds_more_than_the_limit() {
        let limit = PAYLOAD_MAX_CEILING_BYTES as usize;
        assert_eq!(
            read_bounded(std::io::repeat(0).take(limit as u64), "zeros").map(|body| body.len()),
            Ok(limit)
        );
        let error = read_bounded(std::io::repeat(0), "zeros").expect_err("endless");
        assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read("@/nonexistent/file", None).expect_err("not there");
        assert_eq!(error.code, ErrorCode::Io);
        assert!(error.message.contains("/nonexistent/file"), "{error}");
    }
}
