//! The table: state × operation × event.

use std::fmt;

use crate::{
    error::Error,
    id::SandboxId,
    operation::OperationKind,
    sandbox::{SandboxRecord, SandboxState},
};

/// What may happen to a sandbox, without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its create operation has a machine that answers.
    CreateSucceeded,
    /// Its create operation failed and the host could not be cleaned up.
    CreateFailed,
    /// Its create operation failed and the host holds nothing of it.
    CreateUndone,
    /// Someone wants it paused.
    BeginPause,
    /// Someone wants it to go on.
    BeginResume,
    /// Someone wants a template of it.
    BeginSnapshot,
    /// Its pause, resume or snapshot has ended, and its machine runs.
    EndedRunning,
    /// Its pause, resume or snapshot has ended, and its machine is paused.
    EndedPaused,
    /// Its pause, resume or snapshot has ended, and so has its machine.
    EndedStopped,
    /// Its pause, resume or snapshot is at an end, and its host does not say how its machine stands.
    EndedMissing,
    /// Someone wants it gone, or its deadline has passed.
    BeginDestroy,
    /// The host holds nothing of it any more.
    DestroySucceeded,
    /// Its host reports that its machine has ended, or that there is none.
    MachineEnded,
    /// Its host reports that its machine runs.
    MachineFound,
    /// Its host reports that its machine is paused.
    PausedFound,
    /// Its host has been silent for too long.
    HostSilent,
    /// The operation's lease is moved.
    ExtendLease,
    /// It is used; its deadline is pushed.
    Use,
}

impl Event {
    /// All events, for tables and tests.
    pub const ALL: [Self; 18] = [
        Self::CreateSucceeded,
        Self::CreateFailed,
        Self::CreateUndone,
        Self::BeginPause,
        Self::BeginResume,
        Self::BeginSnapshot,
        Self::EndedRunning,
        Self::EndedPaused,
        Self::EndedStopped,
        Self::EndedMissing,
        Self::BeginDestroy,
        Self::DestroySucceeded,
        Self::MachineEnded,
        Self::MachineFound,
        Self::PausedFound,
        Self::HostSilent,
        Self::ExtendLease,
        Self::Use,
    ];
}

/// What becomes of the operation in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Then {
    /// It stays, or there stays none.
    Keep,
    /// It ends.
    End,
    /// This one begins; one that was in flight is cut short.
    Begin(OperationKind),
}

/// The table's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Legal: this is the next state.
    Become(SandboxState, Then),
    /// Legal: the record goes.
    Remove,
    /// Nothing to do: so it stands already.
    Already(&'static str),
    /// Not legal, for this reason.
    Deny(&'static str),
}

/// A change that the table does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} is not possible: {reason}")]
pub struct Denied {
    /// Which sandbox.
    pub id: SandboxId,
    /// How it stands.
    pub state: SandboxState,
    /// What was to happen.
    pub event: Event,
    /// Why not, for people.
    pub reason: &'static str,
}

impl Denied {
    pub(super) const fn new(record: &SandboxRecord, event: Event, reason: &'static str) -> Self {
        Self {
            id: record.id,
            state: record.state,
            event,
            reason,
        }
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        Self::InvalidState {
            id: denied.id,
            state: denied.state,
            reason: denied.reason.to_owned(),
        }
    }
}

const BEING_CREATED: &str = "it is being created";
const BEING_DESTROYED: &str = "it is being destroyed";
const BEING_PAUSED: &str = "it is being paused";
const BEING_RESUMED: &str = "it is being resumed";

/// Why an operation in flight keeps others off.
const fn busy(operation: OperationKind) -> &'static str {
    match operation {
        OperationKind::Create => BEING_CREATED,
        OperationKind::Destroy => BEING_DESTROYED,
        OperationKind::Pause => BEING_PAUSED,
        OperationKind::Resume => BEING_RESUMED,
        OperationKind::Snapshot => "a template is being made of it",
        OperationKind::Import => "it is being imported",
    }
}

/// Why nothing can be done with a sandbox that nobody works on.
const fn at_rest(state: SandboxState) -> &'static str {
    match state {
        SandboxState::Pending => BEING_CREATED,
        SandboxState::Running => "it runs",
        SandboxState::Paused => "it is paused",
        SandboxState::Stopped => "it has stopped",
        SandboxState::Error => "it could not be created",
        SandboxState::Missing => "its host does not answer",
    }
}

