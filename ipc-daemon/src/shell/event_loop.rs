//! The daemon's life: start, serve, drain, stop.

use core::time::Duration;
use std::net::SocketAddr;
use std::rc::Rc;

use ipc_core::transport::clock;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::Receiver;
use tokio::task::spawn_local;

use super::doors::Doors;
use super::idle::poll_before_park;
use super::keeping;
use super::readiness::{Readiness, announce_stopping, watchdog};
use super::signals::{Request, Signals};
use super::startup::{Holdings, fit_to_system};
use crate::admin::{self, Facts, MetricsPort, Sockets};
use crate::bridge::Bridges;
use crate::broker::{self, Broker};
use crate::bus::Bus;
use crate::bus::timer::Timer;
use crate::config::{Config, Source};
use crate::datagram;
use crate::failure::Failure;
use crate::logging;
use crate::net::readable::watch;
use crate::store::{Stored, Writer};

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
    let mut writer = None;
    let served = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| Failure::io("start the event loop", error))
        .and_then(|runtime| {
            let served = runtime.block_on(serve(&config, source, &mut holdings, &mut writer, readiness));
            // A name that is still being looked up is waited for by nobody.
            runtime.shutdown_background();
            served
        });
    holdings.unpublish();
    if let Some(writer) = writer {
        writer.stop();
    }
    served
}

async fn serve(
    config: &Config,
    source: &Source,
    holdings: &mut Holdings,
    writer: &mut Option<Writer>,
    readiness: Readiness,
) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let (bus, stored) = start_bus(config, holdings, writer)?;
    drop(spawn_local(keeping::tell(bus.clone(), stored)));
    let metrics = config.metrics.http.map(open_metrics).transpose()?;
    let facts = Facts { epoch: holdings.epoch, started: clock::now() };
    let bridges = Bridges::new(bus.clone());
    bridges.configure(&config.expose, &config.forward, config.limits.bridges_max)?;
    let doors = Doors::new(bus.clone(), door_config(config, holdings));
    let mut parts: Vec<Rc<dyn Sockets>> = vec![Rc::new(doors.clone())];
    if let Some(port) = metrics.map(Rc::new) {
        drop(spawn_local(Rc::clone(&port).serve(bus.clone(), facts.started)));
        parts.push(port);
    }
    admin::start(&bus, facts, parts, Rc::new(bridges.clone()))?;
    doors.open_local(std::mem::take(&mut holdings.sockets))?;
    doors.apply(doors.prepare(config.tcp, config.udp)?);
    let writing = bus.clone();
    drop(spawn_local(async move { writing.keep_writing().await }));
    let turning = bus.clone();
    drop(spawn_local(async move { turning.keep_turns().await }));
    if config.poll_before_park {
        drop(spawn_local(poll_before_park(bus.clone())));
    }
    readiness.announce();
    tracing::info!(epoch = %holdings.epoch, address = doors.shown_addresses(), "ready");
    while signals.next().await == Request::Reload {
        reload(&bus, &doors, &bridges, source, config).await;
    }
    stop(&bus, &doors, &bridges, holdings, &mut signals).await;
    tracing::info!("stopped");
    Ok(())
}

fn open_metrics(address: SocketAddr) -> Result<MetricsPort, Failure> {
    MetricsPort::bind(address)
        .map_err(|error| Failure::io(format_args!("listen on {address} for the page of numbers"), error))
}

fn door_config(config: &Config, holdings: &Holdings) -> datagram::Config {
    datagram::Config { limits: config.limits.clone(), epoch: holdings.epoch, cookie_key: holdings.cookie_key }
}

fn start_bus(
    config: &Config,
    holdings: &mut Holdings,
    writer: &mut Option<Writer>,
) -> Result<(Bus, Receiver<Stored>), Failure> {
    let mut broker = Broker::new(broker::Config {
        limits: config.limits.clone(),
        policy: config.policy(),
        epoch: holdings.epoch,
        server: concat!("ipc-daemon ", env!("CARGO_PKG_VERSION")).to_owned(),
    });
    let (started, stored) = keeping::start(&mut broker, holdings)?;
    let inlet = started.inlet();
    *writer = Some(started);
    let timer = Timer::new().map_err(|errno| Failure::io("make a timer", errno))?;
    let timer = Rc::new(timer);
    let watched = watch(Rc::clone(&timer), Interest::READABLE)
        .map_err(|error| Failure::io("watch the timer of deadlines", error))?;
    let bus = Bus::new(broker, timer);
    bus.store_in(inlet);
    if let Some(watchdog) = watchdog()? {
        bus.give_signs(watchdog);
    }
    drop(spawn_local(keep_deadlines(bus.clone(), watched)));
    Ok((bus, stored))
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

/// Reads the configuration again. A wrong one changes nothing; what cannot change while the daemon runs is named.
async fn reload(bus: &Bus, doors: &Doors, bridges: &Bridges, source: &Source, running: &Config) {
    let source = source.clone();
    // On a thread for what may take its time: files, and the names of users and groups.
    let loaded = tokio::task::spawn_blocking(move || source.load()).await;
    let loaded = loaded
        .unwrap_or_else(|error| Err(Failure::io("read the configuration", std::io::Error::other(error))));
    let applied = loaded.and_then(|mut config| {
        let fixed = config.fixed_changes(running);
        fit_to_system(&mut config.limits)?;
        let change = doors.prepare(config.tcp, config.udp)?;
        bridges.configure(&config.expose, &config.forward, config.limits.bridges_max)?;
        doors.apply(change);
        doors.set_limits(&config.limits);
        logging::set_level(config.log.level);
        bus.turn(|broker, _| {
            broker.set_policy(config.policy());
            broker.set_limits(config.limits);
        });
        Ok(fixed)
    });
    match applied {
        Ok(fixed) => {
            tracing::info!("configuration read again; it holds from here on");
            if !fixed.is_empty() {
                tracing::warn!("changed, but only for the next start: {}", fixed.join(", "));
            }
        }
        Err(failure) => {
            tracing::error!(hint = failure.hint, "the old configuration stays: {}", failure.message);
        }
    }
}

/// Drains and stops: at most the drain timeout, at once when asked a second time.
async fn stop(bus: &Bus, doors: &Doors, bridges: &Bridges, holdings: &mut Holdings, signals: &mut Signals) {
    tracing::debug!("stopping");
    announce_stopping();
    let is_ours = holdings.unpublish();
    doors.close(is_ours);
    bridges.begin_drain();
    let timeout = bus.look(|broker| broker.limits().drain_timeout_ms);
    bus.turn(|broker, _| broker.begin_drain());
    let is_patient = first(bus.drained(), signals.stop(), Duration::from_millis(timeout.into())).await;
    bus.turn(|broker, _| broker.end_drain());
    if is_patient {
        let deserted = async {
            bus.deserted().await;
            bridges.deserted().await;
            doors.deserted().await;
        };
        first(deserted, signals.stop(), FAREWELL_TIMEOUT).await;
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
