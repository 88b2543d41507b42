//! The blocking client against a daemon that is played by the test, so that it can misbehave.

mod calls;
mod endings;
mod events;
mod fake;
mod services;
