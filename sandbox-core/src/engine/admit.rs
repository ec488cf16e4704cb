//! The way into a sandbox: may the caller, does it run, and its deadline is pushed.
//!
//! The store's word that a sandbox runs is trusted for a moment, so that a burst of calls costs one
//! read. Nothing wrong comes of it: the host itself refuses calls into a machine that has ended, and
//! the deadline that was pushed with the word lies further ahead than the word lasts. The word says
//! whose the sandbox is, too, so that rights cost no read either.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use crate::{
    audit::Actor,
    authorize::Action,
    caller::Caller,
    engine::{Inner, admissions::Word, errors, later, rights},
    error::Error,
    guest::{CallError, Guest},
    id::SandboxId,
    lifecycle::{Change, Denied, Transition, transition},
    sandbox::{SandboxRecord, SandboxState},
    store::StoreError,
};

/// Rounds of reading and deciding anew when others write the record at the same time.
const PUSH_ATTEMPTS: u32 = 20;

/// The error of a use that the table denies. Of a sandbox that has ended, the record knows better
/// why than the table does.
fn refusal(record: &SandboxRecord, denied: Denied) -> Error {
    match Error::from(denied) {
        Error::InvalidState { id, state, .. }
            if record.operation.is_none()
                && matches!(state, SandboxState::Stopped | SandboxState::Error) =>
        {
            let reason = record.reason.clone();
            Error::InvalidState { id, state, reason }
        }
        other => other,
    }
}

impl Inner {
    /// Asks the guest for a sign of life and pushes the deadline.
    pub(super) async fn ping(
        &self,
        caller: &Caller,
        id: SandboxId,
    ) -> Result<SandboxRecord, Error> {
        // The push comes first: a slow guest does not cost a sandbox its life.
        let (record, stored) = self.push(caller, id).await?;
        stored?;
        match self.host.guest(id).ping().await {
            Ok(()) => Ok(record),
            Err(error) => Err(self.explain(caller, id, error).await),
        }
    }

    /// One call into a guest. A long one is use all the while.
    pub(super) async fn call<T, F>(
        &self,
        caller: &Caller,
        id: SandboxId,
        call: impl FnOnce(Arc<dyn Guest>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let word = self.admit(caller, id).await?;
        let mut call = pin!(call(self.host.guest(id)));
        let Some(push_every) = word.push_every else {
            return match call.await {
                Ok(done) => Ok(done),
                Err(error) => Err(self.explain(caller, id, error).await),
            };
        };
        loop {
            tokio::select! {
                biased;
                done = &mut call => return match done {
                    Ok(done) => Ok(done),
                    Err(error) => Err(self.explain(caller, id, error).await),
                },
                () = self.clock.sleep(push_every) => {
                    if let Err(error) = self.push(caller, id).await {
                        tracing::debug!(sandbox = %id, %error, "deadline not pushed");
                    }
                }
            }
        }
    }

    async fn admit(&self, caller: &Caller, id: SandboxId) -> Result<Word, Error> {
        if let Some(word) = self.admissions.get(id, self.now()) {
            rights::on_sandbox(caller, Action::Use, id, word.team_id)?;
            return Ok(word);
        }
        let (record, stored) = self.push(caller, id).await?;
        if let Err(error) = stored {
            // A store that is full or away must not lock people out of what runs.
            tracing::warn!(sandbox = %id, %error, "deadline not pushed");
        }
        Ok(self.word(&record))
    }

    fn word(&self, record: &SandboxRecord) -> Word {
        let admission = self.config.admission;
        let push_every = record
            .timeout_sec
            .filter(|_| record.expires_at.is_some())
            .map(|timeout| admission.min(Duration::from_secs(timeout) / 4));
        Word {
            until: later(self.now(), push_every.unwrap_or(admission)),
            team_id: record.team_id,
            push_every,
        }
    }

    /// Reads the record, refuses unless the caller may use it and it runs, and pushes its deadline by
    /// compare-and-set: of a push and an expiry at the same moment one wins, and the other sees it.
    /// The second result is the fate of the write.
    async fn push(
        &self,
        caller: &Caller,
        id: SandboxId,
    ) -> Result<(SandboxRecord, Result<(), Error>), Error> {
        for _ in 0..PUSH_ATTEMPTS {
            let look = self.admissions.look(id);
            let record = match self.record(id).await {
                Ok(record) => record,
                Err(error) => {
                    self.admissions.forget(id);
                    return Err(error);
                }
            };
            rights::on_sandbox(caller, Action::Use, id, record.team_id)?;
            let stamp = self.stamp(&Actor::system("engine"));
            let next = match transition(&record, &Change::Use, stamp) {
                Ok(Transition::Write(write)) => write,
                Ok(Transition::Remove(_) | Transition::Already(_)) => continue,
                Err(denied) => {
                    self.admissions.forget(id);
                    return Err(refusal(&record, denied));
                }
            };
            let unchanged = next.record.expires_at == record.expires_at;
            let written = if unchanged {
                Ok(())
            } else {
                self.store.update_sandbox((*next).clone()).await
            };
            let (current, stored) = match written {
                Ok(()) if unchanged => (record, Ok(())),
                Ok(()) => (next.record, Ok(())),
                Err(StoreError::Conflict) => continue,
                Err(error) => (record, Err(errors::from_store(error))),
            };
            look.keep(self.word(&current), self.now());
            return Ok((current, stored));
        }
        Err(Error::Conflict(id))
    }

    /// Makes an error that a client understands of a call that gave no result.
    async fn explain(&self, caller: &Caller, id: SandboxId, error: CallError) -> Error {
        match error {
            CallError::Guest(error) => Error::Guest(error),
            CallError::ConnectionLost | CallError::NoAnswer(_) => {
                Error::GuestUnavailable(error.to_string())
            }
            CallError::NotRunning(reason) => {
                self.admissions.forget(id);
                self.nudge.notify_one();
                match self.push(caller, id).await {
                    Err(error @ (Error::SandboxNotFound(_) | Error::InvalidState { .. })) => error,
                    // The host knows more than the store; the reconciler is on its way.
                    _ => {
                        self.admissions.forget(id);
                        Error::InvalidState {
                            id,
                            state: SandboxState::Stopped,
                            reason,
                        }
                    }
                }
            }
        }
    }
}
