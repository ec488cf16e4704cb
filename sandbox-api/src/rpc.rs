//! Clients of the Rust SDK and of the command line tool: the same engine, by another door.

use std::path::Path;

use futures::future::join_all;
use sandbox_sdk::rpc::{Listener, Server};
use tokio_util::sync::CancellationToken;

use crate::daemon::DaemonError;

/// The socket in the data folder: whoever may open it may do everything.
pub(crate) const SOCKET_NAME: &str = "sandboxd.sock";

/// Opens the socket in the data folder, and another door where one is named.
pub(crate) async fn open(data: &Path, named: Option<&str>) -> Result<Vec<Listener>, DaemonError> {
    let mut doors = Vec::new();
    let socket = format!("unix:{}", data.join(SOCKET_NAME).display());
    match Listener::bind(&socket).await {
        Ok(door) => doors.push(door),
        // Such as a folder whose path is longer than a socket's may be: the rest works.
        Err(error) => tracing::warn!(%socket, %error, "local clients can't come in"),
    }
    if let Some(address) = named {
        let door = Listener::bind(address).await;
        let door = door.map_err(|source| DaemonError::Rpc {
            address: address.to_owned(),
            source,
        })?;
        tracing::info!(address = %door, "takes remote clients");
        doors.push(door);
    }
    Ok(doors)
}

/// Serves all doors until the daemon stops.
pub(crate) async fn serve(server: &Server, doors: Vec<Listener>, stopping: &CancellationToken) {
    let serving = doors.into_iter().map(|door| async {
        let stop = stopping.clone().cancelled_owned();
        if let Err(error) = server.serve(door, stop).await {
            tracing::error!(%error, "clients are no longer taken");
        }
    });
    join_all(serving).await;
}
