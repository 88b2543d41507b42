//! What is held over restarts while its session, its process or the daemon comes to an end.

use super::*;

#[test]
fn a_daemon_sleeps_when_what_could_not_be_written_has_ended_since() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    scene.ask(client, Operation::LOCK, &lock(false, None), b"");
    scene.fail(Some(Fault::Full("no room".to_owned())));
    scene.bus.leave(client);
    assert!(scene.bus.finish_commit());
    scene.bus.wait(Duration::from_millis(20));
    assert_eq!((scene.bus.broker.poll_timeout(), scene.records()), (None, 0));
}

#[test]
fn who_dies_while_its_grant_is_written_leaves_nothing() {
    for is_refused in [false, true] {
        let mut scene = scene(Limits::default());
        let (client, other) = (scene.named(ONE), scene.client());
        scene.ask(client, Operation::LOCK, &lock(true, None), b"");
        let waits = scene.ask(other, Operation::LOCK, &lock(true, None), b"");
        // In the first commit is one grant; behind it stands another, which never gets there.
        scene.bus.leave(client);
        let second = scene.named(TWO);
        let shared = TakeLock { name: "other".into(), ..lock(true, None) };
        scene.ask(second, Operation::LOCK, &shared, b"");
        scene.bus.leave(second);
        scene.fail(is_refused.then(|| Fault::Full("no room".to_owned())));
        scene.bus.finish_commit();
        scene.fail(None);
        scene.bus.wait(Duration::from_secs(1));
        scene.finish();
        assert!(scene.take_outcome(other, Operation::LOCK, waits).unwrap().is_ok());
        assert_eq!(scene.records(), 0);
        assert!(scene.bus.broker.gates(scene.bus.now).iter().all(|row| row.name == "l"));
    }
}

#[test]
fn a_daemon_that_is_stopped_leaves_what_is_held_to_the_next_and_not_what_was_given_back() {
    let mut scene = scene(Limits::default());
    let (one, two) = (scene.named(ONE), scene.named(TWO));
    let held = scene.locked(one, &lock(false, None));
    let given_back = scene.locked(two, &TakeLock { name: "other".into(), ..lock(false, None) });
    scene.bus.broker.begin_drain();
    scene.of_token(two, Operation::RELEASE, given_back.token).unwrap();
    assert!(!scene.bus.broker.is_drained());
    after_lazy(&mut scene);
    assert!(scene.bus.broker.is_drained());
    scene.bus.broker.end_drain();
    scene.bus.wait(MILLI);
    assert!(scene.bus.client(one).is_closed);
    after_lazy(&mut scene);
    let mut scene = restarted(scene);
    let client = scene.client();
    let tokens: Vec<u64> = scene.take_up(client, ONE).iter().map(|one| one.token).collect();
    assert_eq!(tokens, [held.token]);
    let two = scene.client();
    assert!(scene.take_up(two, TWO).is_empty());
}

#[test]
fn a_daemon_that_is_stopped_waits_for_ends_after_a_grant_has_failed() {
    let mut scene = scene(Limits::default());
    let (one, two) = (scene.named(ONE), scene.named(TWO));
    let held = scene.locked(one, &lock(false, None));
    scene.ask(two, Operation::LOCK, &TakeLock { name: "other".into(), ..lock(false, None) }, b"");
    scene.fail(Some(Fault::Full("no room".to_owned())));
    scene.finish();
    scene.fail(None);
    // There is room again, as the next commit shows, though it is of a key alone.
    let (condition, durability) = (Condition::Any, Some(Durability::Disk));
    let put = PutKey { key: "k".into(), condition, ttl_us: 0, lease: 0, fence: None, durability };
    scene.ask(two, Operation::PUT, &put, b"x");
    scene.finish();
    scene.bus.broker.begin_drain();
    scene.of_token(one, Operation::RELEASE, held.token).unwrap();
    assert!(!scene.bus.broker.is_drained());
    after_lazy(&mut scene);
    assert!(scene.bus.broker.is_drained());
}

#[test]
fn who_dies_while_its_grant_fails_leaves_nothing_to_be_written() {
    let mut scene = scene(Limits::default());
    for _ in 0..3 {
        let one = scene.named(ONE);
        scene.ask(one, Operation::LOCK, &lock(false, None), b"");
        scene.bus.leave(one);
        scene.fail(Some(Fault::Full("no room".to_owned())));
        scene.finish();
        scene.fail(None);
        // Its lock is free at once, where nothing has to be taken out of the disk before.
        let other = scene.client();
        assert!(!scene.is_busy(other));
        scene.bus.leave(other);
    }
    scene.bus.broker.begin_drain();
    assert!(scene.bus.broker.is_drained());
    scene.bus.wait(Duration::from_secs(10));
    assert!(!scene.bus.finish_commit(), "nothing is due");
}

#[test]
fn whoever_is_closed_while_its_grant_is_written_is_told_why() {
    let mut scene = scene(Limits::default());
    let one = scene.named(ONE);
    scene.ask(one, Operation::LOCK, &lock(false, None), b"");
    // A second hello is a violation.
    let hello = Hello { version_min: 1, version_max: 1, features: 0, name: "again".into() };
    scene.bus.say(one, Header::new(Kind::HELLO), &hello, b"");
    assert_eq!(scene.bus.client(one).take(Kind::CLOSE).len(), 1);
    assert!(scene.bus.client(one).is_closed);
    scene.finish();
    after_lazy(&mut scene);
    let two = scene.client();
    assert!(!scene.is_busy(two), "and holds nothing");
}
