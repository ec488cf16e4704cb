//! Build contexts on their way in, in pieces.
//!
//! ```text
//!  piece at 0 ──► room taken ──► piece behind what is there, … ──► finished: handed on
//!                     │ another place: nothing is taken, and the answer says where to go on
//!                     └── the connection is lost: gone, and the room is free
//! ```
//!
//! An upload is in memory until it is whole: how many bytes all of them hold together is bounded.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use sandbox_core::{build::CONTEXT_MAX_BYTES, error::Error};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use uuid::Uuid;

/// Uploads of one connection at a time. Where more begin, the one that stood still longest goes.
const OF_ONE_MAX: usize = 4;
/// What room is given out by, in bytes.
const UNIT_BYTES: usize = 1024 * 1024;

/// Room for all uploads of a server.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    pub(super) fn for_bytes(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / UNIT_BYTES)))
    }
}

/// The uploads of one connection.
#[derive(Debug)]
pub(super) struct Uploads {
    room: Room,
    open: Mutex<HashMap<Uuid, Upload>>,
}

#[derive(Debug)]
struct Upload {
    data: BytesMut,
    permit: Option<OwnedSemaphorePermit>,
    fed_at: Instant,
}

impl Uploads {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            open: Mutex::default(),
        }
    }

    /// Takes a piece and returns how much of the upload is here. A piece that does not belong right
    /// behind that is not taken.
    pub(super) fn piece(&self, upload: Uuid, offset: u64, piece: &Bytes) -> Result<u64, Error> {
        let mut open = self.lock();
        let is_new = !open.contains_key(&upload);
        if is_new && offset > 0 {
            return Ok(0);
        }
        if is_new && open.len() >= OF_ONE_MAX {
            let idlest = open.iter().min_by_key(|(_, it)| it.fed_at);
            let idlest = idlest.map(|(id, _)| *id);
            idlest.map(|id| open.remove(&id));
        }
        let now = Instant::now();
        let held = open.entry(upload).or_insert_with(|| Upload {
            data: BytesMut::new(),
            permit: None,
            fed_at: now,
        });
        held.fed_at = now;
        if offset != held.data.len() as u64 {
            return Ok(held.data.len() as u64);
        }
        let taken = held.take(&self.room, piece);
        if taken.is_err() {
            open.remove(&upload);
        }
        taken
    }

    /// Gives out an upload that is whole; `None` where it is not.
    pub(super) fn finish(&self, upload: Uuid, size: u64) -> Option<Whole> {
        let mut open = self.lock();
        if open.get(&upload)?.data.len() as u64 != size {
            return None;
        }
        let Upload { data, permit, .. } = open.remove(&upload)?;
        Some(Whole {
            data: data.freeze(),
            _permit: permit,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Upload>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload that is whole. It takes its room for as long as it is there.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) data: Bytes,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Upload {
    fn take(&mut self, room: &Room, piece: &Bytes) -> Result<u64, Error> {
        let bytes = self.data.len() + piece.len();
        if bytes > CONTEXT_MAX_BYTES {
            return Err(Error::InvalidRequest(format!(
                "the context is larger than {CONTEXT_MAX_BYTES} bytes"
            )));
        }
        let has = self
            .permit
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(UNIT_BYTES).saturating_sub(has);
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            let more = Arc::clone(&room.0).try_acquire_many_owned(more);
            let more = more.map_err(|_| {
                Error::Unavailable("too much is being uploaded at the same time".to_owned())
            })?;
            match &mut self.permit {
                Some(permit) => permit.merge(more),
                none => *none = Some(more),
            }
        }
        self.data.extend_from_slice(piece);
        Ok(bytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: usize) -> Bytes {
        vec![7; bytes].into()
    }

    #[tokio::test]
    async fn an_upload_goes_on_where_it_is_and_is_given_out_whole_once() {
        let uploads = Uploads::new(Room::for_bytes(4 * UNIT_BYTES));
        let id = Uuid::now_v7();
        assert_eq!(uploads.piece(id, 3, &piece(5)), Ok(0), "not begun here");
        assert_eq!(uploads.piece(id, 0, &piece(5)), Ok(5));
        assert_eq!(uploads.piece(id, 0, &piece(5)), Ok(5), "sent twice");
        assert_eq!(uploads.piece(id, 9, &piece(5)), Ok(5), "a piece is missing");
        assert_eq!(uploads.piece(id, 5, &piece(2)), Ok(7));
        assert!(uploads.finish(id, 8).is_none());
        assert_eq!(uploads.finish(id, 7).unwrap().data, piece(7));
        assert!(uploads.finish(id, 7).is_none());
    }

    #[tokio::test]
    async fn trap_36_uploads_are_bounded_together_and_each() {
        let room = Room::for_bytes(100 * UNIT_BYTES);
        let (one, two) = (Uploads::new(room.clone()), Uploads::new(room.clone()));
        let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
        let half = CONTEXT_MAX_BYTES / 2;
        one.piece(first, 0, &piece(half)).unwrap();
        one.piece(first, half as u64, &piece(half)).unwrap();
        let full = two.piece(second, 0, &piece(half + UNIT_BYTES * 5));
        assert!(matches!(full, Err(Error::Unavailable(_))), "{full:?}");
        let large = one.piece(first, CONTEXT_MAX_BYTES as u64, &piece(1));
        assert!(matches!(large, Err(Error::InvalidRequest(_))), "{large:?}");
        assert_eq!(room.0.available_permits(), 100, "both were given up");

        two.piece(second, 0, &piece(1)).unwrap();
        for _ in 0..OF_ONE_MAX {
            two.piece(Uuid::now_v7(), 0, &piece(1)).unwrap();
        }
        assert_eq!(two.lock().len(), OF_ONE_MAX);
        assert!(two.finish(second, 1).is_none(), "the oldest went");
        drop(two);
        assert_eq!(room.0.available_permits(), 100);
    }
}
