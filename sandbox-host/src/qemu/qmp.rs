//! QMP, QEMU's control protocol: JSON, one message a line (docs/interop/qmp-spec in QEMU's tree).

use std::{io, path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

/// QEMU answers in milliseconds; a host under heavy load takes longer.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const SAVE_LIMIT: Duration = Duration::from_secs(60);

/// Why QEMU did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpError {
    #[error("the connection to QEMU failed: {0}")]
    Io(#[from] io::Error),
    #[error("QEMU closed its control connection")]
    Closed,
    #[error("QEMU did not answer `{0}` in time")]
    NoAnswer(String),
    #[error("QEMU refused `{command}`: {words}")]
    Refused { command: String, words: String },
    #[error("QEMU sent what is not QMP")]
    Malformed,
}

/// An event that matters to a machine's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QmpEvent {
    /// The guest powered off, reset or panicked. QEMU stays, stopped.
    Shutdown { reason: String },
    /// A write failed because the host's disk is full. QEMU has stopped the guest.
    DiskFull,
    /// Anything else.
    Other,
}

/// A control connection. QEMU has one at a time.
#[derive(Debug)]
pub(crate) struct Qmp {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
    /// Events that came while an answer was awaited.
    pending: Vec<QmpEvent>,
}

impl Qmp {
    /// Connects to `socket` and leaves negotiation mode.
    pub(crate) async fn connect(socket: &Path) -> Result<Self, QmpError> {
        let (reader, writer) = UnixStream::connect(socket).await?.into_split();
        let mut qmp = Self {
            lines: BufReader::new(reader).lines(),
            writer,
            pending: Vec::new(),
        };
        let greeting = timeout(ANSWER_LIMIT, qmp.message())
            .await
            .map_err(|_| QmpError::NoAnswer("greeting".to_owned()))??;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Malformed);
        }
        qmp.command("qmp_capabilities", Value::Null).await?;
        Ok(qmp)
    }

    /// Runs a command. `arguments` is an object, or null for none.
    pub(crate) async fn command(
        &mut self,
        name: &str,
        arguments: Value,
    ) -> Result<Value, QmpError> {
        self.command_within(ANSWER_LIMIT, name, arguments).await
    }

    /// Runs a command that may take long. After [`QmpError::NoAnswer`] the connection is of no use,
    /// since the answer may still come.
    pub(crate) async fn command_within(
        &mut self,
        limit: Duration,
        name: &str,
        arguments: Value,
    ) -> Result<Value, QmpError> {
        let mut request = json!({ "execute": name });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let mut line = request.to_string();
        line.push('\n');
        let answer = async {
            self.writer.write_all(line.as_bytes()).await?;
            loop {
                let mut message = self.message().await?;
                if let Some(event) = event_in(&message) {
                    self.pending.push(event);
                } else if let Some(error) = message.get("error") {
                    let words = error
                        .get("desc")
                        .and_then(Value::as_str)
                        .unwrap_or("no reason");
                    return Err(QmpError::Refused {
                        command: name.to_owned(),
                        words: words.to_owned(),
                    });
                } else if let Some(value) = message.get_mut("return") {
                    return Ok(value.take());
                } else {
                    return Err(QmpError::Malformed);
                }
            }
        };
        timeout(limit, answer)
            .await
            .unwrap_or_else(|_| Err(QmpError::NoAnswer(name.to_owned())))
    }

    /// The next event. Safe to drop while it waits.
    pub(crate) async fn event(&mut self) -> Result<QmpEvent, QmpError> {
        loop {
            if !self.pending.is_empty() {
                return Ok(self.pending.remove(0));
            }
            let message = self.message().await?;
            if let Some(event) = event_in(&message) {
                return Ok(event);
            }
        }
    }

    /// Sends the stopped guest's devices to `socket`, a listening unix socket in QEMU's folder, and
    /// returns when QEMU has sent all. RAM stays out of it: it is a file of its own.
    pub(crate) async fn save_devices(&mut self, socket: &str) -> Result<(), QmpError> {
        self.leave_memory_out().await?;
        let arguments = json!({ "uri": format!("unix:{socket}") });
        self.command("migrate", arguments).await?;
        let finished = async {
            loop {
                let answer = self.command("query-migrate", Value::Null).await?;
                match answer.get("status").and_then(Value::as_str) {
                    Some("completed") => return Ok(()),
                    Some("failed" | "cancelled") => {
                        let words = answer.get("error-desc").and_then(Value::as_str);
                        return Err(QmpError::Refused {
                            command: "migrate".to_owned(),
                            words: words.unwrap_or("no reason").to_owned(),
                        });
                    }
                    _ => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        };
        timeout(SAVE_LIMIT, finished)
            .await
            .unwrap_or_else(|_| Err(QmpError::NoAnswer("migrate".to_owned())))
    }

    /// Begins to load devices from an inherited descriptor; the guest goes on by itself behind it,
    /// unless the machine was started to wait.
    pub(crate) async fn load_devices(&mut self, fd: i32) -> Result<(), QmpError> {
        self.leave_memory_out().await?;
        self.command("migrate-incoming", json!({ "uri": format!("fd:{fd}") }))
            .await
            .map(drop)
    }

    /// Waits until the devices of a machine that was started to wait are loaded. QEMU ends where
    /// they can't be.
    pub(crate) async fn wait_loaded(&mut self) -> Result<(), QmpError> {
        let loaded = async {
            loop {
                match self.status().await?.as_str() {
                    "inmigrate" => tokio::time::sleep(Duration::from_millis(1)).await,
                    "paused" => return Ok(()),
                    other => {
                        return Err(QmpError::Refused {
                            command: "migrate-incoming".to_owned(),
                            words: format!("the machine is `{other}`"),
                        });
                    }
                }
            }
        };
        timeout(SAVE_LIMIT, loaded)
            .await
            .unwrap_or_else(|_| Err(QmpError::NoAnswer("migrate-incoming".to_owned())))
    }

    async fn leave_memory_out(&mut self) -> Result<(), QmpError> {
        let capabilities = json!([{ "capability": "x-ignore-shared", "state": true }]);
        let arguments = json!({ "capabilities": capabilities });
        self.command("migrate-set-capabilities", arguments)
            .await
            .map(drop)
    }

    /// QEMU's run state, such as `running`, `inmigrate`, `io-error` or `shutdown`.
    pub(crate) async fn status(&mut self) -> Result<String, QmpError> {
        let answer = self.command("query-status", Value::Null).await?;
        let status = answer
            .get("status")
            .and_then(Value::as_str)
            .ok_or(QmpError::Malformed)?;
        Ok(status.to_owned())
    }

    /// What the guest's console showed last. Reading takes it away.
    pub(crate) async fn console(&mut self) -> Result<String, QmpError> {
        let arguments = json!({ "device": "console", "size": super::args::CONSOLE_BYTES });
        let answer = self.command("ringbuf-read", arguments).await?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    async fn message(&mut self) -> Result<Value, QmpError> {
        let line = self.lines.next_line().await?.ok_or(QmpError::Closed)?;
        serde_json::from_str(&line).map_err(|_| QmpError::Malformed)
    }
}

fn event_in(message: &Value) -> Option<QmpEvent> {
    let name = message.get("event")?.as_str()?;
    let data = message.get("data");
    let field = |key: &str| data.and_then(|data| data.get(key));
    Some(match name {
        "SHUTDOWN" => QmpEvent::Shutdown {
            reason: field("reason")
                .and_then(Value::as_str)
                .unwrap_or("unknown")
                .to_owned(),
        },
        "BLOCK_IO_ERROR" if field("nospace") == Some(&Value::Bool(true)) => QmpEvent::DiskFull,
        _ => QmpEvent::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart() {
        let event = |text: &str| event_in(&serde_json::from_str(text).unwrap());
        assert_eq!(
            event(r#"{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}"#),
            Some(QmpEvent::Shutdown {
                reason: "guest-reset".to_owned()
            })
        );
        assert_eq!(
            event(r#"{"event":"BLOCK_IO_ERROR","data":{"nospace":true,"action":"stop"}}"#),
            Some(QmpEvent::DiskFull)
        );
        assert_eq!(
            event(r#"{"event":"BLOCK_IO_ERROR","data":{"nospace":false}}"#),
            Some(QmpEvent::Other)
        );
        assert_eq!(event(r#"{"return":{}}"#), None);
    }
}
