//! The ends that use the async client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ipc_core::client::{Client, ConnectOptions, Delivery, KeyOptions, SubscribeOptions};
use ipc_core::service::{Request, Service};
use ipc_core::{Address, Error, Payload};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::fanout::{Course, Marks, Progress};
use super::{
    EndArgs, Phases, cpu_us, failed, hold_options, now_ns, ready_and_go, report, say, wait_for_close,
};
use crate::commands::bench::cases::Part;
use crate::commands::bench::figures::Report;

/// Plays the part.
pub(super) async fn play(args: &EndArgs) -> Result<(), Error> {
    match args.part {
        Part::Echo | Part::Sink => answer(args).await,
        Part::Caller => call_one_by_one(args).await,
        Part::Window | Part::Sender => call_in_window(args).await,
        Part::Connecter => connect_and_call(args).await,
        Part::Subscriber => subscribe(args).await,
        Part::Publisher => publish(args).await,
        Part::Locker | Part::KeptLocker => lock_and_unlock(args).await,
        Part::Putter => put_in_parallel(args).await,
        Part::Getter | Part::Pinger => Err(failed("repeat", &"these are blocking clients")),
        Part::Heirs | Part::KeptHeirs => Err(failed("wait", &"heirs are blocking clients")),
    }
}

async fn connect(args: &EndArgs) -> Result<Client, Error> {
    Client::connect(ConnectOptions {
        address: Some(Address::parse(&args.address)?),
        name: "ipc-cli bench".to_owned(),
        ..ConnectOptions::default()
    })
    .await
}

async fn answer(args: &EndArgs) -> Result<(), Error> {
    let client = connect(args).await?;
    let service = Service::new(&args.name)?
        .method("echo", |request: Request| async move { Ok(request.payload) })
        .method("sink", |_request: Request| async move { Ok(Payload::bytes(vec![1])) });
    let _serving = client.serve(service).await?;
    let cpu_before_us = cpu_us();
    say("ready")?;
    // Standard input is read on a thread of its own, which sleeps and costs nothing.
    tokio::task::spawn_blocking(wait_for_close).await.map_err(|error| failed("wait", &error))??;
    report(&Report { cpu_us: cpu_us().saturating_sub(cpu_before_us), ..Report::default() })?;
    client.close().await;
    Ok(())
}

fn payload(args: &EndArgs) -> Payload {
    Payload::bytes(vec![b'x'; args.size])
}

async fn lock_and_unlock(args: &EndArgs) -> Result<(), Error> {
    let client = connect(args).await?;
    ready_and_go()?;
    let mut phases = Phases::begin(args);
    loop {
        let begun = now_ns();
        client.lock(&args.name, hold_options(args)).await?.release().await?;
        if !phases.count(begun) {
            break;
        }
    }
    report(&phases.report())?;
    client.close().await;
    Ok(())
}

async fn call_one_by_one(args: &EndArgs) -> Result<(), Error> {
    let client = connect(args).await?;
    let payload = payload(args);
    let echo = client.method(&args.name, "echo");
    echo.call(payload.clone()).await?;
    ready_and_go()?;
    let mut phases = Phases::begin(args);
    loop {
        let begun = now_ns();
        echo.call(payload.clone()).await?;
        if !phases.count(begun) {
            break;
        }
    }
    report(&phases.report())?;
    client.close().await;
    Ok(())
}

/// As many tasks as calls in flight, all over one connection.
async fn call_in_window(args: &EndArgs) -> Result<(), Error> {
    let client = connect(args).await?;
    let payload = payload(args);
    let method = client.method(&args.name, if args.part == Part::Sender { "sink" } else { "echo" });
    method.call(payload.clone()).await?;
    ready_and_go()?;
    let phases = Phases::begin(args);
    let (total, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut window = JoinSet::new();
    for _ in 0..args.depth {
        let (method, payload) = (method.clone(), payload.clone());
        let (total, is_over) = (Arc::clone(&total), Arc::clone(&is_over));
        window.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                method.call(payload.clone()).await?;
                total.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), Error>(())
        });
    }
    // One clock for all of them: to look at it for each call would be a part of what is measured.
    sleep(args.warm_up()).await;
    let (start_ns, warmed) = (now_ns(), total.load(Ordering::Relaxed));
    sleep(args.time).await;
    let (end_ns, reached) = (now_ns(), total.load(Ordering::Relaxed));
    is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = window.join_next().await {
        ended.map_err(|error| failed("keep calls in flight", &error))??;
    }
    let total = total.load(Ordering::Relaxed);
    report(&Report { start_ns, end_ns, measured: reached - warmed, total, ..phases.report() })?;
    client.close().await;
    Ok(())
}

