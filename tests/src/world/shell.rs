//! The daemon's side of the simulated sockets, done the way the real event loop does it, and the clients' reading.

use core::time::Duration;

use ipc_core::Error;
use ipc_core::name::{MethodName, ServiceName};
use ipc_core::wire::Decoder;
use ipc_daemon::broker::{Access, Output, PeerKey, Transport, refusal_frame};

use super::{Arrival, Client, Connection, Link, Seen, Socket, World};
use crate::model::{Queues, Snapshot};

/// How long the event loop waits for a last write.
const LINGER: Duration = Duration::from_secs(1);

impl World {
    /// Opens a connection. A client that is still connected is left as it is.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn connect(&mut self, arrival: &Arrival) -> Result<(), String> {
        if self.position(arrival.slot).is_none() {
            self.connect_as(arrival)?;
        }
        Ok(())
    }

    /// The same, whoever is connected already; says with what error the broker has refused it, if it has.
    pub(super) fn connect_as(&mut self, arrival: &Arrival) -> Result<Option<Error>, String> {
        let number = self.opened;
        self.opened += 1;
        let (transport, access) = door_of(arrival)?;
        let outcome = self.broker.connect(self.now, arrival.identity.clone(), transport, access);
        self.coverage.count(&admission_name(transport, outcome.as_ref().err()));
        let has_preamble = arrival.only.is_none() && !arrival.is_visitor;
        let mut link = Link::new(arrival.capacity, has_preamble);
        let snapshot = Snapshot::of(&self.broker);
        self.model.connect(self.now, number, arrival, outcome.as_ref().err(), &snapshot)?;
        let (socket, limits) = match &outcome {
            Ok(key) => (Socket::Open(*key), self.broker.frame_limits(*key)),
            Err(error) => {
                let bytes = refusal_frame(error);
                link.down.capacity = link.down.capacity.max(bytes.len());
                link.down.write(&bytes);
                link.down.end();
                let limits = ipc_core::wire::FrameLimits { payload_max_bytes: 0, frame_max_bytes: None };
                (Socket::Closed, limits)
            }
        };
        let decoder = if has_preamble { Decoder::after_preamble(limits) } else { Decoder::new(limits) };
        self.connections.push(Connection {
            number,
            slot: arrival.slot,
            socket,
            decoder,
            link,
            client: Client::new(),
            is_cut: false,
            is_whole: outcome.is_err(),
            has_read_all: false,
            is_abandoned: false,
            is_over: false,
            is_tcp: transport == Transport::Tcp,
            visitor: None,
        });
        self.outputs()?;
        Ok(outcome.err())
    }

    /// The daemon reads once from a connection. Says whether anything happened.
    pub(super) fn daemon_reads(&mut self, at: usize, max: usize) -> Result<bool, String> {
        let Socket::Open(key) = self.connections[at].socket else { return Ok(false) };
        let up = &mut self.connections[at].link.up;
        if up.is_at_end() {
            return self.end_of_input(at, key);
        }
        let bytes = up.read(max);
        if bytes.is_empty() {
            return Ok(false);
        }
        self.feed(at, key, &bytes)?;
        if self.connections[at].decoder.is_mid_frame() {
            self.coverage.count("fault.split_read");
        }
        self.outputs()?;
        Ok(true)
    }

    /// The daemon has read the end. A client that is gone altogether is noticed as a hang-up.
    fn end_of_input(&mut self, at: usize, key: PeerKey) -> Result<bool, String> {
        let connection = &mut self.connections[at];
        if connection.link.down.is_ended() {
            self.disconnect(at, key)?;
            return Ok(true);
        }
        if connection.has_read_all {
            return Ok(false);
        }
        connection.has_read_all = true;
        self.broker.handle_eof(key);
        self.model.eof(self.now, connection.number);
        self.reconcile()?;
        self.outputs()?;
        Ok(true)
    }

    /// Lets the model take in what the broker has decided for itself.
    pub(super) fn reconcile(&mut self) -> Result<(), String> {
        self.model.reconcile(&Queues::of(&self.broker))
    }

    fn feed(&mut self, at: usize, key: PeerKey, mut bytes: &[u8]) -> Result<(), String> {
        let World { connections, broker, model, coverage, now, mail, .. } = self;
        let connection = &mut connections[at];
        broker.handle_first_bytes(key);
        model.first_bytes(connection.number);
        loop {
            match connection.decoder.next(&mut bytes) {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => {
                    let seen = Seen::of(&frame);
                    mail.ledger.sent(connection.number, &seen);
                    let before = Queues::of(broker);
                    broker.handle_frame(*now, key, frame);
                    let after = Queues::of(broker);
                    coverage.count(&format!("sent.{}", seen.kind().name()));
                    model.frame(*now, connection.number, &seen, &before, &after)?;
                    connection.decoder.set_limits(broker.frame_limits(key));
                }
                Err(error) => {
                    broker.handle_violation(key, error);
                    coverage.count("sent.violation");
                    model.violation(*now, connection.number);
                    return self.reconcile();
                }
            }
        }
    }

    /// Does what the broker has asked for.
    pub(super) fn outputs(&mut self) -> Result<(), String> {
        let mut next = self.broker.poll_output();
        // With that question it has handed in what waits for a disk that does nothing else.
        if self.disk.is_some() && !self.is_disk_busy() {
            self.model.disk_is_free(self.now);
            self.reconcile()?;
        }
        while let Some(output) = next {
            match output {
                Output::Flush(key) => {
                    // One that has ended since then is of no interest.
                    if let Some(at) = self.position_of_key(key) {
                        self.write(at, key, usize::MAX)?;
                    }
                }
                // Simulated processes live as long as their connections.
                Output::WatchProcess(_) => {}
                Output::Commit => {
                    let disk = self.disk.as_mut().ok_or("a daemon without a store commits something")?;
                    disk.begin(self.broker.take_commit().ok_or("there is no commit")?);
                }
                Output::Close(key) => {
                    if let Some(at) = self.position_of_key(key) {
                        self.close(at, key)?;
                    }
                }
            }
            next = self.broker.poll_output();
        }
        Ok(())
    }

    /// The broker has asked for the end of a connection.
    fn close(&mut self, at: usize, key: PeerKey) -> Result<(), String> {
        self.model.closing(self.connections[at].number)?;
        self.write(at, key, usize::MAX)?;
        if self.connections[at].socket == Socket::Closed {
            return Ok(());
        }
        if self.broker.has_pending(key) {
            self.connections[at].socket = Socket::Closing(key, self.now + LINGER);
            self.coverage.count("fault.lingering_close");
            return Ok(());
        }
        self.disconnect(at, key)
    }

    /// The kernel has room again. Says whether anything happened.
    pub(super) fn daemon_writes(&mut self, at: usize, max: usize) -> Result<bool, String> {
        let Some(key) = self.connections[at].socket.key() else { return Ok(false) };
        let down = &self.connections[at].link.down;
        if !self.broker.has_pending(key) || (down.room() == 0 && !down.is_ended()) {
            return Ok(false);
        }
        self.broker.writable(self.now, key);
        let written = self.write(at, key, max)?;
        let is_closing = matches!(self.connections[at].socket, Socket::Closing(..));
        if is_closing && !self.broker.has_pending(key) {
            self.disconnect(at, key)?;
            return Ok(true);
        }
        self.outputs()?;
        Ok(written > 0)
    }

    /// One vectored write, of which the kernel takes what it has room for, and at most `max` bytes.
    fn write(&mut self, at: usize, key: PeerKey, max: usize) -> Result<usize, String> {
        let World { connections, broker, model, now, coverage, .. } = self;
        if !broker.has_pending(key) {
            return Ok(0);
        }
        let connection = &mut connections[at];
        if connection.link.down.is_empty() && !connection.client.is_mid_frame() {
            model.nothing_under_way(*now, connection.number);
        }
        let down = &mut connection.link.down;
        if down.is_ended() {
            // The client's end is gone: EPIPE.
            self.disconnect(at, key)?;
            return Ok(0);
        }
        let mut taken = 0;
        for slice in broker.transmit(key) {
            let count = down.write(&slice[..slice.len().min(max - taken)]);
            taken += count;
            if count < slice.len() {
                coverage.count("fault.partial_write");
                break;
            }
        }
        broker.transmitted(*now, key, taken);
        Ok(taken)
    }

    /// The daemon closes its end.
    fn disconnect(&mut self, at: usize, key: PeerKey) -> Result<(), String> {
        let connection = &mut self.connections[at];
        connection.socket = Socket::Closed;
        connection.link.down.end();
        connection.link.up.cut(0);
        connection.is_whole = !connection.is_cut && !self.broker.has_pending(key);
        let number = connection.number;
        self.broker.disconnect(key);
        self.model.disconnect(self.now, number);
        self.reconcile()?;
        self.outputs()
    }

    /// Wakes the broker, and ends closings that took too long.
    pub(super) fn wake(&mut self) -> Result<(), String> {
        for at in 0..self.connections.len() {
            if let Socket::Closing(key, until) = self.connections[at].socket
                && until <= self.now
            {
                self.disconnect(at, key)?;
            }
        }
        if self.broker.poll_timeout().is_some_and(|due| due <= self.now) {
            self.broker.handle_timeout(self.now);
            self.model.timeout(self.now);
            self.reconcile()?;
        }
        self.wake_mail()?;
        self.outputs()
    }

    /// A client reads once. Says whether anything happened.
    pub(super) fn client_reads(&mut self, at: usize, max: usize) -> Result<bool, String> {
        let connection = &mut self.connections[at];
        if connection.is_over || connection.is_abandoned {
            return Ok(false);
        }
        if connection.link.down.is_stalled {
            return Ok(false);
        }
        if connection.link.down.is_at_end() {
            connection.is_over = true;
            let visitor = connection.visitor.take();
            if !connection.is_cut {
                self.model.ended(connection.number, connection.is_whole)?;
            }
            if let Some(key) = visitor {
                self.visitor_reads(key, None)?;
            }
            return Ok(true);
        }
        let bytes = connection.link.down.read(max);
        if bytes.is_empty() {
            return Ok(false);
        }
        let frames = connection.client.receive(&bytes)?;
        let (number, visitor, is_tcp) = (connection.number, connection.visitor, connection.is_tcp);
        for frame in &frames {
            let name = super::coverage_name(frame);
            if is_tcp {
                self.coverage.count(&format!("tcp.{name}"));
            }
            self.coverage.count(&name);
            self.model.received(self.now, number, frame)?;
            self.mail.ledger.received(number, frame)?;
        }
        if let Some(key) = visitor {
            self.visitor_reads(key, Some(&bytes))?;
        }
        Ok(true)
    }

    /// The bytes that the broker says are queued are those that the links have not taken; and where nothing is on its
    /// way any more, nothing is due any more.
    pub(super) fn audit_links(&mut self, queues: &Queues) -> Result<(), String> {
        for connection in &self.connections {
            let Some(key) = connection.socket.key() else { continue };
            let offered: usize = self.broker.transmit(key).map(<[u8]>::len).sum();
            if self.broker.has_pending(key) != (offered > 0) {
                return Err(format!("connection {}: pending but nothing to write", connection.number));
            }
            self.model.audit_queue(connection.number, offered as u64, queues)?;
            if offered == 0
                && connection.link.down.is_empty()
                && !connection.is_abandoned
                && !connection.is_cut
            {
                self.model.is_complete(connection.number)?;
            }
        }
        Ok(())
    }
}

/// By which way somebody comes, and what that grants.
fn door_of(arrival: &Arrival) -> Result<(Transport, Access), String> {
    Ok(match &arrival.only {
        None if arrival.is_visitor => (Transport::UnixDatagram, Access::Granted),
        None if arrival.is_tcp() => (Transport::Tcp, Access::Granted),
        None => (Transport::UnixStream, Access::Granted),
        Some((service, method)) => {
            let service = ServiceName::parse(service).map_err(|error| error.to_string())?;
            let method = MethodName::parse(method).map_err(|error| error.to_string())?;
            (Transport::ExposeTcp, Access::Only { service, method })
        }
    })
}

/// Under which name it is counted that somebody was let in, or was not.
fn admission_name(transport: Transport, refused: Option<&Error>) -> String {
    let Some(error) = refused else { return format!("transport.{}", transport.name()) };
    let resource = error.detail.as_ref().and_then(|detail| detail.resource.as_deref());
    format!("refused.{}", resource.unwrap_or("connection"))
}
