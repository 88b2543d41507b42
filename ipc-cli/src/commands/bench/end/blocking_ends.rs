//! The ends that use the blocking client.

use core::time::Duration;
use std::sync::{Mutex, PoisonError};

use ipc_core::blocking::{CallOptions, Client, ConnectOptions, DeliveryRef, KeyOptions, Service};
use ipc_core::{Address, Error, Payload};

use super::fanout::{Course, Marks, Progress};
use super::{
    EndArgs, Phases, cpu_us, failed, hold_options, now_ns, ready_and_go, report, say, wait_for_close,
};
use crate::commands::bench::cases::Part;
use crate::commands::bench::figures::Report;

/// How long an event or a call may take to come; only a fault lets it pass.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often an answering end looks whether it is still needed. It does not look while calls come.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Plays the part.
pub(super) fn play(args: &EndArgs) -> Result<(), Error> {
    match args.part {
        Part::Echo | Part::Sink => answer(args),
        Part::Caller => call_one_by_one(args),
        Part::Window | Part::Sender => call_in_window(args),
        Part::Connecter => connect_and_call(args),
        Part::Subscriber => subscribe(args),
        Part::Publisher => publish(args),
        Part::Locker | Part::KeptLocker => lock_and_unlock(args),
        Part::Putter | Part::Getter | Part::Pinger => repeat(args),
        Part::Heirs | Part::KeptHeirs => inherit(args),
    }
}

fn options(args: &EndArgs) -> Result<ConnectOptions, Error> {
    Ok(ConnectOptions::new().address(Address::parse(&args.address)?).name("ipc-cli bench"))
}

fn connect(args: &EndArgs) -> Result<Client, Error> {
    Client::connect(options(args)?)
}

fn payload(args: &EndArgs) -> Payload {
    Payload::bytes(vec![b'x'; args.size])
}

/// The method that calls of this part go to.
fn method_name(args: &EndArgs) -> &'static str {
    if args.part == Part::Sender { "sink" } else { "echo" }
}

fn answer(args: &EndArgs) -> Result<(), Error> {
    let mut client = connect(args)?;
    let service = Service::new(&args.name)?
        .method("echo", |request| Ok(request.payload.clone()))
        .method("sink", |_request| Ok(vec![1_u8]));
    client.serve(service)?;
    let cpu_before_us = cpu_us();
    say("ready")?;
    let closed = std::thread::spawn(wait_for_close);
    while !closed.is_finished() {
        client.run_for(LOOK_EVERY)?;
    }
    report(&Report { cpu_us: cpu_us().saturating_sub(cpu_before_us), ..Report::default() })?;
    closed.join().map_err(|_| failed("wait", &"the thread that waits has panicked"))??;
    client.close()
}

fn call_one_by_one(args: &EndArgs) -> Result<(), Error> {
    let mut client = connect(args)?;
    let payload = payload(args);
    let echo = client.method(&args.name, method_name(args))?;
    echo.call(&mut client, payload.clone())?;
    ready_and_go()?;
    let mut phases = Phases::begin(args);
    loop {
        let begun = now_ns();
        echo.call(&mut client, payload.clone())?;
        if !phases.count(begun) {
            break;
        }
    }
    report(&phases.report())?;
    client.close()
}

fn call_in_window(args: &EndArgs) -> Result<(), Error> {
    let mut client = connect(args)?;
    let payload = payload(args);
    let method = client.method(&args.name, method_name(args))?;
    method.call(&mut client, payload.clone())?;
    ready_and_go()?;
    let options = CallOptions::default();
    let mut phases = Phases::begin(args);
    for _ in 0..args.depth {
        // Waited for with all the others, whichever comes first.
        let _any = method.start_call(&mut client, payload.clone(), options.clone())?;
    }
    while let Some((_, outcome)) = client.wait_any() {
        outcome?;
        if phases.count_one() {
            let _any = method.start_call(&mut client, payload.clone(), options.clone())?;
        }
    }
    report(&phases.report())?;
    client.close()
}

/// The way of a program with one question: the hello travels with the call.
fn connect_and_call(args: &EndArgs) -> Result<(), Error> {
    let payload = payload(args);
    ready_and_go()?;
    let mut phases = Phases::begin(args);
    loop {
        let begun = now_ns();
        let mut client = Client::open(options(args)?)?;
        client.call(&args.name, method_name(args), payload.clone())?;
        client.close()?;
        if !phases.count(begun) {
            break;
        }
    }
    report(&phases.report())
}

