//! Readiness for the first create.

use std::time::Instant;

use sandbox_core::{name::TemplateName, size::MachineSize};

use crate::HostManager;

/// Boots the default template where that was never done, so that the first create is a fast one.
/// A failure is logged: creating says it again.
pub async fn warm_up(host: HostManager) {
    let started = Instant::now();
    let (template, size) = (TemplateName::default(), MachineSize::default());
    match host.prepare(&template, size).await {
        Ok(()) => {
            let took_ms = started.elapsed().as_millis();
            tracing::info!(took_ms, "the default template is ready");
        }
        Err(error) => tracing::warn!(%error, "the default template could not be made ready"),
    }
}
