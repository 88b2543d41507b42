//! The disk of the simulated daemon, and its restarts.

use core::time::Duration;

use ipc_core::id::Epoch;
use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_daemon::broker::{Broker, Config, Fault};

use super::{EPOCH, SERVER, World};
use crate::disk::Disk;
use crate::generator::{Action, Way};
use crate::model::policy;
use crate::rng::Rng;

/// A daemon that has seen nothing so far.
pub(super) fn broker(limits: &Limits, reign: usize, epoch: Epoch) -> Broker {
    let limits = limits.clone();
    Broker::new(Config { limits, policy: policy(reign), epoch, server: SERVER.to_owned() })
}

/// It finds what was kept, and reserves what it needs before anybody comes.
pub(super) fn begin(broker: &mut Broker, now: Instant, disk: Option<&mut Disk>) -> Result<(), String> {
    broker.tick(now);
    let Some(disk) = disk else { return Ok(()) };
    for (key, value) in &disk.records {
        broker.restore(now, key, value).map_err(|error| format!("what was written is not read: {error}"))?;
    }
    broker.open_store(now).map_err(|error| format!("what was written does not fit together: {error}"))?;
    while broker.poll_output().is_some() {
        disk.begin(broker.take_commit().ok_or("a daemon that begins wants something else than a commit")?);
        let (sequence, result) = disk.finish().ok_or("the commit is not there")?;
        broker.handle_stored(now, sequence, result);
    }
    Ok(())
}

impl World {
    /// Whether a commit is under way.
    pub fn is_disk_busy(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.under_way.is_some())
    }

    /// Whether nothing is written any more in this life of the daemon.
    pub fn is_disk_dead(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| matches!(disk.fault, Some(Fault::Dead(_))))
    }

    /// What happens to the disk, or to the daemon as a whole. Says whether it came to anything.
    pub(super) fn disk_action(&mut self, action: &Action) -> Result<bool, String> {
        if let Action::Crash { is_written, millis } = action {
            return self.crash(*is_written, Duration::from_millis(*millis)).map(|()| true);
        }
        let is_dead = self.is_disk_dead();
        let Some(disk) = &mut self.disk else { return Ok(false) };
        match action {
            Action::DiskAnswers => return self.disk_answers(),
            Action::DiskFills { .. } | Action::DiskDies if is_dead => return Ok(false),
            Action::DiskFills { is_full } => {
                disk.fault = is_full.then(|| Fault::Full("there is no room".to_owned()));
            }
            _ => disk.fault = Some(Fault::Dead("a sync has failed".to_owned())),
        }
        Ok(true)
    }

    /// The commit that is under way ends. Says whether there was one.
    fn disk_answers(&mut self) -> Result<bool, String> {
        let Some((sequence, result)) = self.disk.as_mut().and_then(Disk::finish) else { return Ok(false) };
        self.coverage.count(match &result {
            Ok(()) => "disk.written",
            Err(Fault::Full(_)) => "fault.disk_full",
            Err(Fault::Dead(_)) => "fault.disk_dead",
        });
        self.broker.handle_stored(self.now, sequence, result.clone());
        self.model.stored(self.now, &result);
        self.reconcile()?;
        self.outputs()?;
        Ok(true)
    }

    /// The disk works again and does all that it is asked for; one that has failed takes a new daemon.
    pub(super) fn calm_disk(&mut self, rng: &mut Rng) -> Result<(), String> {
        if self.is_disk_dead() {
            self.crash(false, Duration::from_millis(1))?;
        }
        if let Some(disk) = &mut self.disk {
            disk.fault = None;
        }
        loop {
            self.settle(rng)?;
            if !self.disk_answers()? {
                return Ok(());
            }
        }
    }

    /// The daemon is killed: every connection ends, whatever was on its way is lost, and another one begins a while later with
    /// what the disk has.
    fn crash(&mut self, is_written: bool, after: Duration) -> Result<(), String> {
        self.restart_door()?;
        self.connections.clear();
        let disk = self.disk.take();
        let has_written = disk.as_ref().is_some_and(|disk| disk.fault.is_none()) && is_written;
        self.coverage.count(match (self.model.has_changes_under_way(), has_written) {
            (false, _) => "fault.crash",
            (true, true) => "fault.crash_before_the_answer",
            (true, false) => "fault.crash_before_the_write",
        });
        self.disk = disk.map(|disk| disk.crash(is_written));
        self.now = self.now + after;
        self.life += 1;
        let epoch = Epoch(EPOCH.0 + self.life);
        self.model.restart(self.now, epoch, has_written);
        self.broker = broker(&self.limits, self.model.reign(), epoch);
        begin(&mut self.broker, self.now, self.disk.as_mut())?;
        self.check()
    }

    /// One more daemon has everything that is kept, and nothing else.
    pub(super) fn last_look(&mut self, rng: &mut Rng) -> Result<(), String> {
        self.crash(true, Duration::from_millis(1))?;
        let connect = Action::Connect { way: Way::Local, capacity: usize::MAX };
        let hello = Action::Hello { version_min: 1, version_max: 1, revocation: true };
        for action in [connect, hello, Action::ListKeys] {
            self.apply(0, &action, rng)?;
            self.settle(rng)?;
        }
        self.check()
    }
}
