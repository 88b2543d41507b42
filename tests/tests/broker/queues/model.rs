//! The obvious work queues: lists that are searched, nothing that is remembered twice.

use core::time::Duration;
use std::collections::BTreeMap;

use ipc_core::ErrorCode;
use ipc_core::limits::Limits;
use ipc_core::wire::queue::Overflow;

/// What an entry, or an id that is remembered, costs beside its bytes.
const OVERHEAD_BYTES: usize = 300;

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Ready,
    Delayed(u64),
    Out(usize),
}

/// An entry. Bodies tell them apart.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) order: u64,
    pub(super) body: String,
    pub(super) priority: u8,
    pub(super) max: u32,
    pub(super) deliveries: u32,
    /// What became of it, of a dead letter.
    pub(super) death: Option<String>,
    pub(super) at: At,
    /// With which it was put.
    delay: u64,
    /// It has been taken, or could have been.
    is_settled: bool,
    pub(super) queue: String,
    pub(super) payer: u32,
    /// Length of the id it has, one that the daemon has given included.
    id_length: usize,
}

/// A delivery.
#[derive(Clone, Debug)]
pub(super) struct Out {
    pub(super) client: usize,
    pub(super) is_bound: bool,
    pub(super) body: String,
    pub(super) token: u64,
    pub(super) is_open: bool,
    consumer: Option<usize>,
    until: Option<u64>,
    terms: Terms,
}

/// A request that waits, or a consumer with credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Request(usize),
    Consumer(usize),
}

/// How somebody takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) is_bound: bool,
    pub(super) visibility: Option<u64>,
    pub(super) max: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) client: usize,
    pub(super) correlation: u64,
    pub(super) queue: String,
    terms: Terms,
    until: Option<u64>,
    pub(super) is_open: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Consumer {
    pub(super) client: usize,
    pub(super) correlation: u64,
    pub(super) queue: String,
    terms: Terms,
    credit: u32,
    pub(super) is_open: bool,
}

/// What somebody is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// An entry, in the delivery of that number.
    Given { client: usize, correlation: u64, out: usize, deliveries: u32 },
    /// Nothing came in time.
    Nothing { client: usize, correlation: u64 },
    /// It may not have to do with the queue any more.
    Denied { client: usize, correlation: u64 },
    /// Its consumer is gone.
    Lost { client: usize, correlation: u64 },
}

/// An entry to be put.
#[derive(Clone, Debug)]
pub(super) struct New {
    pub(super) payer: u32,
    pub(super) queue: String,
    pub(super) id: Option<String>,
    pub(super) body: String,
    pub(super) priority: u8,
    pub(super) delay: u64,
    pub(super) max: u32,
    pub(super) max_length: u32,
    pub(super) overflow: Overflow,
}

/// What a put comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Stored { dropped: u32 },
    Duplicate,
    Refused(ErrorCode),
}

#[derive(Debug, Default)]
pub(super) struct Model {
    /// In microseconds.
    pub(super) now: u64,
    pub(super) limits: Limits,
    pub(super) pieces: Vec<Piece>,
    pub(super) outs: Vec<Out>,
    pub(super) requests: Vec<Request>,
    pub(super) consumers: Vec<Consumer>,
    line: BTreeMap<String, Vec<Claim>>,
    /// Ids with their queue, when they are forgotten, and who pays for them, the oldest first.
    ids: Vec<(String, String, u64, u32)>,
    last: u64,
    pub(super) told: Vec<Told>,
    pub(super) dropped: Vec<String>,
    pub(super) acked: Vec<String>,
}

