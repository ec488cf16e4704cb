//! The routes, one file per thing that they are about. A handler reads the request, makes one call
//! of [`Api`](sandbox_core::api::Api) or loops over one, and writes the answer; it decides nothing.

#![expect(
    unused_qualifications,
    reason = "the macro that describes routes writes them"
)]

pub(crate) mod download;
pub(crate) mod exec;
pub(crate) mod files;
pub(crate) mod follow;
pub(crate) mod meta;
pub(crate) mod operations;
pub(crate) mod output;
pub(crate) mod processes;
pub(crate) mod pty;
pub(crate) mod sandboxes;
pub(crate) mod unbuilt;
pub(crate) mod upload;

use sandbox_core::id::SandboxId;
use serde::Deserialize;
use utoipa::IntoParams;

/// Which sandbox.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct SandboxPath {
    /// The sandbox's ID.
    #[param(
        value_type = String,
        example = "sb-0190163d-8694-739b-aea5-966c26f8ad91",
        pattern = "^sb-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    )]
    pub(crate) id: SandboxId,
}

/// Which process of which sandbox.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct ProcessPath {
    /// The sandbox's ID.
    #[param(
        value_type = String,
        example = "sb-0190163d-8694-739b-aea5-966c26f8ad91",
        pattern = "^sb-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    )]
    pub(crate) id: SandboxId,
    /// The process's ID in the sandbox.
    pub(crate) pid: u32,
}
