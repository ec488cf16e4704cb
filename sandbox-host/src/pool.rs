//! A few clones already restored and waiting, so that creating a sandbox costs a handshake.
//!
//! The pool keeps clones of the memory image that was asked for last. It is filled by a task of its
//! own, one clone at a time, after a create has been answered.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use sandbox_core::{id::TemplateId, size::MachineSize};

use crate::machine::Machine;

/// What a clone is a clone of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) image: TemplateId,
    pub(crate) size: MachineSize,
}

/// The waiting clones. Holds no task and does no I/O.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    kind: Option<Kind>,
    waiting: VecDeque<Arc<Machine>>,
    filling: bool,
    closed: bool,
}

impl Pool {
    /// Takes a clone of this kind, if one waits.
    pub(crate) fn take(&self, kind: &Kind) -> Option<Arc<Machine>> {
        let mut state = self.state.lock();
        if state.kind.as_ref() == Some(kind) {
            state.waiting.pop_front()
        } else {
            None
        }
    }

    /// Makes `kind` the one to keep and returns the clones of another kind, to be destroyed.
    pub(crate) fn keep(&self, kind: &Kind) -> Vec<Arc<Machine>> {
        let mut state = self.state.lock();
        if state.closed || state.kind.as_ref() == Some(kind) {
            return Vec::new();
        }
        state.kind = Some(*kind);
        state.waiting.drain(..).collect()
    }

    /// Whether the caller shall fill the pool: one does at a time.
    pub(crate) fn begin_filling(&self, target: usize) -> bool {
        let mut state = self.state.lock();
        let wanted = !state.closed && !state.filling && state.waiting.len() < target;
        state.filling |= wanted;
        wanted
    }

    /// What to make next; ends the filling when there is nothing more to make.
    pub(crate) fn next_wanted(&self, target: usize) -> Option<Kind> {
        let mut state = self.state.lock();
        if state.closed || state.waiting.len() >= target || state.kind.is_none() {
            state.filling = false;
            return None;
        }
        state.kind
    }

    /// Ends the filling after a failure; the next create begins it anew.
    pub(crate) fn give_up_filling(&self) {
        self.state.lock().filling = false;
    }

    /// Adds a clone. Gives it back when it is no longer wanted.
    pub(crate) fn add(&self, kind: &Kind, machine: Arc<Machine>) -> Result<(), Arc<Machine>> {
        let mut state = self.state.lock();
        if state.closed || state.kind.as_ref() != Some(kind) {
            return Err(machine);
        }
        state.waiting.push_back(machine);
        Ok(())
    }

    /// Gives up the clones of this image, to be destroyed, and makes no more of them.
    pub(crate) fn drop_image(&self, image: TemplateId) -> Vec<Arc<Machine>> {
        let mut state = self.state.lock();
        if state.kind.is_none_or(|kind| kind.image != image) {
            return Vec::new();
        }
        state.kind = None;
        state.waiting.drain(..).collect()
    }

    /// Forgets a clone that has ended by itself.
    pub(crate) fn forget(&self, machine: &Machine) -> bool {
        let mut state = self.state.lock();
        let before = state.waiting.len();
        state.waiting.retain(|waiting| waiting.id != machine.id);
        before != state.waiting.len()
    }

    /// Process IDs of the waiting clones.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.state
            .lock()
            .waiting
            .iter()
            .map(|machine| machine.pid())
            .collect()
    }

    /// Takes no more clones, and returns those that wait.
    pub(crate) fn close(&self) -> Vec<Arc<Machine>> {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting.drain(..).collect()
    }
}
