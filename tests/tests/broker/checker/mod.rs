//! The judge is judged: a history in which one thing is wrong must not pass the reference model.
//!
//! One story is played on a real broker, with everything in it that a client can receive. Then it is told to the model as
//! it was, which must find nothing wrong, and once for each lie with that one lie in it.

mod lies;
mod story;

use self::lies::{
    ABOUT_ACCOUNTS, ABOUT_CALLS, ABOUT_CONNECTIONS, ABOUT_EVENTS, ABOUT_NAMES, ABOUT_RIGHTS, ABOUT_SHARES,
};
use self::story::Trial;

fn played() -> Trial {
    let mut trial = Trial::new();
    trial.play();
    trial
}

#[test]
fn the_truth_passes() {
    assert_eq!(played().verdict(|_, _| ()), Ok(()));
}

#[test]
fn no_lie_about_what_was_received_passes() {
    let mut passed = Vec::new();
    let lies =
        [ABOUT_CALLS, ABOUT_EVENTS, ABOUT_NAMES, ABOUT_CONNECTIONS, ABOUT_RIGHTS, ABOUT_SHARES].concat();
    for (what, lie) in lies {
        if played().verdict(|heard, _| lie(heard)).is_ok() {
            passed.push(what);
        }
    }
    assert!(passed.is_empty(), "not noticed: {passed:#?}");
}

#[test]
fn no_lie_about_what_the_broker_holds_passes() {
    let mut passed = Vec::new();
    for (what, lie) in ABOUT_ACCOUNTS {
        if played().verdict(|_, snapshot| lie(snapshot)).is_ok() {
            passed.push(*what);
        }
    }
    assert!(passed.is_empty(), "not noticed: {passed:#?}");
}
