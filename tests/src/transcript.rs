//! A recorded conversation of several clients with the bus, and replaying it against any later daemon.
//!
//! A line is `CLIENT connects`, `CLIENT > HEX` for bytes that it sends, `CLIENT < HEX` for a frame that it receives
//! next, `CLIENT ends` when it will send nothing more, `CLIENT leaves` when it closes its connection, `CLIENT is closed`
//! when the daemon does, or `N us pass`; the rest of a line behind `#` is for people. What a daemon may choose anew each
//! time (epoch, numbers of peers, topics, calls and registrations, remaining deadlines, words for people) is not
//! compared, but a number that was chosen keeps its meaning to the end of the conversation, or until it is announced
//! anew.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use ipc_core::wire::codec::{self, Wire};
use ipc_core::wire::coordination::{Granted, Leader, OfToken, Operation, Passed, Told, Waiting};
use ipc_core::wire::message::{Close, ErrorBody, IdentityInfo, PeerInfo, Registered, Welcome};
use ipc_core::wire::{Decoder, Flags, FrameLimits, HEADER_BYTES, Header, Kind, PREAMBLE, encode_frame};

use crate::memory_bus::Received;

/// Something that clients can talk to.
pub trait Bus {
    /// Opens the connection of a client.
    fn connect(&mut self, client: &str);
    /// Sends bytes of a client.
    fn send(&mut self, client: &str, bytes: &[u8]);
    /// The next frame that a client receives; `None` if none comes.
    fn receive(&mut self, client: &str) -> Option<Received>;
    /// Says that the client will send nothing more.
    fn end(&mut self, client: &str);
    /// Closes the connection of a client.
    fn leave(&mut self, client: &str);
    /// Whether the daemon has closed the connection, waiting for it if need be.
    fn is_closed(&mut self, client: &str) -> bool;
    /// Lets time pass, where time is not passing by itself.
    fn pass(&mut self, duration: Duration);
    /// A client that has something to receive, where that can be known.
    fn unread(&mut self) -> Option<String>;
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
    /// The client will send nothing more.
    End(String),
    /// The client closes its connection.
    Leave(String),
    /// The daemon closes the client's connection.
    Closed(String),
    /// Time passes.
    Pass(Duration),
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
            [client, "ends"] => Some(Step::End((*client).to_owned())),
            [client, "leaves"] => Some(Step::Leave((*client).to_owned())),
            [client, "is", "closed"] => Some(Step::Closed((*client).to_owned())),
            [micros, "us", "pass"] => micros.parse().ok().map(|us| Step::Pass(Duration::from_micros(us))),
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
    let bytes = |client: &str, way: char, bytes: &[u8]| {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let kind = if bytes.starts_with(&PREAMBLE) { "preamble" } else { Kind(bytes[0]).name() };
        format!("{client} {way} {digits} # {kind}\n")
    };
    let lines = steps.iter().map(|step| match step {
        Step::Connect(client) => format!("{client} connects\n"),
        Step::Send(client, frame) => bytes(client, '>', frame),
        Step::Receive(client, frame) => bytes(client, '<', frame),
        Step::End(client) => format!("{client} ends\n"),
        Step::Leave(client) => format!("{client} leaves\n"),
        Step::Closed(client) => format!("{client} is closed\n"),
        Step::Pass(duration) => format!("{} us pass\n", duration.as_micros()),
    });
    lines.collect()
}

