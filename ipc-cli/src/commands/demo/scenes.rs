//! The steps of the demo, one function each.

use std::time::Instant;

use ipc_core::{Error, ErrorCode, Identity};
use serde_json::Value;
use tokio::task::JoinSet;

use super::narrator::{Narrator, Ran};
use super::network;
use super::stage::{Actor, Stage};
use crate::error::Failure;
use crate::render::{duration_for_people, plural};

/// How many calls are made in a row to show what one costs.
const CALLS_IN_A_ROW: usize = 1000;

/// The first step: the daemon.
pub(crate) async fn daemon(narrator: &mut Narrator<'_>) -> Result<Stage, Failure> {
    narrator.step(
        "daemon",
        "A daemon of its own",
        "The bus is one small process. This one lives in a temporary directory and goes away with the demo.",
    )?;
    let stage = Stage::set().await?;
    let directory = stage.daemon.runtime_dir();
    let line = format!("ipc-daemon --runtime-dir {}", directory.display());
    narrator.ran(&Ran { line, ..Ran::default() })?;
    let ready = duration_for_people(stage.daemon.started_in());
    narrator.observe(&format!("ready after {ready}, pid {}", stage.daemon.pid()))?;
    Ok(stage)
}

/// Everything between the first step and the last.
pub(crate) async fn play(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    let service = a_service(stage, narrator).await?;
    a_call(stage, narrator).await?;
    who_called(stage, narrator).await?;
    events(stage, narrator).await?;
    network::datagrams(stage, narrator).await?;
    network::streams(stage, narrator).await?;
    network::exposed(stage, narrator).await?;
    network::forwarded(stage, narrator).await?;
    no_such_service(stage, narrator).await?;
    deadline(stage, narrator).await?;
    service_gone(stage, narrator, service).await?;
    a_group(stage, narrator).await
}

/// The last step: nothing stays.
pub(crate) async fn curtain(stage: Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    narrator.step(
        "cleanup",
        "Nothing stays",
        "The daemon gets a SIGTERM: it answers what is open, then it ends.",
    )?;
    let directory = stage.daemon.directory().to_owned();
    let begun = Instant::now();
    stage.clear().await?;
    let took = duration_for_people(begun.elapsed());
    expect(!directory.exists(), "the temporary directory is gone")?;
    narrator.observe(&format!(
        "stopped after {took}; every process has ended, {} is removed",
        directory.display()
    ))
}

