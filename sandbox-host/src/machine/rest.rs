//! A machine at rest: its guest has settled its disk and stopped its processes, its link is closed,
//! and it stands between two instructions.

use std::{sync::atomic::Ordering, time::Duration};

use sandbox_core::host::HostError;
use serde_json::{Value, json};

use super::{Machine, check_agent, control_error};
use crate::{fault, identity, link::client::Hold, qemu::ANSWER_LIMIT, space};

/// A guest settles its disk in well under a second, unless it has written much or hangs.
const QUIESCE_LIMIT: Duration = Duration::from_secs(20);
/// QEMU brings the disk's cache to disk as it stops.
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// A guest that goes on answers within milliseconds.
const HELLO_LIMIT: Duration = Duration::from_secs(30);

/// A machine's rest. Dropping it lets the link be made again and no more: whoever has it sees to
/// what becomes of the machine.
#[derive(Debug)]
pub(crate) struct Rest {
    /// Whether the guest took part. Memory and disk are of one moment in any case; of a guest that
    /// did not, user processes go on as soon as it does.
    pub(crate) quiesced: bool,
    _hold: Hold,
}

/// Whether a guest that does not answer is brought to rest nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guest {
    MustAgree,
    MayHang,
}

impl Machine {
    /// Brings the machine to rest. On failure it runs on.
    pub(crate) async fn rest(&self, trim: bool, guest: Guest) -> Result<Rest, HostError> {
        self.at_rest.store(true, Ordering::Release);
        let result = self.try_rest(trim, guest).await;
        if result.is_err() {
            self.go_on_or_log(None).await;
        }
        result
    }

    async fn try_rest(&self, trim: bool, guest: Guest) -> Result<Rest, HostError> {
        if let Some(reason) = self.standing.borrow().clone() {
            return Err(HostError::WrongState {
                state: "not running".to_owned(),
                reason,
            });
        }
        let quiesced = match self.guest.quiesce(trim, QUIESCE_LIMIT).await {
            Ok(()) => true,
            Err(error) if guest == Guest::MustAgree => {
                return Err(HostError::WrongState {
                    state: "running".to_owned(),
                    reason: format!("its guest does not come to rest: {error}"),
                });
            }
            Err(error) => {
                tracing::warn!(machine = %self.id, %error, "a guest is stopped as it stands");
                false
            }
        };
        let step =
            |error: std::io::Error| space::or_internal(&self.folder, "coming to rest", &error);
        fault::point("quiesced").map_err(step)?;
        // The saved agent must find nobody connected.
        let hold = self.guest.disconnect_and_hold().await;
        self.command("stop", Value::Null, STOP_LIMIT)
            .await
            .map_err(|error| control_error("stopping it", &error))?;
        match self.status().await?.as_str() {
            "paused" => {}
            "io-error" => return Err(space::full(&self.folder)),
            other => {
                return Err(HostError::WrongState {
                    state: other.to_owned(),
                    reason: "it did not stop".to_owned(),
                });
            }
        }
        fault::point("stopped").map_err(step)?;
        Ok(Rest {
            quiesced,
            _hold: hold,
        })
    }

    /// QEMU's run state.
    pub(crate) async fn status(&self) -> Result<String, HostError> {
        let answer = self
            .command("query-status", Value::Null, ANSWER_LIMIT)
            .await
            .map_err(|error| control_error("asking for its state", &error))?;
        let status = answer.get("status").and_then(Value::as_str);
        Ok(status.unwrap_or_default().to_owned())
    }

    /// The version of the QEMU that runs the machine.
    pub(crate) async fn qemu_version(&self) -> Result<String, HostError> {
        let answer = self
            .command("query-version", Value::Null, ANSWER_LIMIT)
            .await
            .map_err(|error| control_error("asking for its version", &error))?;
        let number = |part| answer["qemu"][part].as_u64().unwrap_or_default();
        let (major, minor, micro) = (number("major"), number("minor"), number("micro"));
        Ok(format!("{major}.{minor}.{micro}"))
    }

    /// Saves the devices of a machine at rest to a file of its folder.
    pub(crate) async fn save_devices(&self, name: &str) -> Result<(), HostError> {
        let arguments = json!({ "filename": name, "live": false });
        self.command("xen-save-devices-state", arguments, ANSWER_LIMIT)
            .await
            .map(drop)
            .map_err(|error| {
                let error = std::io::Error::other(error);
                space::or_internal(&self.folder, "saving its devices", &error)
            })
    }

    /// Has the machine run.
    pub(crate) async fn cont(&self) -> Result<(), HostError> {
        self.at_rest.store(false, Ordering::Release);
        self.command("cont", Value::Null, ANSWER_LIMIT)
            .await
            .map(drop)
            .map_err(|error| control_error("having it go on", &error))
    }

    /// Has the guest go on, with the right time. No harm is done to one that does already.
    pub(crate) async fn wake(&self) -> Result<(), HostError> {
        let waking = identity::waking()
            .map_err(|error| HostError::Internal(format!("asking for entropy: {error}")))?;
        let Err(error) = self.guest.wake(waking).await else {
            return Ok(());
        };
        // One that can't write to its disk stands still, and goes on by itself once it can.
        if self.status().await.is_ok_and(|status| status == "io-error") {
            return Err(space::full(&self.folder));
        }
        Err(HostError::Boot(format!(
            "its guest does not go on: {error}"
        )))
    }

    /// Whether this host speaks with the machine's agent.
    pub(crate) async fn check_agent(&self) -> Result<(), HostError> {
        match self.guest.hello(HELLO_LIMIT).await {
            Ok(hello) => check_agent(&hello),
            Err(error) => Err(HostError::Boot(format!(
                "its guest does not go on: {error}"
            ))),
        }
    }

    /// Has the machine and its guest go on.
    pub(crate) async fn go_on(&self, rest: Option<Rest>) -> Result<(), HostError> {
        let went_on = self.cont().await;
        // Behind it, since nobody would answer a call before.
        drop(rest);
        went_on?;
        self.wake().await
    }

    /// As [`go_on`](Self::go_on), where an error is on its way already.
    pub(crate) async fn go_on_or_log(&self, rest: Option<Rest>) {
        if let Err(error) = self.go_on(rest).await {
            tracing::error!(machine = %self.id, %error, "a machine does not go on");
        }
    }
}
