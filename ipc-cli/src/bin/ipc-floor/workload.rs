//! SHELL. Which processes make up each floor, and how their reports become its figures.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::unistd::Pid;

use crate::args::{Options, Role, Workload};
use crate::children::Family;
use crate::failure::{Failure, at};
use crate::report::{Figures, Report};
use crate::sync;

/// The processes of one floor.
struct Cast {
    relay: Role,
    back: Role,
    backs: usize,
    front: Role,
    fronts: usize,
}

impl Cast {
    /// `None` where this process does all of it.
    fn of(workload: Workload, options: &Options) -> Option<Self> {
        let (relay, back, front) = match workload {
            Workload::RelayLatency => (Role::RelayBlocking, Role::Server, Role::LatencyClient),
            Workload::RelayThroughput => (Role::RelayCalls, Role::Server, Role::WindowClient),
            Workload::Fanout => (Role::RelayFanout, Role::Subscriber, Role::Publisher),
            Workload::Payload => (Role::RelayStream, Role::Sink, Role::PayloadClient),
            Workload::Connect => (Role::RelayCalls, Role::Server, Role::ConnectClient),
            Workload::Sync | Workload::SyncLatency => return None,
        };
        let backs = if back == Role::Subscriber { options.subscribers } else { 1 };
        let fronts = if front == Role::WindowClient { options.processes } else { 1 };
        Some(Self { relay, back, backs, front, fronts })
    }
}

/// Runs one floor to its end. All its processes are gone when this returns.
pub(crate) fn measure(workload: Workload, options: Options) -> Result<Figures, Failure> {
    if let Some(cpu) = options.pin {
        pin(cpu)?;
    }
    let cpu_before_us = cpu_us()?;
    let cast = match Cast::of(workload, &options) {
        Some(cast) => cast,
        None => {
            let report = sync::write_and_sync(&options)?;
            let cpu_us = cpu_us()?.saturating_sub(cpu_before_us);
            return Ok(figures(workload, &options, &[report], cpu_us));
        }
    };
    let (fronts, backs) = run(&cast, &options)?;
    let cpu_us = cpu_us()?.saturating_sub(cpu_before_us);
    if let [published] = fronts.as_slice()
        && let Some(poor) = backs.iter().find(|back| back.total != published.total)
    {
        let (got, sent) = (poor.total, published.total);
        return Err(Failure::new(format!("a subscriber got {got} of {sent} events: the relay lost some")));
    }
    Ok(figures(workload, &options, if backs.is_empty() { &fronts } else { &backs }, cpu_us))
}

/// Starts, runs and ends all processes. Returns the reports of the fronts and, where these report, of the backs.
fn run(cast: &Cast, options: &Options) -> Result<(Vec<Report>, Vec<Report>), Failure> {
    let mut family = Family::new(options.clone())?;
    let relay = family.start(cast.relay)?;
    family.wait_until_ready(relay)?;
    let backs = (0..cast.backs).map(|_| family.start(cast.back)).collect::<Result<Vec<_>, _>>()?;
    for &back in &backs {
        family.wait_until_ready(back)?;
    }
    let fronts = (0..cast.fronts).map(|_| family.start(cast.front)).collect::<Result<Vec<_>, _>>()?;
    for &front in &fronts {
        family.wait_until_ready(front)?;
    }
    for &front in &fronts {
        family.go(front)?;
    }
    let front_reports =
        fronts.into_iter().map(|front| family.report(front)).collect::<Result<Vec<_>, _>>()?;
    let back_reports = if cast.back == Role::Subscriber {
        backs.into_iter().map(|back| family.report(back)).collect::<Result<Vec<_>, _>>()?
    } else {
        Vec::new()
    };
    family.finish()?;
    Ok((front_reports, back_reports))
}

fn figures(workload: Workload, options: &Options, reports: &[Report], cpu_us: u64) -> Figures {
    let count: u64 = reports.iter().map(|report| report.measured).sum();
    let total: u64 = reports.iter().map(|report| report.total).sum();
    let start_ns = reports.iter().map(|report| report.start_ns).min().unwrap_or(0);
    let end_ns = reports.iter().map(|report| report.end_ns).max().unwrap_or(0);
    let seconds = end_ns.saturating_sub(start_ns).max(1) as f64 / 1e9;
    let per_second = count as f64 / seconds;
    let (unit, rate) = match workload {
        Workload::RelayLatency | Workload::Connect | Workload::SyncLatency => ("us", None),
        Workload::RelayThroughput => ("calls/s", Some(per_second)),
        Workload::Fanout => ("deliveries/s", Some(per_second)),
        Workload::Sync => ("syncs/s", Some(per_second)),
        Workload::Payload => ("GB/s", Some(per_second * options.size as f64 / 1e9)),
    };
    let timed = reports.first().filter(|_| rate.is_none());
    Figures {
        name: workload.name(),
        unit,
        p50: timed.map(|report| report.p50_ns as f64 / 1e3),
        p99: timed.map(|report| report.p99_ns as f64 / 1e3),
        rate,
        cpu_us_per_op: cpu_us as f64 / total.max(1) as f64,
        count,
    }
}

/// Puts this process on one CPU; the processes it starts inherit that.
fn pin(cpu: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).map_err(|error| {
        Failure::new(format!("cannot run on CPU {cpu}: {error}; is there one, and is it allowed?"))
    })
}

/// User and system time of this process and of those it has reaped, in microseconds.
fn cpu_us() -> Result<u64, Failure> {
    let mut sum = 0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who).map_err(at("read the CPU time"))?;
        sum += usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    }
    Ok(sum.max(0) as u64)
}