fn lock_and_unlock(args: &EndArgs) -> Result<(), Error> {
    let mut client = connect(args)?;
    ready_and_go()?;
    let mut phases = Phases::begin(args);
    loop {
        let begun = now_ns();
        client.lock(&args.name, hold_options(args))?.release()?;
        if !phases.count(begun) {
            break;
        }
    }
    report(&phases.report())?;
    client.close()
}

/// Puts a key, gets it, or pings.
fn repeat(args: &EndArgs) -> Result<(), Error> {
    let mut client = connect(args)?;
    let (payload, options) = (payload(args), KeyOptions::default());
    client.put_key(&args.name, payload.clone(), &options)?;
    ready_and_go()?;
    let mut phases = Phases::begin(args);
    loop {
        let begun = now_ns();
        match args.part {
            Part::Putter => drop(client.put_key(&args.name, payload.clone(), &options)?),
            Part::Getter => drop(client.get_key(&args.name)?),
            _ => drop(client.ping()?),
        }
        if !phases.count(begun) {
            break;
        }
    }
    report(&phases.report())?;
    client.close()
}

/// What those who wait for one lock share.
struct Estate {
    phases: Phases,
    /// When the last holder was lost.
    left_ns: Option<u64>,
    is_over: bool,
}

fn inherit(args: &EndArgs) -> Result<(), Error> {
    ready_and_go()?;
    let estate = Mutex::new(Estate { phases: Phases::begin(args), left_ns: None, is_over: false });
    let outcomes: Vec<Result<(), Error>> = std::thread::scope(|scope| {
        let heirs: Vec<_> = (0..args.depth).map(|_| scope.spawn(|| be_an_heir(args, &estate))).collect();
        let joined = heirs.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined
            .map(|joined| joined.unwrap_or_else(|_| Err(failed("wait", &"a thread has panicked"))))
            .collect()
    });
    outcomes.into_iter().collect::<Result<(), Error>>()?;
    let estate = estate.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(&estate.phases.report())
}

fn be_an_heir(args: &EndArgs, estate: &Mutex<Estate>) -> Result<(), Error> {
    loop {
        let mut client = connect(args)?;
        let held = client.lock(&args.name, hold_options(args))?;
        // It is not given back: the end of the connection is to pass it on.
        std::mem::forget(held);
        let mut estate = estate.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left_ns) = estate.left_ns.take()
            && !estate.is_over
        {
            estate.is_over = !estate.phases.count(left_ns);
        }
        estate.left_ns = Some(now_ns());
        let is_over = estate.is_over;
        drop(client);
        drop(estate);
        if is_over {
            return Ok(());
        }
    }
}

fn subscribe(args: &EndArgs) -> Result<(), Error> {
    let mut client = connect(args)?;
    let subscription = client.subscribe(&args.events_topic(), args.subscribe_options())?;
    let progress = args.progress_topic();
    let mut course = Course::begin(args);
    say("ready")?;
    while !course.is_over() {
        let mut was_gap = false;
        let count = client.drain(&subscription, PATIENCE, |delivery| match delivery {
            DeliveryRef::Event(event) => course.event(event.payload),
            DeliveryRef::Gap(_) | DeliveryRef::Lost(_) => was_gap = true,
        })?;
        if count == 0 || was_gap {
            return Err(failed(
                "receive",
                &"events were dropped or did not come, though the publisher waits",
            ));
        }
        if let Some(count) = course.progress() {
            client.publish_oneway(&progress, count)?;
        }
    }
    report(&course.report())?;
    wait_for_close()?;
    client.close()
}

fn publish(args: &EndArgs) -> Result<(), Error> {
    let mut client = connect(args)?;
    let subscription = client.subscribe(&args.progress_topic(), Default::default())?;
    let topic = args.events_topic();
    let marks = Marks::new(args.size);
    let mut progress = Progress::new(args);
    ready_and_go()?;
    progress.begin(args);
    while !progress.is_over() {
        for _ in 0..progress.batch() {
            client.queue_publish(&topic, marks.plain())?;
        }
        if progress.begins_measuring() {
            client.queue_publish(&topic, marks.measure())?;
        }
        client.flush()?;
        while progress.is_ahead() {
            let count = client.drain(&subscription, PATIENCE, |delivery| {
                if let DeliveryRef::Event(event) = delivery {
                    progress.note(event.sender.id.0, event.payload);
                }
            })?;
            if count == 0 {
                return Err(failed("publish", &"the subscribers do not follow"));
            }
        }
    }
    client.publish(&topic, marks.end())?;
    report(&progress.report())?;
    client.close()
}
