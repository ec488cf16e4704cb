//! Reports on their way to those who asked, piece by piece.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use sandbox_core::host::{HostError, HostReport};
use uuid::Uuid;

use crate::rpc::protocol::{REPORT_PIECE_BYTES, ReportPiece};

/// How many reports of more than one piece are kept, the newest.
const KEPT: usize = 4;

/// The reports that were not fetched whole yet.
#[derive(Debug, Default)]
pub(super) struct Reports {
    kept: Mutex<VecDeque<(Uuid, Bytes)>>,
}

impl Reports {
    /// The first piece; the others are kept to be asked for.
    pub(super) fn begin(&self, report: &HostReport) -> Result<ReportPiece, HostError> {
        let whole = rmp_serde::to_vec_named(report)
            .map_err(|error| HostError::Internal(format!("encoding the report: {error}")))?;
        let (id, whole) = (Uuid::now_v7(), Bytes::from(whole));
        if whole.len() > REPORT_PIECE_BYTES {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.truncate(KEPT - 1);
            kept.push_front((id, whole.clone()));
        }
        Ok(piece(id, &whole, 0))
    }

    /// The piece at an offset.
    pub(super) fn more(&self, report: Uuid, offset: u64) -> Result<ReportPiece, HostError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(id, _)| *id == report);
        let Some((id, whole)) = found else {
            return Err(HostError::Unavailable(
                "the report was overtaken by newer ones; ask for a new one".to_owned(),
            ));
        };
        Ok(piece(
            *id,
            whole,
            usize::try_from(offset).unwrap_or(usize::MAX),
        ))
    }
}

fn piece(report: Uuid, whole: &Bytes, offset: usize) -> ReportPiece {
    let from = offset.min(whole.len());
    let to = whole.len().min(from.saturating_add(REPORT_PIECE_BYTES));
    ReportPiece {
        report,
        total_bytes: whole.len() as u64,
        data: whole.slice(from..to),
    }
}
