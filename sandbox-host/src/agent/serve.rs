//! Serving one stream: preamble, frames, and again from the start when the connection ends.
//!
//! ```text
//! wait for a host ──► scan for a preamble ──► answer it ──► serve calls ──┐
//!        ▲                     ▲                                          │
//!        └──── host has gone ──┴──── unreadable input, new preamble ──────┘
//! ```

use std::{io, sync::Arc};

use bytes::BytesMut;
use futures::{StreamExt, pin_mut, stream::FuturesUnordered};
use tarpc::server::{BaseChannel, Channel};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixListener,
};
use tokio_util::codec::{Decoder, Framed};

use super::{
    port::PortStream,
    service::{Agent, Service},
};
use crate::link::{
    codec::{CodecError, MessageCodec},
    preamble::{self, Preamble},
    protocol::{GuestAgent, GuestAgentRequest, GuestAgentResponse},
};

type Request = tarpc::ClientMessage<GuestAgentRequest>;
type Response = tarpc::Response<GuestAgentResponse>;

/// Serves the port for ever, one host after the other.
pub(crate) async fn serve_port(agent: &Arc<Agent>, mut port: PortStream) -> io::Result<()> {
    loop {
        port.host_connected().await?;
        // Its end is the host's, whatever the reason.
        let _ = serve_stream(agent, &mut port).await;
    }
}

/// Serves every connection to this socket, all at once.
pub(crate) async fn serve_listener(agent: &Arc<Agent>, listener: UnixListener) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let agent = Arc::clone(agent);
        tokio::spawn(async move {
            // As above.
            let _ = serve_stream(&agent, &mut stream).await;
        });
    }
}

/// Serves until the other side has gone.
async fn serve_stream<S>(agent: &Arc<Agent>, stream: &mut S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut input = BytesMut::with_capacity(16 * 1024);
    loop {
        let preamble = loop {
            if let Some(found) = preamble::find_any(&mut input) {
                break found;
            }
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        };
        stream.write_all(preamble.as_bytes()).await?;
        match serve_connection(agent, stream, preamble, input).await {
            Some(unread) => input = unread,
            None => return Ok(()),
        }
    }
}

/// Serves the calls of one connection. Returns the unread input where that is to be scanned anew.
async fn serve_connection<S>(
    agent: &Arc<Agent>,
    stream: &mut S,
    opened_by: Preamble,
    input: BytesMut,
) -> Option<BytesMut>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = Arc::default();
    let codec = ServerCodec {
        codec: MessageCodec::new(opened_by),
        unread: Arc::clone(&broken),
    };
    let mut transport = Framed::with_capacity(stream, codec, 16 * 1024);
    *transport.read_buffer_mut() = input;
    let service = Service::new(Arc::clone(agent));
    {
        // Calls end with their connection: dropping the set drops what is left of them.
        let mut calls = FuturesUnordered::new();
        let requests = BaseChannel::with_defaults(transport).execute(service.serve());
        pin_mut!(requests);
        loop {
            tokio::select! {
                biased;
                Some(()) = calls.next(), if !calls.is_empty() => {}
                call = requests.next() => match call {
                    Some(call) => calls.push(call),
                    None => break,
                },
            }
        }
    }
    broken
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take()
}

/// The codec, but that what it can't read is kept for the next connection: tarpc drops its
/// transport on an error.
struct ServerCodec {
    codec: MessageCodec<Request, Response>,
    unread: Arc<std::sync::Mutex<Option<BytesMut>>>,
}

impl Decoder for ServerCodec {
    type Item = Request;
    type Error = CodecError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Request>, CodecError> {
        let result = self.codec.decode(input);
        if result.is_err() {
            *self
                .unread
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(input.split());
        }
        result
    }

    fn decode_eof(&mut self, input: &mut BytesMut) -> Result<Option<Request>, CodecError> {
        // tarpc waits for calls under way when its input ends quietly; a long poll would hold the
        // next host up.
        match self.codec.decode_eof(input)? {
            Some(request) => Ok(Some(request)),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

impl tokio_util::codec::Encoder<Response> for ServerCodec {
    type Error = CodecError;

    fn encode(&mut self, message: Response, output: &mut BytesMut) -> Result<(), CodecError> {
        self.codec.encode(message, output)
    }
}
