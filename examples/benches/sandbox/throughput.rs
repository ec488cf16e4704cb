//! Requests a second, beside a server that does nothing.

use std::{
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context;
use axum::{Router, routing::get};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

use crate::{daemon::Daemon, http::Http, remote::create, table::Table};

const CONNECTIONS: usize = 32;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);
/// Runs this program as the server that does nothing.
pub(crate) const SERVE_CONSTANT: &str = "--serve-constant";

/// Serves one answer until it is killed.
pub(crate) async fn serve_constant(body: String) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let kind = [("content-type", "application/json")];
    let answer = move || std::future::ready((kind, body.clone()));
    let router = Router::new().route("/v1/sandboxes/{id}", get(answer));
    Ok(axum::serve(listener, router).await?)
}

async fn constant(body: &str) -> anyhow::Result<(Child, SocketAddr)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([SERVE_CONSTANT, body])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let line = BufReader::new(stdout).lines().next_line().await?;
    Ok((child, line.context("it did not start")?.parse()?))
}

/// `GET` of one sandbox, in turns with the same bytes from a server that does nothing.
pub(crate) async fn row(daemon: &Daemon, table: &mut Table) -> anyhow::Result<()> {
    let mut http = daemon.connect().await?;
    let path = create(&mut http).await?;
    let body = http.get(&path).await?;
    let (mut child, address) = constant(std::str::from_utf8(&body)?).await?;
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Http::connect(address, "").await?);
        }
        theirs.push(round(connections, &path).await?);
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(daemon.connect().await?);
        }
        ours.push(round(connections, &path).await?);
    }
    table.per_second("GET from axum, a constant, 32 connections", &theirs, None);
    table.per_second(
        "GET /v1/sandboxes/{id}, 32 connections",
        &ours,
        Some(("constant", &theirs)),
    );
    child.kill().await?;
    http.delete(&path).await
}

/// Requests a second, over all connections.
async fn round(connections: Vec<Http>, path: &str) -> anyhow::Result<f64> {
    let start = Instant::now();
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|mut http| {
            let path = path.to_owned();
            tokio::spawn(async move {
                let mut count = 0_u64;
                while start.elapsed() < ROUND {
                    http.get(&path).await?;
                    count += 1;
                }
                anyhow::Ok(count)
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
