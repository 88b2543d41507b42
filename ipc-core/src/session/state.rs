//! Where a conversation stands, and the moves between the stations as one table.

/// Where a conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The hello is on its way; requests may follow it without waiting.
    Greeting,
    /// The daemon has answered the hello.
    Open,
    /// Our `close` is on its way; nothing that arrives counts any more.
    Closing,
    /// Over. Only [`restart`](super::Session::restart) leads out of it.
    Closed,
}

/// What moves a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The daemon answered the hello.
    Welcome,
    /// The user is done.
    CloseRequested,
    /// The daemon closes, or the stream ended, or either side broke a rule, or nobody answered the hello.
    Ended,
    /// There is a new connection to go on with.
    Restart,
}

impl State {
    /// Every state.
    pub const ALL: [State; 4] = [State::Greeting, State::Open, State::Closing, State::Closed];

    /// The state that follows, or `None` if `trigger` is not legal here.
    pub const fn next(self, trigger: Trigger) -> Option<State> {
        match (self, trigger) {
            (State::Greeting, Trigger::Welcome) => Some(State::Open),
            (State::Greeting | State::Open, Trigger::CloseRequested) => Some(State::Closing),
            (State::Greeting | State::Open | State::Closing, Trigger::Ended) => Some(State::Closed),
            (State::Closed, Trigger::Restart) => Some(State::Greeting),
            _ => None,
        }
    }

    /// Whether requests may be made.
    pub const fn takes_requests(self) -> bool {
        matches!(self, State::Greeting | State::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_moves() {
        use State::*;
        use Trigger::*;
        let legal = [
            (Greeting, Welcome, Open),
            (Greeting, CloseRequested, Closing),
            (Greeting, Ended, Closed),
            (Open, CloseRequested, Closing),
            (Open, Ended, Closed),
            (Closing, Ended, Closed),
            (Closed, Restart, Greeting),
        ];
        for state in State::ALL {
            for trigger in [Welcome, CloseRequested, Ended, Restart] {
                let expected = legal.iter().find(|(from, by, _)| (*from, *by) == (state, trigger));
                assert_eq!(state.next(trigger), expected.map(|(_, _, to)| *to), "{state:?} {trigger:?}");
            }
        }
    }
}
