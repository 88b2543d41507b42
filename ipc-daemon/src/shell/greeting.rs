//! What to tell somebody who came to the socket speaking something else.

/// What the first bytes of a connection that is not ours look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stranger {
    /// A request of HTTP/1: somebody tried the socket with curl or a browser.
    Http,
    /// Text: somebody typed, or sent lines.
    Text,
    /// Anything else: TLS, another binary protocol, noise.
    Binary,
}

const HTTP_METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"TRACE "];

const HTTP_ANSWER: &str = "HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 84\r\n\
    Connection: close\r\n\
    \r\n\
    This is the socket of the ipc message bus, which does not speak HTTP. Use ipc-cli.\r\n";

const TEXT_ANSWER: &str =
    "This is the socket of the ipc message bus, which does not speak text. Use ipc-cli.\r\n";

impl Stranger {
    /// Recognises the first bytes that arrived, of which there is at least one. A beginning is enough: who sends the first
    /// letter of a word and waits is answered all the same.
    pub(crate) fn recognise(first: &[u8]) -> Self {
        let is_start_of = |method: &&[u8]| {
            let shared = method.len().min(first.len());
            shared > 0 && method[..shared] == first[..shared]
        };
        if HTTP_METHODS.iter().any(is_start_of) {
            return Stranger::Http;
        }
        let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n');
        if first.iter().take(64).all(is_text) { Stranger::Text } else { Stranger::Binary }
    }

    /// What to say in the stranger's own language; `None` when only a frame of the bus's can be said.
    pub(crate) fn answer(self) -> Option<&'static str> {
        match self {
            Stranger::Http => Some(HTTP_ANSWER),
            Stranger::Text => Some(TEXT_ANSWER),
            Stranger::Binary => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_recognised() {
        for (first, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Stranger::Http),
            (b"G", Stranger::Http),
            (b"POST", Stranger::Http),
            (b"GETTING", Stranger::Text),
            (b"hello\n", Stranger::Text),
            (b"\x16\x03\x01", Stranger::Binary),
            (b"hello\0", Stranger::Binary),
            (b"\x89IPD", Stranger::Binary),
        ] {
            assert_eq!(Stranger::recognise(first), expected, "{first:?}");
        }
    }

    #[test]
    fn the_answer_to_http_is_well_formed() {
        let (head, body) = HTTP_ANSWER.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
