//! Following a machine: its events, requests of it, and its end.
//!
//! QEMU takes one control connection at a time. The task that watches a machine holds it, and does
//! what others ask for between two events.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::Machine;
use crate::{
    qemu::{QMP_SOCKET, Qmp, QmpError, QmpEvent, reason_of_end},
    space,
};

/// How often a guest that was stopped by a full disk is tried again.
const RETRY_AFTER_FULL: Duration = Duration::from_millis(500);
const RECONNECT_AFTER: Duration = Duration::from_millis(100);
const KILLED: &str = "its machine was ended from outside";

/// Where a machine ended and why.
#[derive(Debug, Clone)]
pub(crate) struct Ended(pub(crate) String);

/// A command for QEMU, and where its answer goes.
#[derive(Debug)]
pub(super) struct Request {
    command: &'static str,
    arguments: Value,
    limit: Duration,
    answer: oneshot::Sender<Result<Value, QmpError>>,
}

impl Machine {
    /// Waits for the machine's end and says why it came. Leaves no process behind.
    pub(crate) async fn watch(&self) -> Ended {
        let reason = tokio::select! {
            biased;
            reason = self.follow_events() => reason,
            () = self.process.ended() => KILLED.to_owned(),
        };
        self.standing.send_replace(Some(reason.clone()));
        if let Err(error) = self.process.kill().await {
            tracing::error!(machine = %self.id, %error, "a machine's process does not end");
        }
        let ended = Ended(reason);
        self.end.get_or_init(|| ended.clone());
        ended
    }

    /// Has QEMU run a command, through whoever watches the machine.
    pub(super) async fn command(
        &self,
        command: &'static str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            command,
            arguments,
            limit,
            answer,
        };
        let exchange = async {
            self.control
                .send(request)
                .await
                .map_err(|_| QmpError::Closed)?;
            answered.await.map_err(|_| QmpError::Closed)?
        };
        tokio::select! {
            answer = exchange => answer,
            () = self.process.ended() => Err(QmpError::Closed),
            // The watching may be between two connections.
            () = tokio::time::sleep(limit * 2) => Err(QmpError::NoAnswer(command.to_owned())),
        }
    }

    /// Follows QEMU's events until one of them means the machine's end. Where the control connection
    /// is lost or can't be had it is made anew: the process's own end counts besides.
    async fn follow_events(&self) -> String {
        let mut requests = self.requests.lock().await;
        loop {
            match self.try_follow_events(&mut requests).await {
                Ok(reason) => return reason,
                Err(error) => {
                    tracing::debug!(machine = %self.id, %error, "QEMU's control connection ended");
                    tokio::time::sleep(RECONNECT_AFTER).await;
                }
            }
        }
    }

    async fn try_follow_events(
        &self,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<String, QmpError> {
        let made = self.qmp.lock().take();
        let mut qmp = match made {
            Some(qmp) => qmp,
            None => Qmp::connect(&self.sockets.path(QMP_SOCKET)).await?,
        };
        let mut disk_full = false;
        // What happened before the connection was there shows in the status.
        match qmp.status().await?.as_str() {
            "shutdown" => return self.explain(&mut qmp, "guest-shutdown").await,
            "guest-panicked" => return self.explain(&mut qmp, "guest-panic").await,
            "io-error" => disk_full = true,
            _ => {}
        }
        loop {
            if disk_full {
                self.stand_still();
            }
            tokio::select! {
                event = qmp.event() => match event? {
                    QmpEvent::Shutdown { reason } => return self.explain(&mut qmp, &reason).await,
                    QmpEvent::DiskFull => disk_full = true,
                    QmpEvent::Other => {}
                },
                Some(request) = requests.recv() => {
                    let Request { command, arguments, limit, answer } = request;
                    let result = qmp.command_within(limit, command, arguments).await;
                    let usable = matches!(result, Ok(_) | Err(QmpError::Refused { .. }));
                    // Whoever asked may have gone.
                    let _ = answer.send(result);
                    if !usable {
                        return Err(QmpError::Closed);
                    }
                }
                () = tokio::time::sleep(RETRY_AFTER_FULL), if disk_full => {
                    disk_full = !self.retry_write(&mut qmp).await?;
                }
            }
        }
    }

    async fn explain(&self, qmp: &mut Qmp, event: &str) -> Result<String, QmpError> {
        let console = qmp.console().await?;
        Ok(reason_of_end(event, &console))
    }

    /// QEMU has stopped the guest in the middle of a write that found the host's disk full.
    fn stand_still(&self) {
        let told = self.standing.send_if_modified(|standing| {
            let news = standing.is_none();
            if news {
                *standing =
                    Some("the host's disk is full; it goes on when there is room again".to_owned());
            }
            news
        });
        if told {
            tracing::warn!(machine = %self.id, "the host's disk is full; the guest stands still");
        }
    }

    /// The write is tried again, and with it the guest goes on, once there is room.
    async fn retry_write(&self, qmp: &mut Qmp) -> Result<bool, QmpError> {
        let at_rest = self.at_rest.load(Ordering::Acquire);
        if at_rest || space::free_mb(&self.folder)? < space::SPARE_MB / 4 {
            return Ok(false);
        }
        qmp.command("cont", Value::Null).await?;
        self.standing.send_replace(None);
        Ok(true)
    }
}
