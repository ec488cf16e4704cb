//! Reading on what nobody wants any more.
//!
//! A request may be refused before its body has been read. Closing the connection then would reset
//! it, and a client that is still sending would lose the answer. So the rest is read and thrown
//! away for a while.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::header,
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::timeout;

/// How much is thrown away at most.
const DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// For how long.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// A client that sends nothing for so long has stopped, and is not waited for.
const DRAIN_SILENCE_MAX: Duration = Duration::from_secs(1);

/// Reads on after a refusal.
pub(crate) async fn drain_unread(request: Request, next: Next) -> Response {
    // A client that asks first has not begun to send; most others send nothing behind the head.
    let nothing_comes = request.body().is_end_stream();
    if nothing_comes || request.headers().contains_key(header::EXPECT) {
        return next.run(request).await;
    }
    let request = request.map(|body| {
        Body::new(Drained {
            body: Some(body),
            failed: false,
        })
    });
    next.run(request).await
}

struct Drained {
    body: Option<Body>,
    failed: bool,
}

impl HttpBody for Drained {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(context);
        if let Poll::Ready(Some(Err(_)) | None) = &polled {
            self.failed = true;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take() else {
            return;
        };
        if self.failed || body.is_end_stream() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let rest = async {
                let mut left = DRAIN_BYTES_MAX;
                while let Ok(Some(Ok(frame))) = timeout(DRAIN_SILENCE_MAX, body.frame()).await {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    match left.checked_sub(length) {
                        Some(rest) => left = rest,
                        None => return,
                    }
                }
            };
            // Past this the client is on its own.
            let _ = timeout(DRAIN_TIME_MAX, rest).await;
        });
    }
}
