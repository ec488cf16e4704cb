//! Bodies that know whether all of what they gave out has been written to the connection.
//!
//! ```text
//!  piece made ──► held by the connection ──► written, and let go of
//!                 └──── unsent ───────┘
//! ```
//! The connection keeps each piece until the system has taken it, so that the end of a piece's life
//! is when it was sent, or when the connection broke.

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http_body_util::BodyExt;
use tokio::sync::watch;

/// How many pieces of a body are on their way. Clones count the same ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unsent(watch::Sender<usize>);

impl Unsent {
    /// Counts the pieces of this body, which is a stream: how long it is, nobody is told.
    pub(crate) fn of(&self, response: Response) -> Response {
        let unsent = self.clone();
        response.map(|body| {
            let counted = body.map_frame(move |frame| frame.map_data(|data| unsent.hold(data)));
            Body::new(counted)
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, stream};

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
