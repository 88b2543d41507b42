//! The daemon's life: start, serve, drain, stop.

use core::time::Duration;
use std::os::unix::net::UnixListener;
use std::rc::Rc;

use ipc_core::transport::clock;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{JoinHandle, spawn_local};

use super::idle::poll_before_park;
use super::listener::Listener;
use super::readiness::{Readiness, announce_stopping};
use super::signals::{Request, Signals};
use super::startup::{Holdings, fit_to_system};
use crate::admin::{self, Facts};
use crate::bridge::Bridges;
use crate::broker::{self, Broker};
use crate::bus::Bus;
use crate::bus::timer::Timer;
use crate::config::{Config, Source};
use crate::failure::Failure;
use crate::net::readable::watch;

/// Time for the peers to take their last frames before the process ends.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the daemon until it is asked to stop.
///
/// # Errors
/// When it cannot start: its socket is not left behind then.
pub(crate) fn run(mut config: Config, source: &Source, readiness: Readiness) -> Result<(), Failure> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "starting");
    fit_to_system(&mut config.limits)?;
    let mut holdings = Holdings::take(&config)?;
    let served = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| Failure::io("start the event loop", error))
        .and_then(|runtime| runtime.block_on(serve(&config, source, &mut holdings, readiness)));
    holdings.unpublish();
    served
}

/// A listener with its loop.
struct Door {
    listener: Rc<Listener>,
    task: JoinHandle<()>,
}

async fn serve(
    config: &Config,
    source: &Source,
    holdings: &mut Holdings,
    readiness: Readiness,
) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let bus = start_bus(config, holdings)?;
    let facts =
        Facts { epoch: holdings.epoch, started: clock::now(), addresses: holdings.listen_addresses() };
    let bridges = Bridges::new(bus.clone());
    bridges.configure(&config.expose, config.limits.bridges_max)?;
    admin::start(&bus, facts, Rc::new(bridges.clone()))?;
    let listeners = std::mem::take(&mut holdings.listeners);
    let doors: Vec<Door> =
        listeners.into_iter().map(|socket| open_door(&bus, socket)).collect::<Result<_, _>>()?;
    if config.poll_before_park {
        drop(spawn_local(poll_before_park(bus.clone())));
    }
    readiness.announce();
    tracing::info!(epoch = %holdings.epoch, address = holdings.shown_addresses(), "ready");
    while signals.next().await == Request::Reload {
        reload(&bus, &bridges, source);
    }
    stop(&bus, &bridges, doors, holdings, &mut signals).await;
    tracing::info!("stopped");
    Ok(())
}

fn start_bus(config: &Config, holdings: &Holdings) -> Result<Bus, Failure> {
    let broker = Broker::new(broker::Config {
        limits: config.limits.clone(),
        policy: config.policy(),
        epoch: holdings.epoch,
        server: concat!("ipc-daemon ", env!("CARGO_PKG_VERSION")).to_owned(),
    });
    let timer = Timer::new().map_err(|errno| Failure::io("make a timer", errno))?;
    let timer = Rc::new(timer);
    let watched = watch(Rc::clone(&timer), Interest::READABLE)
        .map_err(|error| Failure::io("watch the timer of deadlines", error))?;
    let bus = Bus::new(broker, timer);
    drop(spawn_local(keep_deadlines(bus.clone(), watched)));
    Ok(bus)
}

/// Asks the broker about its deadlines whenever the timer expires.
async fn keep_deadlines(bus: Bus, timer: AsyncFd<Rc<Timer>>) {
    while let Ok(mut guard) = timer.readable().await {
        guard.clear_ready();
        if timer.get_ref().expired() {
            bus.turn(|broker, now| broker.handle_timeout(now));
        }
    }
}

fn open_door(bus: &Bus, socket: UnixListener) -> Result<Door, Failure> {
    let listener = Rc::new(Listener::new(bus.clone(), socket)?);
    let accepting = Rc::clone(&listener);
    let task = spawn_local(async move { accepting.run().await });
    Ok(Door { listener, task })
}

/// Reads the configuration again. A wrong one changes nothing.
fn reload(bus: &Bus, bridges: &Bridges, source: &Source) {
    let applied = source.load().and_then(|mut config| {
        fit_to_system(&mut config.limits)?;
        bridges.configure(&config.expose, config.limits.bridges_max)?;
        bus.turn(|broker, _| {
            broker.set_policy(config.policy());
            broker.set_limits(config.limits);
        });
        Ok(())
    });
    match applied {
        Ok(()) => tracing::info!("configuration read again; its limits and exposed ports hold from here on"),
        Err(failure) => {
            tracing::error!(hint = failure.hint, "the old configuration stays: {}", failure.message);
        }
    }
}

/// Drains and stops: at most the drain timeout, at once when asked a second time.
async fn stop(
    bus: &Bus,
    bridges: &Bridges,
    doors: Vec<Door>,
    holdings: &mut Holdings,
    signals: &mut Signals,
) {
    tracing::debug!("stopping");
    announce_stopping();
    let is_ours = holdings.unpublish();
    close_doors(doors, is_ours);
    bridges.begin_drain();
    let timeout = bus.look(|broker| broker.limits().drain_timeout_ms);
    bus.turn(|broker, _| broker.begin_drain());
    let is_patient = first(bus.drained(), signals.stop(), Duration::from_millis(timeout.into())).await;
    bus.turn(|broker, _| broker.end_drain());
    if is_patient {
        let deserted = async {
            bus.deserted().await;
            bridges.deserted().await;
        };
        first(deserted, signals.stop(), FAREWELL_TIMEOUT).await;
    }
}

/// Whoever has found the socket already and waits to be accepted is told that the daemon stops. A socket that was
/// handed over stays open elsewhere, for the daemon's successor: those who wait there are left to it.
fn close_doors(doors: Vec<Door>, is_ours: bool) {
    for door in doors {
        door.task.abort();
        if is_ours {
            door.listener.turn_away();
        }
    }
}

/// Waits until `done`, or until `interrupted`, or until the time is up. False when interrupted.
async fn first(
    done: impl Future<Output = ()>,
    interrupted: impl Future<Output = ()>,
    timeout: Duration,
) -> bool {
    let mut done = std::pin::pin!(tokio::time::timeout(timeout, done));
    let mut interrupted = std::pin::pin!(interrupted);
    std::future::poll_fn(|context| {
        if interrupted.as_mut().poll(context).is_ready() {
            return std::task::Poll::Ready(false);
        }
        done.as_mut().poll(context).map(|_| true)
    })
    .await
}
