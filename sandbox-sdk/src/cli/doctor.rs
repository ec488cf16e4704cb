//! What works here, and what does not.

use std::time::Instant;

use sandbox_core::sandbox::{PageRequest, SandboxFilter};

use super::{
    args::Global,
    failure::{FAILED, Failure},
    session::{self, Target},
    view,
};

pub(super) async fn doctor(global: &Global) -> Result<u8, Failure> {
    match Target::of(global) {
        Target::Remote(address) => remote(address, global).await,
        Target::Folder(folder) => {
            let report = crate::doctor(&folder.join("host"), None).await;
            if global.json {
                view::bytes(format!("{:#}\n", serde_json::json!(report)).as_bytes())?;
            } else {
                view::bytes(report.to_string().as_bytes())?;
            }
            Ok(if report.healthy() { 0 } else { FAILED })
        }
    }
}

/// Whether a control plane answers, and how fast. What its machine lacks, its own doctor says.
async fn remote(address: String, global: &Global) -> Result<u8, Failure> {
    let client = session::connect(address.clone(), global).await?;
    let asked = Instant::now();
    let page = PageRequest {
        after: None,
        limit: 1,
    };
    client.list(SandboxFilter::default(), page).await?;
    let answer_ms = asked.elapsed().as_secs_f64() * 1000.0;
    if global.json {
        let value = serde_json::json!({"address": address, "answer_ms": answer_ms});
        view::json(&value)?;
    } else {
        view::line(format_args!(
            "The control plane at {address} answers in {answer_ms:.1} ms. `sandbox doctor --data \
             DIR` on its machine says what that one can do."
        ))?;
    }
    Ok(0)
}