/// Whether an event is legal for a sandbox in this state with this operation in flight, and what
/// follows from it.
#[must_use]
pub const fn rule(state: SandboxState, operation: Option<OperationKind>, event: Event) -> Rule {
    use OperationKind::{Create, Destroy, Pause, Resume, Snapshot};
    use Rule::{Already, Become, Deny, Remove};
    use SandboxState::{Error, Missing, Paused, Pending, Running, Stopped};

    match event {
        // Legal everywhere: a sandbox that can't be deleted would be a bug with a bill.
        Event::BeginDestroy => match operation {
            Some(Destroy) => Already(BEING_DESTROYED),
            _ => Become(state, Then::Begin(Destroy)),
        },
        Event::DestroySucceeded => match operation {
            Some(Destroy) => Remove,
            _ => Deny("nobody ordered it to be destroyed"),
        },
        Event::CreateSucceeded | Event::CreateFailed | Event::CreateUndone => {
            match (operation, state) {
                (Some(Create), Pending) => match event {
                    Event::CreateSucceeded => Become(Running, Then::End),
                    Event::CreateFailed => Become(Error, Then::End),
                    _ => Remove,
                },
                (Some(Destroy), _) => Deny(BEING_DESTROYED),
                _ => Deny("it is not being created"),
            }
        }
        // The state says `paused` from before the order leaves: a report that no longer shows the
        // machine running is then no surprise. What became of it is written when it is known.
        Event::BeginPause => match (operation, state) {
            (Some(Pause), _) => Already(BEING_PAUSED),
            (Some(operation), _) => Deny(busy(operation)),
            (None, Running) => Become(Paused, Then::Begin(Pause)),
            (None, Paused) => Already("it is paused"),
            (None, _) => Deny(at_rest(state)),
        },
        Event::BeginResume => match (operation, state) {
            (Some(Resume), _) => Already(BEING_RESUMED),
            (Some(operation), _) => Deny(busy(operation)),
            (None, Paused) => Become(Paused, Then::Begin(Resume)),
            (None, Running) => Already("it runs"),
            (None, _) => Deny(at_rest(state)),
        },
        Event::BeginSnapshot => match (operation, state) {
            (Some(operation), _) => Deny(busy(operation)),
            (None, Running | Paused) => Become(Paused, Then::Begin(Snapshot)),
            (None, _) => Deny(at_rest(state)),
        },
        Event::EndedRunning | Event::EndedPaused | Event::EndedStopped | Event::EndedMissing => {
            match operation {
                Some(Pause | Resume | Snapshot) => Become(
                    match event {
                        Event::EndedRunning => Running,
                        Event::EndedPaused => Paused,
                        Event::EndedMissing => Missing,
                        _ => Stopped,
                    },
                    Then::End,
                ),
                Some(operation) => Deny(busy(operation)),
                None => Deny("nothing is being done with it"),
            }
        }
        // An operation's owner sees for itself what becomes of the machine.
        Event::MachineEnded => match (operation, state) {
            (Some(operation), _) => Deny(busy(operation)),
            (None, Running | Missing | Pending | Paused) => Become(Stopped, Then::Keep),
            (None, Stopped | Error) => Already("it does not run"),
        },
        Event::MachineFound => match (operation, state) {
            (Some(operation), _) => Deny(busy(operation)),
            (None, Running) => Already("it runs"),
            (None, Pending | Paused | Stopped | Missing) => Become(Running, Then::Keep),
            (None, Error) => Deny("it could not be created; what is left of it is removed"),
        },
        Event::PausedFound => match (operation, state) {
            (Some(operation), _) => Deny(busy(operation)),
            (None, Paused) => Already("it is paused"),
            (None, Pending | Running | Stopped | Missing) => Become(Paused, Then::Keep),
            (None, Error) => Deny("it could not be created; what is left of it is removed"),
        },
        Event::HostSilent => match (operation, state) {
            (Some(operation), _) => Deny(busy(operation)),
            (None, Running | Paused | Stopped) => Become(Missing, Then::Keep),
            (None, Missing) => Already("its host is silent"),
            (None, Pending | Error) => Deny("no host holds anything of it"),
        },
        Event::ExtendLease => match operation {
            Some(_) => Become(state, Then::Keep),
            None => Deny("no operation is in flight"),
        },
        Event::Use => match (operation, state) {
            (Some(operation), _) => Deny(busy(operation)),
            (None, Running) => Become(Running, Then::Keep),
            (None, _) => Deny(at_rest(state)),
        },
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Become(state, Then::Keep) => write!(f, "→ {}", state.as_str()),
            Self::Become(state, Then::End) => write!(f, "→ {}, operation ends", state.as_str()),
            Self::Become(state, Then::Begin(kind)) => {
                write!(f, "→ {}, {} begins", state.as_str(), kind.as_str())
            }
            Self::Remove => f.write_str("→ removed"),
            Self::Already(why) => write!(f, "already: {why}"),
            Self::Deny(why) => write!(f, "denied: {why}"),
        }
    }
}
