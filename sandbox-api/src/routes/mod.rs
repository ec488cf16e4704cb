//! The routes, one file per thing that they are about. A handler reads the request, makes one call
//! of [`Api`](sandbox_core::api::Api) or loops over one, and writes the answer; it decides nothing.

#![expect(
    unused_qualifications,
    reason = "the macro that describes routes writes them"
)]

pub(crate) mod admin_builds;
pub(crate) mod admin_plan;
pub(crate) mod admin_templates;
pub(crate) mod build_contexts;
pub(crate) mod build_logs;
pub(crate) mod caller;
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
pub(crate) mod snapshots;
pub(crate) mod unbuilt;
pub(crate) mod upload;

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use sandbox_core::{api::Api, id::SandboxId};
use serde::Deserialize;
use utoipa::IntoParams;

use self::caller::Platform;
use crate::{error::ApiError, http::extract::InPath, state::AppState};

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

/// The sandbox that the path names, and what it is asked through.
pub(crate) struct InSandbox {
    pub(crate) api: Arc<dyn Api>,
    pub(crate) id: SandboxId,
}

impl FromRequestParts<AppState> for InSandbox {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let InPath(path) = InPath::<SandboxPath>::from_request_parts(parts, state).await?;
        let platform = Platform::from_request_parts(parts, state).await?;
        Ok(Self {
            api: platform.api,
            id: path.id,
        })
    }
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