/// Has the conversation again.
///
/// # Panics
/// When the bus says something else than was recorded, with the line.
pub fn replay(steps: &[Step], bus: &mut dyn Bus) {
    let mut numbers = Numbers::default();
    let mut is_answering = false;
    for (index, step) in steps.iter().enumerate() {
        let is_answer = matches!(step, Step::Receive(..) | Step::Closed(_));
        if is_answering && !is_answer {
            assert_eq!(bus.unread(), None, "step {index}: somebody has received more than was recorded");
        }
        is_answering = is_answer;
        match step {
            Step::Connect(client) => bus.connect(client),
            Step::Send(client, bytes) => {
                numbers.note_question(client, bytes);
                bus.send(client, &numbers.readdressed(client, bytes));
            }
            Step::Receive(client, recorded) => {
                let recorded = frame(recorded);
                let told = format!("step {index}: {client} was to receive {:?}", recorded.header.kind);
                let received = bus.receive(client).unwrap_or_else(|| panic!("{told}, and nothing comes"));
                if let Err(difference) = numbers.compare(client, &recorded, &received) {
                    panic!("{told}: {difference}\nrecorded {recorded:?}\nreceived {received:?}");
                }
            }
            Step::End(client) => bus.end(client),
            Step::Leave(client) => bus.leave(client),
            Step::Closed(client) => assert!(bus.is_closed(client), "step {index}: {client} was to be closed"),
            Step::Pass(duration) => bus.pass(*duration),
        }
    }
    assert_eq!(bus.unread(), None, "somebody has received more than was recorded");
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
    /// Of coordination; the same for every client.
    Token,
}

/// Numbers that the daemon chose, recorded and received.
#[derive(Debug, Default)]
struct Numbers {
    /// By the client that was told them: each connection has its own.
    known: BTreeMap<(Sort, String, u64), u64>,
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
    fn readdressed(&self, client: &str, bytes: &[u8]) -> Vec<u8> {
        let Some(Ok(mut header)) = bytes.first_chunk::<HEADER_BYTES>().map(Header::parse) else {
            return bytes.to_vec();
        };
        match header.kind {
            Kind::REPLY => header.correlation = self.chosen(Sort::Call, client, header.correlation),
            Kind::UNREGISTER => {
                let id = self.chosen(Sort::Registration, client, header.handle.index.into());
                header.handle.index = u32::try_from(id).expect("a registration has 32 bits");
            }
            Kind::COORDINATE if OF_TOKEN.contains(&Operation(header.handle.index)) => {
                let (envelope, payload) = bytes[HEADER_BYTES..].split_at(header.envelope_len.into());
                let OfToken { token } = codec::decode(envelope).expect("a recorded token");
                let token = self.chosen(Sort::Token, "", token);
                let mut readdressed = Vec::new();
                encode_frame(&mut readdressed, header, &OfToken { token }, payload).expect("a small frame");
                return readdressed;
            }
            // Whatever else a client sends it has chosen itself.
            _ => return bytes.to_vec(),
        }
        [&header.to_bytes(), &bytes[HEADER_BYTES..]].concat()
    }

    fn chosen(&self, sort: Sort, client: &str, recorded: u64) -> u64 {
        self.known.get(&(sort, client.to_owned(), recorded)).copied().unwrap_or(recorded)
    }

    /// Remembers that `received` stands where `recorded` stood; fails if something else did before.
    fn same(&mut self, sort: Sort, client: &str, recorded: u64, received: u64) -> Result<(), String> {
        match *self.known.entry((sort, client.to_owned(), recorded)).or_insert(received) {
            known if known == received => Ok(()),
            known => Err(format!("{sort:?} {recorded} was {known} before and is {received}")),
        }
    }

    /// What an announcement says is so from here on, whatever was before.
    fn announced(&mut self, sort: Sort, client: &str, recorded: u64, received: u64) {
        self.known.insert((sort, client.to_owned(), recorded), received);
    }

