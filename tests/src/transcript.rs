//! A recorded conversation of several clients with the bus, and replaying it against any later daemon.
//!
//! A line is `CLIENT connects`, `CLIENT > HEX` for bytes that it sends, or `CLIENT < HEX` for a frame that it receives
//! next; the rest of a line behind `#` is for people. What a daemon may choose anew each time (epoch, numbers of peers,
//! topics, calls and registrations, remaining deadlines, words for people) is not compared, but a number that was
//! chosen keeps its meaning to the end of the conversation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ipc_core::wire::codec::{self, Wire};
use ipc_core::wire::message::{Close, ErrorBody, IdentityInfo, PeerInfo, Registered, Welcome};
use ipc_core::wire::{Decoder, Flags, FrameLimits, HEADER_BYTES, Header, Kind, PREAMBLE};

use crate::memory_bus::Received;

/// Something that clients can talk to.
pub trait Bus {
    /// Opens the connection of a client.
    fn connect(&mut self, client: &str);
    /// Sends bytes of a client.
    fn send(&mut self, client: &str, bytes: &[u8]);
    /// The next frame that a client receives; `None` if none comes.
    fn receive(&mut self, client: &str) -> Option<Received>;
}

/// One line of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The client opens its connection.
    Connect(String),
    /// The client sends these bytes.
    Send(String, Vec<u8>),
    /// The client receives this frame.
    Receive(String, Vec<u8>),
}

/// Reads a transcript.
///
/// # Errors
/// The number of the line that is none, with the line.
pub fn parse(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default().trim();
        let words: Vec<&str> = content.split_whitespace().collect();
        let step = match words.as_slice() {
            [] => continue,
            [client, "connects"] => Some(Step::Connect((*client).to_owned())),
            [client, ">", digits] => bytes_of(digits).map(|bytes| Step::Send((*client).to_owned(), bytes)),
            [client, "<", digits] => bytes_of(digits).map(|bytes| Step::Receive((*client).to_owned(), bytes)),
            _ => None,
        };
        steps.push(step.ok_or_else(|| format!("line {}: {line}", number + 1))?);
    }
    Ok(steps)
}

fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Writes a transcript, each frame with its kind for people.
pub fn render(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        let (client, way, bytes) = match step {
            Step::Connect(client) => {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{client} connects");
                continue;
            }
            Step::Send(client, bytes) => (client, '>', bytes),
            Step::Receive(client, bytes) => (client, '<', bytes),
        };
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let kind = if bytes.starts_with(&PREAMBLE) { "preamble" } else { Kind(bytes[0]).name() };
        let _ = writeln!(text, "{client} {way} {digits} # {kind}");
    }
    text
}

/// Has the conversation again.
///
/// # Panics
/// When the bus says something else than was recorded, with the line.
pub fn replay(steps: &[Step], bus: &mut dyn Bus) {
    let mut numbers = Numbers::default();
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::Connect(client) => bus.connect(client),
            Step::Send(client, bytes) => {
                numbers.note_question(client, bytes);
                bus.send(client, &numbers.readdressed(bytes));
            }
            Step::Receive(client, recorded) => {
                let recorded = frame(recorded);
                let told = format!("step {index}: {client} was to receive {:?}", recorded.header.kind);
                let received = bus.receive(client).unwrap_or_else(|| panic!("{told}, and nothing comes"));
                if let Err(difference) = numbers.compare(client, &recorded, &received) {
                    panic!("{told}: {difference}\nrecorded {recorded:?}\nreceived {received:?}");
                }
            }
        }
    }
}

fn frame(bytes: &[u8]) -> Received {
    let limits = FrameLimits { payload_max_bytes: u32::MAX, frame_max_bytes: None };
    let mut decoder = Decoder::new(limits);
    let decoded = decoder.next(&mut &bytes[..]).expect("a recorded frame").expect("a whole frame");
    let (envelope, payload) = (decoded.envelope.to_vec(), decoded.body.as_slice().to_vec());
    Received { header: decoded.header, envelope, payload }
}

/// What a number names; each sort is counted on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Peer,
    Topic,
    Call,
    Registration,
}

/// Numbers that the daemon chose, recorded and received.
#[derive(Debug, Default)]
struct Numbers {
    known: BTreeMap<(Sort, u64), u64>,
    /// Who has asked to register, under which number: the answer holds a number that the daemon chose.
    registering: BTreeSet<(String, u64)>,
}

impl Numbers {
    fn note_question(&mut self, client: &str, bytes: &[u8]) {
        if let Some(Ok(header)) = bytes.first_chunk::<HEADER_BYTES>().map(Header::parse)
            && header.kind == Kind::REGISTER
        {
            self.registering.insert((client.to_owned(), header.correlation));
        }
    }

    /// The frame as it is sent in this conversation: with the numbers that this daemon chose.
    fn readdressed(&self, bytes: &[u8]) -> Vec<u8> {
        let Some(Ok(mut header)) = bytes.first_chunk::<HEADER_BYTES>().map(Header::parse) else {
            return bytes.to_vec();
        };
        match header.kind {
            Kind::REPLY => header.correlation = self.chosen(Sort::Call, header.correlation),
            Kind::UNREGISTER => {
                let id = self.chosen(Sort::Registration, header.handle.index.into());
                header.handle.index = u32::try_from(id).expect("a registration has 32 bits");
            }
            // Whatever else a client sends it has chosen itself.
            _ => return bytes.to_vec(),
        }
        [&header.to_bytes(), &bytes[HEADER_BYTES..]].concat()
    }