/// As many clients as puts in flight, each with a key of its own.
async fn put_in_parallel(args: &EndArgs) -> Result<(), Error> {
    let mut clients = Vec::new();
    for _ in 0..args.depth {
        clients.push(connect(args).await?);
    }
    ready_and_go()?;
    let phases = Phases::begin(args);
    let (measured_from_ns, end_ns) = (phases.measured_from_ns, phases.end_ns);
    let mut puts = JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        let (key, payload) = (format!("{}/{number}", args.name), payload(args));
        puts.spawn(async move {
            let (mut warmed, mut measured) = (0, 0);
            loop {
                client.put_key(&key, payload.clone(), KeyOptions::default()).await?;
                let now = now_ns();
                let counter = if now < measured_from_ns { &mut warmed } else { &mut measured };
                *counter += 1;
                if now >= end_ns {
                    client.close().await;
                    return Ok::<(u64, u64), Error>((warmed, measured));
                }
            }
        });
    }
    let (mut warmed, mut measured) = (0, 0);
    while let Some(ended) = puts.join_next().await {
        let counts = ended.map_err(|error| failed("keep puts in flight", &error))??;
        warmed += counts.0;
        measured += counts.1;
    }
    report(&Report { measured, total: warmed + measured, end_ns, ..phases.report() })
}

async fn connect_and_call(args: &EndArgs) -> Result<(), Error> {
    let payload = payload(args);
    ready_and_go()?;
    let mut phases = Phases::begin(args);
    loop {
        let begun = now_ns();
        let client = connect(args).await?;
        client.call(&args.name, "echo", payload.clone()).await?;
        client.close().await;
        if !phases.count(begun) {
            break;
        }
    }
    report(&phases.report())
}

async fn subscribe(args: &EndArgs) -> Result<(), Error> {
    let client = connect(args).await?;
    let mut subscription = client.subscribe(&args.events_topic(), args.subscribe_options()).await?;
    let progress = args.progress_topic();
    let mut course = Course::begin(args);
    say("ready")?;
    while !course.is_over() {
        let Some(delivery) = subscription.next().await else {
            return Err(failed("receive", &"it has ended"));
        };
        let Delivery::Event(event) = delivery? else {
            return Err(failed("receive", &"events were dropped, though the publisher waits"));
        };
        course.event(&event.payload.body);
        if let Some(count) = course.progress() {
            client.publish_oneway(&progress, count).await?;
        }
    }
    report(&course.report())?;
    wait_for_close()?;
    client.close().await;
    Ok(())
}

async fn publish(args: &EndArgs) -> Result<(), Error> {
    let client = connect(args).await?;
    let mut reports = client.subscribe(&args.progress_topic(), SubscribeOptions::default()).await?;
    let topic = client.topic(&args.events_topic());
    let marks = Marks::new(args.size);
    let mut progress = Progress::new(args);
    ready_and_go()?;
    progress.begin(args);
    while !progress.is_over() {
        for _ in 0..progress.batch() {
            topic.publish_oneway(marks.plain()).await?;
        }
        if progress.begins_measuring() {
            topic.publish_oneway(marks.measure()).await?;
        }
        while progress.is_ahead() {
            let Some(delivery) = reports.next().await else {
                return Err(failed("publish", &"nobody follows"));
            };
            if let Delivery::Event(event) = delivery? {
                progress.note(event.sender.id.0, &event.payload.body);
            }
        }
    }
    topic.publish(marks.end()).await?;
    report(&progress.report())?;
    client.close().await;
    Ok(())
}
