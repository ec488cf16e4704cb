//! What is done for a call is logged under the ID of the request that it belongs to: the client
//! chooses it, and it travels as the call's trace ID.

use std::future::Future;

use tarpc::{RequestName, ServerError, context::Context, server::Serve};
use tracing::Instrument;
use uuid::Uuid;

/// Answers the calls of one connection. What [`Serve`] is, with futures that may move between
/// threads.
pub trait Answer: Clone + Send + Sync + 'static {
    /// A call.
    type Req: RequestName + Send;
    /// Its answer.
    type Resp: Send;

    /// Answers one call.
    fn answer(
        self,
        context: Context,
        request: Self::Req,
    ) -> impl Future<Output = Result<Self::Resp, ServerError>> + Send;
}

/// Answers each call within a span of its request's own.
#[derive(Clone)]
pub(super) struct Traced<S>(pub(super) S);

impl<S: Answer> Serve for Traced<S> {
    type Req = S::Req;
    type Resp = S::Resp;

    async fn serve(self, context: Context, request: S::Req) -> Result<S::Resp, ServerError> {
        let id = Uuid::from_u128((*context.trace_id()).into());
        let span = tracing::info_span!(
            "request",
            request_id = %format_args!("req-{id}"),
            call = request.name(),
        );
        self.0.answer(context, request).instrument(span).await
    }
}