    fn chosen(&self, sort: Sort, recorded: u64) -> u64 {
        self.known.get(&(sort, recorded)).copied().unwrap_or(recorded)
    }

    /// Remembers that `received` stands where `recorded` stood; fails if something else did before.
    fn same(&mut self, sort: Sort, recorded: u64, received: u64) -> Result<(), String> {
        match *self.known.entry((sort, recorded)).or_insert(received) {
            known if known == received => Ok(()),
            known => Err(format!("{sort:?} {recorded} was {known} before and is {received}")),
        }
    }

    fn compare(&mut self, client: &str, recorded: &Received, received: &Received) -> Result<(), String> {
        let (old, new) = (&recorded.header, &received.header);
        equal("kind", old.kind, new.kind)?;
        equal("flags", old.flags, new.flags)?;
        equal("payload kind", old.payload_kind, new.payload_kind)?;
        equal("sequence", old.sequence, new.sequence)?;
        equal("whether there is a deadline", old.deadline_us > 0, new.deadline_us > 0)?;
        equal("whether there is a sender", old.sender > 0, new.sender > 0)?;
        self.same(Sort::Peer, old.sender.into(), new.sender.into())?;
        equal("payload", &recorded.payload, &received.payload)?;
        match old.kind {
            Kind::CALL => {
                self.same(Sort::Call, old.correlation, new.correlation)?;
                self.same(Sort::Registration, old.handle.index.into(), new.handle.index.into())?;
                equal("method", old.handle.generation, new.handle.generation)?;
            }
            Kind::CANCEL => self.same(Sort::Call, old.correlation, new.correlation)?,
            Kind::EVENT | Kind::GAP | Kind::TOPIC_ANNOUNCED => {
                equal("correlation", old.correlation, new.correlation)?;
                self.same(Sort::Topic, topic(old), topic(new))?;
            }
            _ => equal("correlation", old.correlation, new.correlation)?,
        }
        self.compare_envelopes(client, recorded, received)
    }

    fn compare_envelopes(
        &mut self,
        client: &str,
        recorded: &Received,
        received: &Received,
    ) -> Result<(), String> {
        if recorded.header.flags.contains(Flags::ERROR) {
            let (old, new): (ErrorBody, ErrorBody) = both(recorded, received)?;
            equal("error code", old.code, new.code)?;
            return equal("application code", old.application_code, new.application_code);
        }
        match recorded.header.kind {
            Kind::WELCOME => {
                let (old, new): (Welcome, Welcome) = both(recorded, received)?;
                equal("version", old.version, new.version)
            }
            Kind::CLOSE => {
                let (old, new): (Close, Close) = both(recorded, received)?;
                equal("reason", old.code, new.code)
            }
            Kind::PEER_ANNOUNCED => {
                let (old, new): (PeerInfo, PeerInfo) = both(recorded, received)?;
                let is_local = |info: &PeerInfo| matches!(info.identity, IdentityInfo::Local { .. });
                equal("whether it is a local process", is_local(&old), is_local(&new))
            }
            Kind::DONE if self.registering.remove(&(client.to_owned(), recorded.header.correlation)) => {
                let (old, new): (Registered, Registered) = both(recorded, received)?;
                equal("whether it waits", old.queued, new.queued)?;
                self.same(Sort::Registration, old.registration.into(), new.registration.into())
            }
            _ => equal("envelope", &recorded.envelope, &received.envelope),
        }
    }
}

fn topic(header: &Header) -> u64 {
    u64::from(header.handle.index) << 16 | u64::from(header.handle.generation)
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, recorded: T, received: T) -> Result<(), String> {
    if recorded == received { Ok(()) } else { Err(format!("{what} was {recorded:?} and is {received:?}")) }
}

fn both<T: Wire>(recorded: &Received, received: &Received) -> Result<(T, T), String> {
    match (codec::decode(&recorded.envelope), codec::decode(&received.envelope)) {
        (Ok(old), Ok(new)) => Ok((old, new)),
        (Err(error), _) => Err(format!("the recorded envelope: {error}")),
        (_, Err(error)) => Err(format!("the received envelope: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_reads_as_it_was_written() {
        let steps = vec![
            Step::Connect("a".to_owned()),
            Step::Send("a".to_owned(), PREAMBLE.to_vec()),
            Step::Receive("a".to_owned(), Header::new(Kind::PONG).to_bytes().to_vec()),
        ];
        let text = render(&steps);
        assert_eq!(parse(&text), Ok(steps));
        assert!(text.contains("# preamble\n") && text.contains("# pong\n"));
        assert_eq!(parse("a > 0x"), Err("line 1: a > 0x".to_owned()));
    }

    #[test]
    fn a_chosen_number_keeps_its_meaning() {
        let received = |correlation, index| {
            let handle = ipc_core::id::Handle { index, generation: 0 };
            let header = Header::new(Kind::CALL).with_correlation(correlation).with_handle(handle);
            Received { header, envelope: Vec::new(), payload: Vec::new() }
        };
        let mut numbers = Numbers::default();
        assert_eq!(numbers.compare("a", &received(1, 5), &received(10, 50)), Ok(()));
        assert_eq!(numbers.compare("a", &received(2, 5), &received(20, 50)), Ok(()));
        assert!(numbers.compare("a", &received(1, 5), &received(20, 50)).is_err());
        assert!(numbers.compare("a", &received(1, 6), &received(10, 50)).is_ok());
        let reply = Header::new(Kind::REPLY).with_correlation(2);
        assert_eq!(numbers.readdressed(&reply.to_bytes()), reply.with_correlation(20).to_bytes());
    }
}
