//! What is done for a call is logged under the ID of the request that it belongs to. The call says
//! which that is; where it does not, its trace ID, which the client chooses, is the request's.

use std::future::Future;

use tarpc::{RequestName, ServerError, context::Context, server::Serve};
use tracing::Instrument;
use uuid::Uuid;

use crate::rpc::cause::Cause;

/// Answers the calls of one connection. What [`Serve`] is, with futures that may move between
/// threads.
pub trait Answer: Clone + Send + Sync + 'static {
    /// A call.
    type Req: RequestName + Send;
    /// Its answer.
    type Resp: Send;

    /// What a call belongs to, where it says so.
    fn cause(request: &Self::Req) -> Option<&Cause> {
        let _ = request;
        None
    }

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
        let cause = S::cause(&request).map(Cause::for_the_log);
        let (request_id, operation_id) = cause.unwrap_or_default();
        let span = tracing::info_span!("request", request_id, operation_id, call = request.name(),);
        if request_id.is_none() {
            let id = Uuid::from_u128((*context.trace_id()).into());
            span.record("request_id", format_args!("req-{id}"));
        }
        let answering = async {
            let answer = self.0.answer(context, request).await;
            tracing::debug!("answered");
            answer
        };
        answering.instrument(span).await
    }
}