async fn a_service(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<Actor, Failure> {
    narrator.step(
        "service",
        "A service",
        "Another process connects and offers the name demo.title. Nobody else can take it while it lives.",
    )?;
    let service = stage.service("demo.title", false).await?;
    let listed = run(stage, narrator, &["list", "services"]).await?;
    expect(listed.stdout.contains("demo.title"), "the service is listed")?;
    Ok(service)
}

async fn a_call(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    narrator.step(
        "call",
        "A call",
        "A third process calls it by name. The reply is all that reaches standard output.",
    )?;
    for (text, title) in
        [("hello world", "Hello World"), ("привет, ǆungla und ärger", "Привет, ǅungla Und Ärger")]
    {
        let answered = run(stage, narrator, &["call", "demo.title", "title", text]).await?;
        expect(answered.stdout == title, "the answer is in title case")?;
    }
    let client = stage.connect().await?;
    let mut times = Vec::with_capacity(CALLS_IN_A_ROW);
    for _ in 0..CALLS_IN_A_ROW {
        let begun = Instant::now();
        client.call("demo.title", "title", "hello world").await?;
        times.push(begun.elapsed());
    }
    client.close().await;
    times.sort_unstable();
    let median = duration_for_people(times.get(times.len() / 2).copied().unwrap_or_default());
    let calls = plural(CALLS_IN_A_ROW as u64, "call");
    narrator.observe(&format!("{calls} over one connection, one after the other: {median} each (median)"))
}

async fn who_called(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    narrator.step(
        "identity",
        "Who called?",
        "Every message names its sender. Not as the sender says, but as the kernel knows it.",
    )?;
    let caller = stage.start_tool(&["call", "demo.title", "whoami"])?;
    let pid = caller.pid();
    let answered = caller.finish().await?;
    narrator.ran(&answered)?;
    expect(answered.stdout.ends_with(&format!("pid {pid}")), "the service knows the pid of its caller")?;
    narrator.observe(&format!("the ipc-cli that called was process {pid}; it never said so"))?;
    run(stage, narrator, &["list", "peers"]).await?;
    Ok(())
}

async fn events(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    narrator.step(
        "events",
        "Events",
        "One process subscribes with a filter, another publishes. Each topic counts its events, so none is missed unseen.",
    )?;
    let mut subscriber = stage.start_tool(&["subscribe", "sensor.>", "--count", "3"])?;
    subscriber.speaks().await?;
    narrator.started(subscriber.line())?;
    let events = [
        ("sensor.kitchen.temperature", "21.5"),
        ("sensor.cellar.humidity", "68"),
        ("sensor.kitchen.temperature", "21.7"),
    ];
    for (topic, value) in events {
        run(stage, narrator, &["publish", topic, value]).await?;
    }
    let received = subscriber.finish().await?;
    narrator.observe("and the subscriber wrote:")?;
    narrator.wrote(&received)?;
    expect(received.stdout.lines().count() == events.len(), "every event arrived")?;
    expect(received.stdout.contains("#2"), "events of a topic are numbered")
}

async fn no_such_service(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    narrator.step(
        "no_such_service",
        "A wrong name",
        "Nobody offers it, and nobody waits for a timeout to learn that.",
    )?;
    let refused = run(stage, narrator, &["call", "demo.titel", "title", "hello"]).await?;
    expect(refused.stderr.contains("no_such_service"), "the error says what is missing")?;
    let took = duration_for_people(refused.duration);
    narrator.observe(&format!("exit status {}, after {took} from start to end", status(&refused)))
}

async fn deadline(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    narrator.step(
        "deadline",
        "A deadline",
        "Every call has one. It travels with the call, and what the service calls meanwhile inherits what is left.",
    )?;
    let late = run(stage, narrator, &["call", "demo.title", "slow", "--deadline", "200ms"]).await?;
    expect(late.stderr.contains("deadline_exceeded"), "the deadline ends the call")?;
    narrator.observe(&format!("exit status {}, after {}", status(&late), duration_for_people(late.duration)))
}

async fn service_gone(stage: &Stage, narrator: &mut Narrator<'_>, service: Actor) -> Result<(), Failure> {
    narrator.step(
        "service_gone",
        "A service that dies in the middle of a call",
        "The caller waits for an answer of 60 seconds; the service gets a SIGKILL. Every call has exactly one outcome.",
    )?;
    let caller = stage.start_tool(&["call", "demo.title", "slow", "--deadline", "60s"])?;
    wait_for_open_call(stage).await?;
    let pid = service.pid;
    let killed = Instant::now();
    service.kill().await?;
    let ended = caller.finish().await?;
    let took = duration_for_people(killed.elapsed());
    narrator.ran(&ended)?;
    expect(ended.stderr.contains("service_gone"), "the caller learns that the service has gone")?;
    narrator
        .observe(&format!("kill -9 {pid}, and the caller knows {took} later; exit status {}", status(&ended)))
}

/// Waits until the caller's call is with the service: then somebody of the bus has a pending call.
async fn wait_for_open_call(stage: &Stage) -> Result<(), Failure> {
    let begun = Instant::now();
    while begun.elapsed() < super::stage::PATIENCE {
        let peers = stage.tool(&["list", "peers", "--json"]).await?;
        let rows = peers.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        // The one that asks has a call open too: the question itself.
        if rows.filter(|row| row.get("pending_calls").and_then(Value::as_u64) > Some(0)).count() > 1 {
            return Ok(());
        }
    }
    Err(surprise("the call never reached its service").into())
}

async fn a_group(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    narrator.step(
        "group",
        "Two instances, one name",
        "Services that register as a group share the calls: each goes to the instance with the least to do.",
    )?;
    let instances = [stage.service("demo.worker", true).await?, stage.service("demo.worker", true).await?];
    run(stage, narrator, &["describe", "demo.worker"]).await?;
    let client = stage.connect().await?;
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let worker = client.method("demo.worker", "work");
        calls.spawn(async move { worker.call("your turn").await });
    }
    let mut shares = [0_u64; 2];
    for answered in calls.join_all().await {
        let Identity::Local { pid: responder, .. } = answered?.responder.identity else { continue };
        for (share, instance) in shares.iter_mut().zip(&instances) {
            *share += u64::from(responder == instance.pid);
        }
    }
    client.close().await;
    let [first, second] = shares;
    let [one, other] = instances.each_ref().map(|instance| instance.pid);
    expect(first + second == 10 && first > 0 && second > 0, "both instances answer")?;
    narrator.observe(&format!("of 10 calls at once process {one} answered {first}, process {other} {second}"))
}

pub(super) async fn run(
    stage: &Stage,
    narrator: &mut Narrator<'_>,
    arguments: &[&str],
) -> Result<Ran, Failure> {
    let ran = stage.tool(arguments).await?;
    narrator.ran(&ran)?;
    Ok(ran)
}

pub(super) fn status(ran: &Ran) -> String {
    ran.status.map_or_else(|| "none".to_owned(), |status| status.to_string())
}

pub(super) fn expect(holds: bool, what: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(surprise(&format!("expected that {what}")).into()) }
}

pub(super) fn surprise(what: &str) -> Error {
    Error::new(ErrorCode::Io, format!("the demo did not go as it should: {what}"))
        .with_hint("this is a fault of the bus or of the machine: please report it with the output")
}
