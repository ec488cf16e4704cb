//! Calls of one connection, each with what it belongs to.

use tarpc::{
    client::{Channel, RpcError, stub::Stub},
    context::Context,
};

use super::causes;
use crate::rpc::{
    cause::Caused,
    protocol::{HostRpcClient, HostRpcRequest, HostRpcResponse},
};

/// What makes calls.
pub(in crate::rpc) type Client = HostRpcClient<Calls>;

/// Where they go.
#[derive(Clone)]
pub(in crate::rpc) struct Calls(Channel<Caused<HostRpcRequest>, HostRpcResponse>);

impl Calls {
    pub(in crate::rpc) const fn on(
        channel: Channel<Caused<HostRpcRequest>, HostRpcResponse>,
    ) -> Self {
        Self(channel)
    }
}

impl Stub for Calls {
    type Req = HostRpcRequest;
    type Resp = HostRpcResponse;

    async fn call(
        &self,
        context: Context,
        call: HostRpcRequest,
    ) -> Result<HostRpcResponse, RpcError> {
        // Here the spans of whoever asks are still around.
        let cause = causes::current();
        self.0.call(context, Caused { cause, call }).await
    }
}
