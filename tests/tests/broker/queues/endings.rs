//! How clients and rights end, for the obvious work queues.

use super::model::{Model, Out, Piece, Told};

impl Model {
    /// A client may not have to do with a queue any more: its requests end, then its consumers, then what is bound to it goes
    /// back, in the order in which it got it.
    pub(super) fn deny(&mut self, client: usize, queue: &str) {
        for number in 0..self.requests.len() {
            let request = &self.requests[number];
            if request.client == client && request.is_open && request.queue == queue {
                self.told.push(Told::Denied { client, correlation: request.correlation });
                self.end_request(number);
            }
        }
        for number in 0..self.consumers.len() {
            let consumer = &self.consumers[number];
            if consumer.client == client && consumer.is_open && consumer.queue == queue {
                self.told.push(Told::Lost { client, correlation: consumer.correlation });
                self.unconsume(number);
            }
        }
        self.lose(client, |piece| piece.queue == queue);
    }

    /// A session ends: its requests and consumers first, then what it has, in the order in which it got it.
    pub(super) fn leave(&mut self, client: usize) {
        for number in 0..self.requests.len() {
            if self.requests[number].client == client && self.requests[number].is_open {
                self.end_request(number);
            }
        }
        for number in 0..self.consumers.len() {
            if self.consumers[number].client == client && self.consumers[number].is_open {
                self.unconsume(number);
            }
        }
        self.lose(client, |_| true);
    }

    /// What a client is working on goes back, of these.
    pub(super) fn lose(&mut self, client: usize, is_lost: impl Fn(&Piece) -> bool) {
        let has = |out: &Out| out.client == client && out.is_bound && out.is_open;
        let had = (0..self.outs.len()).filter(|out| has(&self.outs[*out]));
        let mut had: Vec<usize> = had.filter(|out| is_lost(self.piece_of(*out))).collect();
        had.sort_by_key(|out| self.outs[*out].token);
        for out in had {
            self.nack(out, 0, false, "its taker ended");
        }
    }
}
