//! Bodies that know whether all of what they gave out has been written to the connection.
//!
//! ```text
//!  piece made ──► held by the connection ──► written, and let go of
//!                 └──── unsent ───────┘
//! ```
//! The connection keeps each piece until the system has taken it, so that the end of a piece's life
//! is when it was sent, or when the connection broke.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    response::Response,
};
use http_body::{Frame, SizeHint};
use tokio::sync::watch;

/// How many pieces of a body are on their way. Clones count the same ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unsent(watch::Sender<usize>);

impl Unsent {
    /// Counts the pieces of this body.
    pub(crate) fn of(&self, response: Response) -> Response {
        let unsent = self.clone();
        response.map(|body| Body::new(Counted { body, unsent }))
    }

    /// Returns when everything has been sent.
    pub(crate) async fn none(&self) {
        // It can't fail: the sender is here.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }

    fn hold(&self, data: Bytes) -> Bytes {
        self.0.send_modify(|count| *count += 1);
        Bytes::from_owner(Held {
            data,
            unsent: self.clone(),
        })
    }
}

/// A piece on its way.
struct Held {
    data: Bytes,
    unsent: Unsent,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.unsent.0.send_modify(|count| *count -= 1);
    }
}

struct Counted {
    body: Body,
    unsent: Unsent,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, unsent } = self.get_mut();
        let polled = Pin::new(body).poll_frame(context);
        polled.map_ok(|frame| frame.map_data(|data| unsent.hold(data)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, stream};
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_piece_is_sent_when_the_connection_lets_go_of_it() {
        let unsent = Unsent::default();
        let pieces = ["one", "two"].map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
        let body = Body::from_stream(stream::iter(pieces));
        let mut body = unsent.of(Response::new(body)).into_body();
        assert_eq!(unsent.none().now_or_never(), Some(()));
        let mut next = async || body.frame().await.unwrap().unwrap().into_data().unwrap();
        let (one, two) = (next().await, next().await);
        assert_eq!((&one[..], &two[..]), (&b"one"[..], &b"two"[..]));
        let rest = one.slice(1..);
        drop((one, two));
        assert_eq!(unsent.none().now_or_never(), None, "a part is still held");
        let waiting = tokio::spawn(async move { unsent.none().await });
        tokio::task::yield_now().await;
        drop(rest);
        waiting.await.unwrap();
    }
}
