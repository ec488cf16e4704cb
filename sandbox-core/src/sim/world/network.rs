//! The way between an engine and what it works with: where requests and replies are lost, late,
//! doubled and cut off, and where an engine dies before or after a step.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::{
    World,
    steps::{Fault, Step},
    weather::Fate,
};
use crate::host::HostReport;

/// One life of an engine's process.
#[derive(Debug, Default)]
pub(super) struct Life {
    over: AtomicBool,
    ended: Notify,
    /// The reports that it was given, to be given it once more.
    reports: Mutex<Vec<HostReport>>,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Store,
    Host,
}

/// The line of one engine to one peer.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) world: Arc<World>,
    pub(super) life: Arc<Life>,
    pub(super) plane: usize,
    pub(super) peer: Peer,
}

impl Life {
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.ended.notify_waiters();
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// A report has arrived.
    pub(super) fn reported(&self, report: HostReport) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.push(report);
    }

    /// The last report that was overtaken by another.
    pub(super) fn overtaken(&self) -> Option<HostReport> {
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = reports.iter().map(HostReport::number).max()?;
        let mut old = reports.iter().filter(|report| report.number() < newest);
        old.next_back().cloned()
    }

    /// Returns when it is over.
    pub(super) async fn over(&self) {
        let ended = self.ended.notified();
        if !self.is_over() {
            ended.await;
        }
    }

    /// The dead take no further step and learn nothing.
    pub(super) async fn lives(&self) {
        if self.is_over() {
            std::future::pending::<()>().await;
        }
    }
}

impl Line {
    /// A message is under way.
    async fn transit(&self) {
        let transit = self.world.transit();
        if !transit.is_zero() {
            tokio::time::sleep(transit).await;
        }
        self.life.lives().await;
    }

    /// Fails where the line is cut, after as long as it takes to notice that.
    async fn connected<E>(&self, lost: fn(&str) -> E) -> Result<(), E> {
        self.life.lives().await;
        let Some(patience) = self.world.cut_off(self.plane, self.peer) else {
            return Ok(());
        };
        tokio::time::sleep(patience).await;
        self.life.lives().await;
        Err(lost("the network is cut"))
    }

    /// Does something at the other end; a host's own death ends it.
    async fn act<T, E>(
        &self,
        act: BoxFuture<'static, Result<T, E>>,
        lost: fn(&str) -> E,
    ) -> Result<T, E> {
        match self.peer {
            Peer::Store => act.await,
            Peer::Host => tokio::select! {
                biased;
                done = act => done,
                () = self.world.host_died.notified() => Err(lost("the host went down")),
            },
        }
    }

    /// A question. It changes nothing, so that what befalls it is of no further interest.
    pub(super) async fn ask<T, E>(
        &self,
        act: BoxFuture<'static, Result<T, E>>,
        lost: fn(&str) -> E,
    ) -> Result<T, E> {
        self.connected(lost).await?;
        self.transit().await;
        let fate = self.world.fate(None);
        if fate == Fate::Fault(Fault::CrashBefore) {
            self.die::<()>().await;
        }
        let answer = self.act(act, lost).await;
        self.transit().await;
        match fate {
            Fate::Fault(Fault::FailBefore | Fault::FailAfter) => Err(lost("the reply was lost")),
            _ => answer,
        }
    }

    /// A step: a write or an order, which may be done as often as `act` is called.
    pub(super) async fn order<T: Send + 'static, E: Send + 'static>(
        &self,
        step: Step,
        whom: u128,
        act: impl Fn() -> BoxFuture<'static, Result<T, E>> + Send + Sync + 'static,
        lost: fn(&str) -> E,
    ) -> Result<T, E> {
        self.connected(lost).await?;
        self.transit().await;
        let fate = self.world.fate(Some(step));
        self.world.note(step.does, whom, || {
            format!("[engine {} {}] {fate:?}", self.plane, step.of)
        });
        let done = match fate {
            Fate::Deliver => self.act(act(), lost).await,
            Fate::Fault(fault) => match fault {
                Fault::FailBefore => Err(lost("the request was lost")),
                Fault::FailAfter => {
                    drop(self.act(act(), lost).await);
                    Err(lost("the reply was lost"))
                }
                Fault::CrashBefore => self.die().await,
                Fault::CrashAfter => {
                    drop(self.act(act(), lost).await);
                    self.die().await
                }
                Fault::Twice => self.twice(act, lost).await,
            },
            Fate::Late(by) => {
                later(by, act());
                Err(lost("no reply came in time"))
            }
        };
        self.transit().await;
        done
    }

    /// A message that came double, and its answer the first or the last. An order may come the second
    /// time much later; a statement to a store is repeated at once or never.
    async fn twice<T: Send + 'static, E: Send + 'static>(
        &self,
        act: impl Fn() -> BoxFuture<'static, Result<T, E>>,
        lost: fn(&str) -> E,
    ) -> Result<T, E> {
        let first = self.act(act(), lost).await;
        let (at_once, by) = self.world.lot();
        if at_once || self.peer == Peer::Store {
            let second = self.act(act(), lost).await;
            return match by.as_millis() % 2 {
                0 => first,
                _ => second,
            };
        }
        later(by, act());
        first
    }

    async fn die<T>(&self) -> T {
        self.world.note("dies", self.plane as u128, String::new);
        self.life.end();
        std::future::pending().await
    }
}

/// It happens all the same, and nobody waits for it.
fn later<T: Send + 'static>(by: Duration, act: BoxFuture<'static, T>) {
    tokio::spawn(async move {
        tokio::time::sleep(by).await;
        drop(act.await);
    });
}
