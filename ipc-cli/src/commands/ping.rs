//! `ping`: the round trip to the daemon.

use core::time::Duration;
use std::time::Instant;

use ipc_core::client::Client;
use ipc_core::{Error, ErrorCode};
use serde::Serialize;

use crate::args::{Globals, PingArgs};
use crate::bus;
use crate::error::Failure;
use crate::output::Output;
use crate::render::duration_for_people;

/// The first and the longest pause between two tries of `--wait`.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

#[derive(Serialize)]
struct Pong<'a> {
    seq: u64,
    round_trip_us: f64,
    epoch: String,
    server: &'a str,
}

/// Measures one round trip after the other.
pub(crate) async fn run(args: &PingArgs, globals: &Globals, output: &Output) -> Result<(), Failure> {
    let client = if args.wait { reach(globals).await? } else { bus::connect(globals).await? };
    let mut round_trips = Vec::new();
    for seq in 1..=args.count.get() {
        let round_trip = client.ping().await?;
        // What the summary needs; a run of any length keeps a bounded number.
        if round_trips.len() < 1_000_000 {
            round_trips.push(round_trip);
        }
        report(&client, seq, round_trip, output)?;
    }
    if args.count.get() > 1 && !output.is_json() {
        summarize(&mut round_trips, output);
    }
    client.close().await;
    Ok(())
}

fn report(client: &Client, seq: u64, round_trip: Duration, output: &Output) -> Result<(), Failure> {
    let daemon = client.daemon();
    if output.is_json() {
        let round_trip_us = round_trip.as_nanos() as f64 / 1e3;
        output.object(&Pong { seq, round_trip_us, epoch: daemon.epoch.to_string(), server: &daemon.server })
    } else {
        let time = output.palette().strong(&duration_for_people(round_trip));
        // Over datagrams the daemon does not say what it is called.
        let who = if daemon.server.is_empty() { "the daemon" } else { &daemon.server };
        output.line(&format!("{who}: {time}"))
    }
}

fn summarize(round_trips: &mut [Duration], output: &Output) {
    round_trips.sort_unstable();
    let [least, .., most] = round_trips else { return };
    let (least, most) = (duration_for_people(*least), duration_for_people(*most));
    let median = round_trips.get(round_trips.len() / 2).copied().unwrap_or_default();
    output.say(&format!("least {least}, median {}, most {most}", duration_for_people(median)));
}

/// Tries until the daemon answers or the time is up; then the last failure is the answer.
async fn reach(globals: &Globals) -> Result<Client, Error> {
    let end = Instant::now() + globals.timeout;
    let mut pause = RETRY_PAUSES.0;
    loop {
        let failure = match try_to_reach(globals).await {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        let passes = matches!(
            failure.code,
            ErrorCode::Unreachable
                | ErrorCode::ShuttingDown
                | ErrorCode::OutcomeUnknown
                | ErrorCode::DeadlineExceeded
        );
        if !passes || Instant::now() + pause >= end {
            return Err(failure);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_PAUSES.1);
    }
}

async fn try_to_reach(globals: &Globals) -> Result<Client, Error> {
    let client = bus::connect(globals).await?;
    client.ping().await?;
    Ok(client)
}
