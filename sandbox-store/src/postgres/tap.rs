//! Listens in on what the server sends, for the SQLSTATE of its errors.
//!
//! diesel's errors keep a handful of kinds and the message in the server's language, and drop the
//! SQLSTATE that tells a full disk from a typing error. So each connection notes the state of the
//! last error that came in over it. Only the framing of messages is read (a type byte, a length,
//! and for errors their fields), which has been the same since protocol 3.0.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::error::SqlState;

/// Of an error's fields only this much is kept; the SQLSTATE comes long before its end.
const FIELDS_LEN_MAX: usize = 64 * 1024;

/// The SQLSTATE of the last error that a connection brought.
#[derive(Debug, Clone, Default)]
pub(super) struct LastState(Arc<Mutex<Option<SqlState>>>);

impl LastState {
    pub(super) fn take(&self) -> Option<SqlState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, state: SqlState) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }
}

/// A stream from a server, listened to.
pub(super) struct Tap<S> {
    stream: S,
    messages: Messages,
    last: LastState,
}

impl<S> Tap<S> {
    pub(super) fn on(stream: S, last: LastState) -> Self {
        Self {
            stream,
            messages: Messages::default(),
            last,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Some(state) = this.messages.feed(&buf.filled()[before..]) {
            this.last.note(state);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Where in the server's messages the stream is.
#[derive(Debug, Default)]
struct Messages {
    header: Vec<u8>,
    /// Bytes of the present message that are still to come, once its header is whole.
    left: usize,
    /// What has come of the present message, if it is an error.
    fields: Option<Vec<u8>>,
}

impl Messages {
    /// A type byte, and the length of the rest including itself.
    const HEADER_LEN: usize = 5;

    /// Takes in the next bytes; returns the state of the last error that ends in them.
    fn feed(&mut self, mut bytes: &[u8]) -> Option<SqlState> {
        let mut state = None;
        while !bytes.is_empty() {
            if self.header.len() < Self::HEADER_LEN {
                let missing = Self::HEADER_LEN - self.header.len();
                let (head, rest) = bytes.split_at(missing.min(bytes.len()));
                self.header.extend_from_slice(head);
                bytes = rest;
                let [kind, a, b, c, d] = self.header[..] else {
                    break;
                };
                self.left = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_sub(4);
                self.fields = (kind == b'E').then(Vec::new);
            }
            let (body, rest) = bytes.split_at(self.left.min(bytes.len()));
            bytes = rest;
            self.left -= body.len();
            if let Some(fields) = &mut self.fields {
                let room = FIELDS_LEN_MAX - fields.len();
                fields.extend_from_slice(&body[..body.len().min(room)]);
            }
            if self.left == 0 {
                self.header.clear();
                let fields = self.fields.take();
                state = fields.as_deref().and_then(sql_state).or(state);
            }
        }
        state
    }
}

/// The SQLSTATE among an error's fields: each is a type byte and a text, ended by a NUL.
fn sql_state(fields: &[u8]) -> Option<SqlState> {
    let mut fields = fields.split(|byte| *byte == 0);
    let code = fields.find_map(|field| field.strip_prefix(b"C"))?;
    std::str::from_utf8(code).ok().map(SqlState::from_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    fn stream() -> Vec<u8> {
        [
            message(b'1', b""),
            message(b'D', b"C99999\0 is a row's text, not an error"),
            message(
                b'E',
                b"SERROR\0VERROR\0C53100\0MC00000 could not extend file\0\0",
            ),
            message(b'Z', b"I"),
        ]
        .concat()
    }

    #[test]
    fn the_state_is_found_however_the_stream_is_cut() {
        for size in 1..=stream().len() {
            let mut messages = Messages::default();
            let found: Vec<_> = stream()
                .chunks(size)
                .filter_map(|chunk| messages.feed(chunk))
                .collect();
            assert_eq!(found, [SqlState::DISK_FULL], "in pieces of {size} bytes");
        }
    }

    #[test]
    fn of_two_errors_the_last_counts() {
        let errors = [
            message(b'E', b"C23505\0\0"),
            message(b'E', b"C57P01\0\0"),
            message(b'E', b"Mno state\0\0"),
        ];
        let state = Messages::default().feed(&errors.concat());
        assert_eq!(state, Some(SqlState::ADMIN_SHUTDOWN));
    }

    #[test]
    fn lengths_that_no_server_sends_are_survived() {
        let mut messages = Messages::default();
        assert_eq!(messages.feed(&[b'E', 0, 0, 0, 0]), None);
        assert_eq!(messages.feed(&[b'E', 0, 0, 0, 4]), None);
        let long = message(b'E', &vec![b'M'; 3 * FIELDS_LEN_MAX]);
        assert_eq!(messages.feed(&long), None);
        assert_eq!(
            messages.feed(&message(b'E', b"C53100\0\0")),
            Some(SqlState::DISK_FULL)
        );
    }
}
