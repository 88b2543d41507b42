//! What is held ends with the process that holds it, however long its connection lives.

use ipc_core::ErrorCode;
use ipc_core::limits::Limits;
use ipc_core::wire::Kind;
use ipc_core::wire::coordination::{Granted, OfToken, Operation};

use crate::coordination::{Scene, lock};

/// A child may have the connection; the lock belongs to the process.
#[test]
fn what_is_held_ends_with_the_process_that_holds_it() {
    let mut scene = Scene::new(Limits::default());
    let (holder, heir) = (scene.client(), scene.client());
    assert!(!scene.bus.client(holder).is_process_watched, "it holds nothing");
    scene.outcome(holder, Operation::LOCK, &lock("a", false)).expect("at once").expect("it is free");
    assert!(scene.bus.client(holder).is_process_watched);
    assert!(!scene.bus.client(heir).is_process_watched);
    let waits = scene.ask(heir, Operation::LOCK, &lock("a", true), b"");
    scene.bus.end_process(holder);
    let close = scene.bus.client(holder).take(Kind::CLOSE).pop().expect("it is told why");
    let code = close.decode::<ipc_core::wire::message::Close>().code;
    assert_eq!(ErrorCode::from_number(code), Some(ErrorCode::LockLost));
    assert!(scene.bus.client(holder).is_closed);
    assert!(scene.take_outcome(heir, Operation::LOCK, waits).expect("its turn").is_ok());
}

#[test]
fn a_connection_that_holds_nothing_outlives_the_process_that_opened_it() {
    let mut scene = Scene::new(Limits::default());
    let client = scene.client();
    let held =
        scene.outcome(client, Operation::LOCK, &lock("a", false)).expect("at once").expect("it is free");
    let token = held.decode::<Granted>().token;
    scene.outcome(client, Operation::RELEASE, &OfToken { token }).expect("at once").expect("it is held");
    scene.bus.end_process(client);
    assert!(!scene.bus.client(client).is_closed);
    // What it takes from here on is asked about anew.
    scene.bus.client(client).is_process_watched = false;
    scene.outcome(client, Operation::LOCK, &lock("a", false)).expect("at once").expect("it is free");
    assert!(scene.bus.client(client).is_process_watched);
}

#[test]
fn as_many_processes_are_watched_as_there_is_room_for() {
    let mut scene = Scene::new(Limits { process_watches_max: 3, ..Limits::default() });
    // Of three the first user may have two, and then one is left for others.
    let clients: Vec<usize> = [1, 1, 1, 2, 3].into_iter().map(|uid| scene.client_of(uid)).collect();
    let holds = |scene: &mut Scene, at: usize, name: &str| {
        scene
            .outcome(clients[at], Operation::LOCK, &lock(name, false))
            .expect("at once")
            .expect("it is free");
    };
    (0..5).for_each(|at| holds(&mut scene, at, &format!("lock{at}")));
    let watched = |scene: &mut Scene| -> Vec<bool> {
        clients.iter().map(|client| scene.bus.client(*client).is_process_watched).collect()
    };
    assert_eq!(watched(&mut scene), [true, true, false, true, false]);
    scene.bus.leave(clients[0]);
    holds(&mut scene, 4, "another");
    assert_eq!(watched(&mut scene), [true, true, false, true, true], "one has gone");
}