    fn compare(&mut self, client: &str, recorded: &Received, received: &Received) -> Result<(), String> {
        let (old, new) = (&recorded.header, &received.header);
        equal("kind", old.kind, new.kind)?;
        equal("flags", old.flags, new.flags)?;
        equal("payload kind", old.payload_kind, new.payload_kind)?;
        equal("sequence", old.sequence, new.sequence)?;
        equal("whether there is a deadline", old.deadline_us > 0, new.deadline_us > 0)?;
        equal("whether there is a sender", old.sender > 0, new.sender > 0)?;
        if old.kind == Kind::PEER_ANNOUNCED {
            self.announced(Sort::Peer, client, old.sender.into(), new.sender.into());
        }
        self.same(Sort::Peer, client, old.sender.into(), new.sender.into())?;
        equal("payload", &recorded.payload, &received.payload)?;
        match old.kind {
            Kind::CALL => {
                self.same(Sort::Call, client, old.correlation, new.correlation)?;
                self.same(Sort::Registration, client, old.handle.index.into(), new.handle.index.into())?;
                equal("method", old.handle.generation, new.handle.generation)?;
            }
            Kind::CANCEL => self.same(Sort::Call, client, old.correlation, new.correlation)?,
            Kind::ACQUIRED => {
                self.same(Sort::Registration, client, old.handle.index.into(), new.handle.index.into())?;
            }
            Kind::EVENT | Kind::GAP | Kind::TOPIC_ANNOUNCED => {
                equal("correlation", old.correlation, new.correlation)?;
                if old.kind == Kind::TOPIC_ANNOUNCED {
                    self.announced(Sort::Topic, client, topic(old), topic(new));
                }
                self.same(Sort::Topic, client, topic(old), topic(new))?;
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
            equal("resource", old.resource, new.resource)?;
            return equal("application code", old.application_code, new.application_code);
        }
        match recorded.header.kind {
            Kind::WELCOME => {
                let (old, new): (Welcome, Welcome) = both(recorded, received)?;
                equal("version", old.version, new.version)?;
                equal("features", old.features, new.features)
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
                self.same(Sort::Registration, client, old.registration.into(), new.registration.into())
            }
            Kind::OUTCOME | Kind::WAITING | Kind::NOTICE => self.compare_coordination(recorded, received),
            _ => equal("envelope", &recorded.envelope, &received.envelope),
        }
    }

    /// Tokens and generations are the daemon's choice.
    fn compare_coordination(&mut self, recorded: &Received, received: &Received) -> Result<(), String> {
        let number = recorded.header.handle.index;
        equal("number", number, received.header.handle.index)?;
        let (old, new) = match (recorded.header.kind, Operation(number), Told(number)) {
            (Kind::WAITING, ..) => {
                let (old, new): (Waiting, Waiting) = both(recorded, received)?;
                equal("what it waits for", Waiting { token: 0, ..old }, Waiting { token: 0, ..new })?;
                (old.token, new.token)
            }
            (Kind::OUTCOME, Operation::ARRIVE, _) => {
                let (old, new): (Passed, Passed) = both(recorded, received)?;
                equal("place", old.place, new.place)?;
                (old.generation, new.generation)
            }
            (Kind::OUTCOME, Operation::OBSERVE, _) | (Kind::NOTICE, _, Told::LEADER) => {
                let (old, new): (Leader, Leader) = both(recorded, received)?;
                (old.token, new.token)
            }
            (Kind::OUTCOME, operation, _) if GRANTING.contains(&operation) => {
                let (old, new): (Granted, Granted) = both(recorded, received)?;
                equal("grant", Granted { token: 0, ..old }, Granted { token: 0, ..new })?;
                (old.token, new.token)
            }
            _ => return equal("envelope", &recorded.envelope, &received.envelope),
        };
        self.same(Sort::Token, "", old, new)
    }
}

/// Operations about something that has a token.
const OF_TOKEN: [Operation; 3] = [Operation::RENEW, Operation::RELEASE, Operation::PROCLAIM];
/// Operations whose outcome is a grant.
const GRANTING: [Operation; 5] =
    [Operation::LEASE, Operation::RENEW, Operation::LOCK, Operation::ACQUIRE, Operation::CAMPAIGN];

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
            Step::Pass(Duration::from_millis(1)),
            Step::End("a".to_owned()),
            Step::Closed("a".to_owned()),
            Step::Leave("b".to_owned()),
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
        assert_eq!(numbers.readdressed("a", &reply.to_bytes()), reply.with_correlation(20).to_bytes());
    }
}
