//! Just enough of an HTTP client that the time spent in it does not matter: one connection, one
//! request after another, bodies of known length.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const HEAD_BYTES_MAX: usize = 64 * 1024;

/// One connection that is kept open; a server closes it where nothing is asked for a while.
#[derive(Debug)]
pub(crate) struct Http {
    stream: TcpStream,
    key: String,
    received: BytesMut,
}

impl Http {
    /// Connects; requests carry this API key.
    pub(crate) async fn connect(address: SocketAddr, key: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            key: key.to_owned(),
            received: BytesMut::new(),
        })
    }

    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<Bytes> {
        self.ask("GET", path, "application/json", &[]).await
    }

    pub(crate) async fn post(&mut self, path: &str, json: &str) -> anyhow::Result<Bytes> {
        let body = json.as_bytes();
        self.ask("POST", path, "application/json", body).await
    }

    pub(crate) async fn put(&mut self, path: &str, body: &[u8]) -> anyhow::Result<Bytes> {
        self.ask("PUT", path, "application/octet-stream", body)
            .await
    }

    pub(crate) async fn delete(&mut self, path: &str) -> anyhow::Result<()> {
        self.ask("DELETE", path, "application/json", &[])
            .await
            .map(drop)
    }

    /// Gives the body of an answer that must be a success.
    async fn ask(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> anyhow::Result<Bytes> {
        let key = &self.key;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: bench\r\nx-api-key: {key}\r\n\
             content-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes()).await?;
        self.stream.write_all(body).await?;
        let answer = self.answer().await;
        answer.with_context(|| format!("{method} {path}"))
    }

    async fn answer(&mut self) -> anyhow::Result<Bytes> {
        let end = loop {
            if let Some(at) = find(&self.received, b"\r\n\r\n") {
                break at;
            }
            anyhow::ensure!(self.received.len() < HEAD_BYTES_MAX, "the head has no end");
            self.more().await?;
        };
        let head = self.received.split_to(end + 4);
        let head = std::str::from_utf8(&head)?;
        let status = head.split(' ').nth(1).context("no status")?.to_owned();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>())
        });
        let length = length.transpose()?.unwrap_or(0);
        self.received
            .reserve(length.saturating_sub(self.received.len()));
        while self.received.len() < length {
            self.more().await?;
        }
        let body = self.received.split_to(length).freeze();
        let words = || String::from_utf8_lossy(&body).into_owned();
        anyhow::ensure!(status.starts_with('2'), "{status}: {}", words());
        Ok(body)
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        let read = self.stream.read_buf(&mut self.received).await?;
        anyhow::ensure!(read > 0, "the connection was closed");
        Ok(())
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|at| at == what)
}
