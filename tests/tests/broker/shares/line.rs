//! What one user can take of the line toward the disk.

use super::*;

#[test]
fn nobody_fills_the_line_toward_the_disk() {
    let cases = [
        (Limits { changes_pending_max: 16, ..Limits::default() }, "changes_pending_max", [8, 4]),
        // A request of ten bytes.
        (
            Limits { changes_pending_max_bytes: 1024, ..Limits::default() },
            "changes_pending_max_bytes",
            [51, 26],
        ),
    ];
    for (limits, limit, expected) in cases {
        let mut scene = scene(limits);
        let users = [1, 2].map(|uid| scene.client_of(uid));
        // Somebody's request is on its way, so that others wait.
        let idle = scene.client_of(3);
        scene.ask(idle, Operation::PUT, &put_of("first"), b"x");
        let counts = users.map(|user| {
            let sent = (0..).map(|_| scene.ask(user, Operation::PUT, &put_of("a"), b"123456789"));
            let sent: Vec<u64> = sent.take(100).collect();
            let refused = sent.iter().filter_map(|sent| scene.take_outcome(user, Operation::PUT, *sent));
            let refused: Vec<_> = refused.map(|outcome| outcome.unwrap_err().resource.unwrap().0).collect();
            assert!(refused.iter().all(|refused| refused == limit), "{refused:?}");
            100 - refused.len()
        });
        assert_eq!(counts, expected, "{limit}");
        assert_eq!(used(&scene, 1, limit).1, 100 - expected[0] as u64);
        assert_eq!(used(&scene, 1, "changes_pending_per_uid_max").0, expected[0] as u64);
        while scene.bus.finish_commit() {}
        assert_eq!(used(&scene, 1, "changes_pending_per_uid_max").0, 0);
        assert_eq!(put(&mut scene, users[0], "a"), None);
    }
}

#[test]
fn nobody_fills_the_line_of_entries_toward_the_disk() {
    let cost = |scene: &Scene| used(scene, 1, "work_queue_bytes_per_uid_max").0;
    let mut measured = scene(Limits::default());
    let one = measured.client_of(1);
    measured.ask(one, Operation::ENQUEUE, &entry("q"), b"123456789");
    let bytes = cost(&measured) as u32;
    let cases = [
        (Limits { changes_pending_max: 16, ..Limits::default() }, "changes_pending_max"),
        (Limits { changes_pending_max_bytes: 16 * bytes, ..Limits::default() }, "changes_pending_max_bytes"),
    ];
    for (limits, limit) in cases {
        let mut scene = scene(limits);
        let users = [1, 2].map(|uid| scene.client_of(uid));
        let counts = users.map(|user| {
            let sent = (0..20).map(|_| scene.ask(user, Operation::ENQUEUE, &entry("q"), b"123456789"));
            let sent: Vec<u64> = sent.collect();
            let refused = sent.iter().filter_map(|sent| scene.take_outcome(user, Operation::ENQUEUE, *sent));
            let refused: Vec<_> = refused.map(|outcome| outcome.unwrap_err().resource.unwrap().0).collect();
            assert!(refused.iter().all(|refused| refused == limit), "{refused:?}");
            20 - refused.len()
        });
        assert_eq!(counts, [8, 4], "{limit}");
        while scene.bus.finish_commit() {}
        assert_eq!(refusal(&mut scene, users[0], Operation::ENQUEUE, &entry("q"), b"x"), None);
    }
}

/// It is in the line only because what makes room for it goes from the disk.
#[test]
fn what_is_not_to_be_kept_takes_nobody_s_place_in_the_line() {
    let mut scene = scene(Limits { changes_pending_max: 16, ..Limits::default() });
    let users = [1, 2].map(|uid| scene.client_of(uid));
    for _ in 0..8 {
        scene.ask(users[0], Operation::ENQUEUE, &entry("q"), b"kept");
        while scene.bus.finish_commit() {}
    }
    let new = Enqueue {
        durability: Some(Durability::Memory),
        overflow: Overflow::DropOldest,
        max_length: 8,
        ..entry("q")
    };
    for _ in 0..8 {
        scene.ask(users[0], Operation::ENQUEUE, &new, b"not kept");
    }
    let sent: Vec<u64> =
        (0..8).map(|_| scene.ask(users[1], Operation::ENQUEUE, &entry("r"), b"kept")).collect();
    let refused = sent.iter().filter_map(|sent| scene.take_outcome(users[1], Operation::ENQUEUE, *sent));
    assert_eq!(refused.count(), 0, "half of the line is the other user's");
}

#[test]
fn requests_of_all_connections_of_a_user_wait_together() {
    let mut scene = scene(Limits::default());
    let (users, other) = ([1, 1, 1].map(|uid| scene.client_of(uid)), scene.client_of(2));
    allow(&mut scene, "uid:1 changes_pending_per_uid_max=3");
    // One of them is on its way already, and one is about a work queue.
    let waits = [
        scene.ask(users[0], Operation::PUT, &put_of("a"), b"x"),
        scene.ask(users[1], Operation::ENQUEUE, &entry("q"), b"x"),
        scene.ask(users[2], Operation::PUT, &put_of("b"), b"x"),
    ];
    let refused = [
        (users[0], Operation::PUT, scene.ask(users[0], Operation::PUT, &put_of("c"), b"x")),
        (users[1], Operation::ENQUEUE, scene.ask(users[1], Operation::ENQUEUE, &entry("q"), b"x")),
    ];
    for (user, operation, sent) in refused {
        let refused = scene.take_outcome(user, operation, sent).expect("it is refused at once").unwrap_err();
        assert_eq!(refused.resource.unwrap().0, "changes_pending_per_uid_max");
    }
    let others = scene.ask(other, Operation::PUT, &put_of("d"), b"x");
    while scene.bus.finish_commit() {}
    assert!(scene.take_outcome(other, Operation::PUT, others).unwrap().is_ok());
    for (at, operation) in [Operation::PUT, Operation::ENQUEUE, Operation::PUT].into_iter().enumerate() {
        assert!(scene.take_outcome(users[at], operation, waits[at]).unwrap().is_ok(), "{at}");
    }
    assert_eq!(used(&scene, 1, "changes_pending_per_uid_max"), (0, 2));
}

#[test]
fn keys_that_end_take_nobody_s_place_in_the_line() {
    let mut scene = scene(Limits { changes_pending_max: 4, ..Limits::default() });
    let (user, other) = (scene.client_of(1), scene.client_of(2));
    for number in 0..10 {
        let timed = PutKey { ttl_us: 10_000, ..put_of(&number.to_string()) };
        assert_eq!(refusal(&mut scene, user, Operation::PUT, &timed, b"x"), None);
    }
    scene.ask(other, Operation::PUT, &put_of("first"), b"x");
    scene.bus.wait(core::time::Duration::from_millis(10));
    let sent = scene.ask(other, Operation::PUT, &put_of("second"), b"x");
    assert!(scene.take_outcome(other, Operation::PUT, sent).is_none(), "it waits");
    while scene.bus.finish_commit() {}
    assert!(scene.take_outcome(other, Operation::PUT, sent).unwrap().is_ok());
    assert_eq!(used(&scene, 1, "keys_per_uid_max").0, 0);
}