impl Model {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(super) fn in_queue(&self, queue: &str) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().filter(move |piece| piece.queue == queue)
    }

    fn waiting(&self, queue: &str) -> usize {
        self.in_queue(queue).filter(|piece| !matches!(piece.at, At::Out(_))).count()
    }

    fn bytes(&self, uid: u32) -> usize {
        let own = self.pieces.iter().filter(|piece| piece.payer == uid);
        let death = |piece: &Piece| piece.death.as_ref().map_or(0, String::len);
        let entries = own.map(|piece| OVERHEAD_BYTES + piece.id_length + piece.body.len() + death(piece));
        let ids = self.ids.iter().filter(|id| id.3 == uid).map(|id| OVERHEAD_BYTES + id.1.len());
        entries.chain(ids).sum()
    }

    /// Whether a user may have one entry more: whoever has more of them than are left gets none, however few others have.
    fn has_share(&self, uid: u32) -> bool {
        let own = self.pieces.iter().filter(|piece| piece.payer == uid).count();
        own + self.pieces.len() < self.limits.work_queue_entries_max as usize
    }

    pub(super) fn put(&mut self, new: New) -> Put {
        self.ids.retain(|(queue, _, until, _)| *queue != new.queue || *until > self.now);
        if let Some(id) = &new.id
            && self.ids.iter().any(|(queue, known, ..)| *queue == new.queue && known == id)
        {
            return Put::Duplicate;
        }
        let id_bytes = new.id.as_ref().map_or(0, |id| 2 * id.len() + OVERHEAD_BYTES);
        let fits = self.bytes(new.payer) + OVERHEAD_BYTES + new.body.len() + id_bytes
            <= self.limits.work_queue_bytes_per_uid_max as usize;
        if !self.has_share(new.payer) || !fits {
            return Put::Refused(ErrorCode::QuotaExceeded);
        }
        let allowed = self.limits.work_queue_length_max;
        let max = if new.max_length == 0 { allowed } else { new.max_length.min(allowed) } as usize;
        if self.waiting(&new.queue) >= max && new.overflow == Overflow::Reject {
            return Put::Refused(ErrorCode::QuotaExceeded);
        }
        let mut dropped = 0;
        while self.waiting(&new.queue) >= max {
            self.drop_oldest(&new.queue);
            dropped += 1;
        }
        self.last += 1;
        if let Some(id) = &new.id {
            let until = self.now + u64::from(self.limits.work_queue_id_window_ms) * 1000;
            self.ids.push((new.queue.clone(), id.clone(), until, new.payer));
            let of_queue = self.ids.iter().filter(|(queue, ..)| *queue == new.queue).count();
            if of_queue > self.limits.work_queue_ids_max as usize {
                let oldest = self.ids.iter().position(|(queue, ..)| *queue == new.queue);
                self.ids.remove(oldest.expect("there are some"));
            }
        }
        self.pieces.push(Piece {
            order: self.last,
            // An id that the daemon gives is a number of 10 digits at this time of the clock.
            id_length: new.id.as_ref().map_or(0, String::len),
            body: new.body,
            priority: new.priority,
            max: new.max,
            deliveries: 0,
            death: None,
            delay: new.delay,
            is_settled: false,
            at: if new.delay > 0 { At::Delayed(self.now + new.delay) } else { At::Ready },
            queue: new.queue.clone(),
            payer: new.payer,
        });
        self.serve(&new.queue);
        Put::Stored { dropped }
    }

    /// The daemon has named an entry by itself.
    pub(super) fn named(&mut self, body: &str, id: &str) {
        if let Some(piece) = self.pieces.iter_mut().find(|piece| piece.body == body) {
            piece.id_length = id.len();
        }
    }

    fn drop_oldest(&mut self, queue: &str) {
        let ready = self.in_queue(queue).filter(|piece| piece.at == At::Ready);
        let ready = ready.min_by_key(|piece| (piece.priority, piece.order)).map(|piece| piece.order);
        let due = |piece: &Piece| if let At::Delayed(until) = piece.at { until } else { u64::MAX };
        let delayed = self.in_queue(queue).filter(|piece| matches!(piece.at, At::Delayed(_)));
        let delayed = delayed.min_by_key(|piece| (due(piece), piece.order)).map(|piece| piece.order);
        let order = ready.or(delayed).expect("somebody waits");
        self.remove(order, true);
    }

    fn remove(&mut self, order: u64, is_dropped: bool) {
        let at = self.pieces.iter().position(|piece| piece.order == order).expect("it is there");
        let piece = self.pieces.remove(at);
        if is_dropped { self.dropped.push(piece.body) } else { self.acked.push(piece.body) }
    }

    /// Takes, or waits until then; `None` does not wait. Says whether it waits or was given something.
    pub(super) fn take(
        &mut self,
        client: usize,
        correlation: u64,
        queue: &str,
        terms: Terms,
        wait: Option<Option<u64>>,
    ) {
        let until = wait.flatten().map(|micros| self.now + micros);
        let queue = queue.to_owned();
        let request = Request { client, correlation, queue: queue.clone(), terms, until, is_open: true };
        self.requests.push(request);
        let number = self.requests.len() - 1;
        self.line.entry(queue.clone()).or_default().push(Claim::Request(number));
        self.serve(&queue);
        if wait.is_none() && self.requests[number].is_open {
            self.give_up(number);
        }
    }

    fn give_up(&mut self, number: usize) {
        let Request { client, correlation, .. } = self.requests[number];
        self.end_request(number);
        self.told.push(Told::Nothing { client, correlation });
    }

    pub(super) fn end_request(&mut self, number: usize) {
        self.requests[number].is_open = false;
        let queue = self.requests[number].queue.clone();
        self.leave_line(&queue, Claim::Request(number));
    }

    fn leave_line(&mut self, queue: &str, claim: Claim) {
        if let Some(line) = self.line.get_mut(queue) {
            line.retain(|other| *other != claim);
        }
    }

    pub(super) fn consume(
        &mut self,
        client: usize,
        correlation: u64,
        queue: &str,
        terms: Terms,
        credit: u32,
    ) {
        let queue = queue.to_owned();
        let consumer = Consumer { client, correlation, queue: queue.clone(), terms, credit, is_open: true };
        self.consumers.push(consumer);
        let claim = Claim::Consumer(self.consumers.len() - 1);
        self.line.entry(queue.clone()).or_default().push(claim);
        self.serve(&queue);
    }

    pub(super) fn unconsume(&mut self, number: usize) {
        self.consumers[number].is_open = false;
        let queue = self.consumers[number].queue.clone();
        self.leave_line(&queue, Claim::Consumer(number));
    }

    pub(super) fn ack(&mut self, out: usize) {
        let order = self.piece_of(out).order;
        let queue = self.piece_of(out).queue.clone();
        self.close(out);
        self.remove(order, false);
        self.serve(&queue);
    }

    /// Says whether the entry is dead now.
    pub(super) fn nack(&mut self, out: usize, delay: u64, is_untouched: bool, last: &str) -> bool {
        let order = self.piece_of(out).order;
        self.close(out);
        let max = lower(self.outs[out].terms.max, self.piece(order).max);
        let piece = self.piece_mut(order);
        piece.deliveries -= u32::from(is_untouched);
        let is_dead = !is_untouched && max > 0 && piece.deliveries >= max;
        let queue = piece.queue.clone();
        piece.is_settled = true;
        piece.at = if delay > 0 && !is_dead { At::Delayed(0) } else { At::Ready };
        if delay > 0 && !is_dead {
            let until = self.now + delay;
            self.piece_mut(order).at = At::Delayed(until);
        }
        if is_dead {
            self.bury(order, last);
        }
        self.serve(&queue);
        is_dead
    }

    fn bury(&mut self, order: u64, last: &str) {
        let piece = self.piece_mut(order);
        let times = if piece.deliveries == 1 { "once".into() } else { format!("{} times", piece.deliveries) };
        piece.death = Some(format!("delivered {times} from {}, as often as it may be; {last}", piece.queue));
        piece.queue = format!("{}.dead", piece.queue);
        (piece.deliveries, piece.max, piece.at) = (0, 0, At::Ready);
        piece.is_settled = true;
        let queue = piece.queue.clone();
        self.serve(&queue);
    }

    /// A delivery ends; its consumer gets its credit back.
    fn close(&mut self, out: usize) {
        self.outs[out].is_open = false;
        let Some(number) = self.outs[out].consumer else { return };
        let consumer = &mut self.consumers[number];
        consumer.credit += 1;
        let claim = Claim::Consumer(number);
        let line = self.line.entry(consumer.queue.clone()).or_default();
        if consumer.is_open && !line.contains(&claim) {
            line.push(claim);
        }
    }

    pub(super) fn purge(&mut self, queue: &str) -> u64 {
        let waiting = self.in_queue(queue).filter(|piece| !matches!(piece.at, At::Out(_)));
        let orders: Vec<u64> = waiting.map(|piece| piece.order).collect();
        for order in &orders {
            self.remove(*order, true);
        }
        orders.len() as u64
    }

    /// The daemon ends and begins anew, with everything as it was put or as it stood; nobody is there any more.
    pub(super) fn restart(&mut self) {
        self.requests.iter_mut().for_each(|request| request.is_open = false);
        self.consumers.iter_mut().for_each(|consumer| consumer.is_open = false);
        self.outs.iter_mut().for_each(|out| out.is_open = false);
        self.line.clear();
        let now = self.now;
        for piece in &mut self.pieces {
            let is_delayed = !piece.is_settled && piece.delay > 0;
            piece.at = if is_delayed { At::Delayed(now + piece.delay) } else { At::Ready };
        }
        let until = now + u64::from(self.limits.work_queue_id_window_ms) * 1000;
        self.ids.iter_mut().for_each(|id| id.2 = until);
    }

    /// What is due happens in order, but all of it now.
    pub(super) fn pass(&mut self, micros: u64) {
        self.now += micros;
        let now = self.now;
        loop {
            let open = self.requests.iter().enumerate().filter(|(_, request)| request.is_open);
            let requests = open.filter_map(|(at, request)| Some((request.until?, 0, at as u64)));
            let open = self.outs.iter().enumerate().filter(|(_, out)| out.is_open);
            let outs = open.filter_map(|(at, out)| Some((out.until?, 1, at as u64)));
            let delayed = self.pieces.iter().filter_map(|piece| match piece.at {
                At::Delayed(until) => Some((until, 2, piece.order)),
                At::Ready | At::Out(_) => None,
            });
            let Some((due, what, which)) = requests.chain(outs).chain(delayed).min() else { break };
            if due > now {
                break;
            }
            match what {
                0 => self.give_up(which as usize),
                1 => {
                    let time = self.outs[which as usize].terms.visibility.map(Duration::from_micros);
                    let last = format!("its time of {:?} passed without a word", time.unwrap_or_default());
                    self.nack(which as usize, 0, false, &last);
                }
                _ => {
                    let piece = self.piece_mut(which);
                    piece.at = At::Ready;
                    piece.is_settled = true;
                    let queue = piece.queue.clone();
                    self.serve(&queue);
                }
            }
        }
        self.ids.retain(|id| id.2 > now);
    }

    /// Serves whoever is first in line, as long as there is something.
    fn serve(&mut self, queue: &str) {
        while let Some(claim) = self.line.get(queue).and_then(|line| line.first()).copied() {
            let (client, correlation, terms, consumer) = match claim {
                Claim::Request(number) => {
                    let request = &self.requests[number];
                    (request.client, request.correlation, request.terms, None)
                }
                Claim::Consumer(number) => {
                    let consumer = &self.consumers[number];
                    (consumer.client, consumer.correlation, consumer.terms, Some(number))
                }
            };
            let Some(order) = self.next_for(queue, terms) else { return };
            self.leave_line(queue, claim);
            match claim {
                Claim::Request(number) => self.requests[number].is_open = false,
                Claim::Consumer(number) => {
                    self.consumers[number].credit -= 1;
                    if self.consumers[number].credit > 0 {
                        self.line.entry(queue.to_owned()).or_default().push(claim);
                    }
                }
            }
            let until = terms.visibility.map(|micros| self.now + micros);
            let out = self.outs.len();
            let piece = self.piece_mut(order);
            piece.deliveries += 1;
            piece.is_settled = true;
            piece.at = At::Out(out);
            let (deliveries, body) = (piece.deliveries, piece.body.clone());
            let is_bound = terms.is_bound;
            self.outs.push(Out { client, is_bound, body, token: 0, is_open: true, consumer, until, terms });
            self.told.push(Told::Given { client, correlation, out, deliveries });
        }
    }

    fn next_for(&mut self, queue: &str, terms: Terms) -> Option<u64> {
        loop {
            let ready = self.in_queue(queue).filter(|piece| piece.at == At::Ready);
            let next = ready.min_by_key(|piece| (u8::MAX - piece.priority, piece.order))?;
            let (order, deliveries, max) = (next.order, next.deliveries, lower(next.max, terms.max));
            if max == 0 || deliveries < max {
                return Some(order);
            }
            self.bury(order, "its taker takes no more of it");
        }
    }

    fn piece(&self, order: u64) -> &Piece {
        self.pieces.iter().find(|piece| piece.order == order).expect("it is there")
    }

    fn piece_mut(&mut self, order: u64) -> &mut Piece {
        self.pieces.iter_mut().find(|piece| piece.order == order).expect("it is there")
    }

    pub(super) fn piece_of(&self, out: usize) -> &Piece {
        self.pieces.iter().find(|piece| piece.at == At::Out(out)).expect("it is there")
    }
}

fn lower(one: u32, other: u32) -> u32 {
    match (one, other) {
        (0, only) | (only, 0) => only,
        (one, other) => one.min(other),
    }
}
