//! `bench`: measures the daemon beside the cheapest programs that move the same bytes, in the same run.

mod cases;
mod cast;
pub(crate) mod end;
mod figures;
mod floor;
mod pin;

use core::time::Duration;

use ipc_core::Error;
use serde_json::Value;

use crate::args::{BenchArgs, Globals};
use crate::bus;
use crate::error::Failure;
use crate::interrupt::{Interrupts, unless_interrupted};
use crate::output::Output;
use crate::private::PrivateDaemon;
use crate::render::{Column, Palette, Table, duration_for_people};
use cases::{CASES, Case, Door};
use cast::Target;
use figures::Summary;
use floor::Floor;
use pin::Pinned;

/// Measures what was asked for. Whatever was started is gone after, also when it is interrupted.
pub(crate) async fn run(
    args: &BenchArgs,
    globals: &Globals,
    output: &Output,
    mut interrupts: Interrupts,
) -> Result<(), Failure> {
    let floor = Floor::find()?;
    if cfg!(debug_assertions) {
        output
            .say(&output.talk_palette().warn("this is a debug build: its figures say nothing about the bus"));
    }
    let (target, private) = unless_interrupted(&mut interrupts, find_target(globals, output)).await?;
    let measured = unless_interrupted(&mut interrupts, measure_all(args, &target, &floor, output)).await;
    output.progress("");
    if let Some(private) = private {
        let stopped = private.stop().await;
        measured?;
        return Ok(stopped?);
    }
    measured
}

/// The running daemon, or a private one where none is reached and none was named.
async fn find_target(globals: &Globals, output: &Output) -> Result<(Target, Option<PrivateDaemon>), Error> {
    let status = match bus::ask_daemon(globals, "status", "").await {
        Ok(status) => status,
        Err(error) if globals.names_a_daemon() => return Err(error),
        Err(_) => {
            let private = PrivateDaemon::start().await?;
            output.say("no daemon is running here: measuring a private one");
            let at =
                |scheme: &str, name: &str| format!("{scheme}:{}", private.runtime_dir().join(name).display());
            let (address, datagrams) = (at("unix", "bus.sock"), Some(at("dgram", "bus.dgram")));
            return Ok((Target { address, datagrams, pid: private.pid() }, Some(private)));
        }
    };
    let address = bus::address(globals)?.to_string();
    output.say(&format!("measuring the daemon at {address}"));
    let pid = status.get("pid").and_then(Value::as_u64).unwrap_or_default();
    let pid = u32::try_from(pid).unwrap_or_default();
    Ok((Target { address, datagrams: datagram_address(&status), pid }, None))
}

fn datagram_address(status: &Value) -> Option<String> {
    let addresses = status.get("addresses")?.as_array()?;
    let found = addresses.iter().find(|it| it.get("kind").is_some_and(|kind| kind == "unix_datagram"))?;
    Some(format!("dgram:{}", found.get("address")?.as_str()?))
}

async fn measure_all(
    args: &BenchArgs,
    target: &Target,
    floor: &Floor,
    output: &Output,
) -> Result<(), Failure> {
    let wanted = CASES.iter().filter(|case| args.what.is_none_or(|what| what == case.group));
    let mut results = Vec::new();
    for case in wanted {
        let summary = measure_case(case, args, target, floor, output).await?;
        if output.is_json() {
            output.object(&summary)?;
        }
        results.push((case, summary));
    }
    if output.is_json() { Ok(()) } else { show(&results, args, output) }
}

/// Rounds of floor and bus, one after the other, so that a drift of the machine meets both.
async fn measure_case(
    case: &Case,
    args: &BenchArgs,
    target: &Target,
    floor: &Floor,
    output: &Output,
) -> Result<Summary, Error> {
    let pin = if case.is_pinned { Some(pin::first_cpu()?) } else { None };
    let mut rounds = Vec::new();
    for round in 1..=args.rounds.get() {
        output.progress(&format!("{} {round}/{}", case.name, args.rounds));
        let other = match (case.door, case.beside) {
            (Door::Datagram, _) => Some(Case { door: Door::Stream, ..*case }),
            (Door::Stream, Some(part)) => Some(Case { fronts: (part, case.fronts.1), ..*case }),
            (Door::Stream, None) => None,
        };
        let floor = match other {
            Some(_) => None,
            None => Some(floor.measure(case, pin, args.duration).await?),
        };
        let pinned = pin.map(|cpu| Pinned::new(target.pid, cpu)).transpose()?;
        let beside = match (floor, other) {
            (Some(floor), _) => floor,
            (None, other) => cast::measure(&other.unwrap_or(*case), target, pin, args.duration).await?,
        };
        let bus = cast::measure(case, target, pin, args.duration).await?;
        drop(pinned);
        rounds.push((bus, beside));
    }
    output.progress("");
    Ok(Summary::of(case.name, case.unit, &rounds))
}

fn show(results: &[(&Case, Summary)], args: &BenchArgs, output: &Output) -> Result<(), Failure> {
    let palette = output.palette();
    let mut table = Table::new(&[
        Column::Left("WHAT"),
        Column::Right("BUS"),
        Column::Right("FLOOR"),
        Column::Left("UNIT"),
        Column::Right("P99"),
        Column::Right("RATIO"),
        Column::Right("WORST"),
        Column::Right("TARGET"),
        Column::Right("CPU/OP"),
    ]);
    for (case, summary) in results {
        table.row([
            summary.name.to_owned(),
            figure(summary.rate.or(summary.p50)),
            figure(summary.floor_rate.or(summary.floor_p50)),
            summary.unit.to_owned(),
            summary.p99.map(|p99| figure(Some(p99))).unwrap_or_default(),
            format!("{:.2}", summary.ratio),
            format!("{:.2}", summary.ratio_worst),
            target(case, summary.ratio),
            cpu(case, summary.cpu_us_per_op),
        ]);
    }
    output.table(&table)?;
    let note = format!(
        "medians of {} rounds of {}; the ratio is to the floor of the same round: times below 1 and rates above 1 beat it",
        args.rounds,
        duration_for_people(args.duration)
    );
    output.say(&Palette::quiet(output.talk_palette(), &note));
    let is_missed = |(case, summary): &&(&Case, Summary)| {
        case.meets(summary.ratio) == Some(false) || case.meets_cpu(summary.cpu_us_per_op) == Some(false)
    };
    let missed = results.iter().filter(is_missed).count();
    if missed > 0 {
        output.say(&palette.warn(&format!("{missed} missed their target")));
    }
    Ok(())
}

/// Three digits that matter.
fn figure(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value >= 1e6 => format!("{:.2} M", value / 1e6),
        Some(value) if value >= 1e4 => format!("{:.0} k", value / 1e3),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// CPU time for one operation, and what was aimed at.
fn cpu(case: &Case, us: f64) -> String {
    let shown = duration_for_people(Duration::from_nanos((us * 1e3) as u64));
    match (case.cpu_target_us, case.meets_cpu(us)) {
        (Some(target), Some(false)) => format!("{shown} (<= {target} us missed)"),
        (Some(target), _) => format!("{shown} (<= {target} us)"),
        (None, _) => shown,
    }
}

fn target(case: &Case, ratio: f64) -> String {
    let Some(target) = case.target else { return String::new() };
    let relation = if case.scale.is_some() { ">=" } else { "<=" };
    let mark = if case.meets(ratio) == Some(false) { " missed" } else { "" };
    format!("{relation} {target}{mark}")
}
