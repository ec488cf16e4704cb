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
    /// Someone wants it gone, or its deadline has passed.
    BeginDestroy,
    /// The host holds nothing of it any more.
    DestroySucceeded,
    /// Its host reports that its machine has ended, or that there is none.
    MachineEnded,
    /// Its host reports that its machine runs.
    MachineFound,
    /// Its host has been silent for too long.
    HostSilent,
    /// The operation's lease is moved.
    ExtendLease,
    /// It is used; its deadline is pushed.
    Use,
}

impl Event {
    /// All events, for tables and tests.
    pub const ALL: [Self; 10] = [
        Self::CreateSucceeded,
        Self::CreateFailed,
        Self::CreateUndone,
        Self::BeginDestroy,
        Self::DestroySucceeded,
        Self::MachineEnded,
        Self::MachineFound,
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

/// Why an operation in flight keeps others off.
const fn busy(operation: OperationKind) -> &'static str {
    match operation {
        OperationKind::Create => BEING_CREATED,
        OperationKind::Destroy => BEING_DESTROYED,
    }
}

/// Whether an event is legal for a sandbox in this state with this operation in flight, and what
/// follows from it.
#[must_use]
pub const fn rule(state: SandboxState, operation: Option<OperationKind>, event: Event) -> Rule {
    use OperationKind::{Create, Destroy};
    use Rule::{Already, Become, Deny, Remove};
    use SandboxState::{Error, Missing, Paused, Pending, Running, Stopped};

    match event {
        // Legal everywhere: a sandbox that can't be deleted would be a bug with a bill.
        Event::BeginDestroy => match operation {
            Some(Destroy) => Already(BEING_DESTROYED),
            None | Some(Create) => Become(state, Then::Begin(Destroy)),
        },
        Event::DestroySucceeded => match operation {
            Some(Destroy) => Remove,
            None | Some(Create) => Deny("nobody ordered it to be destroyed"),
        },
        Event::CreateSucceeded | Event::CreateFailed | Event::CreateUndone => {
            match (operation, state) {
                (Some(Create), Pending) => match event {
                    Event::CreateSucceeded => Become(Running, Then::End),
                    Event::CreateFailed => Become(Error, Then::End),
                    _ => Remove,
                },
                (Some(Destroy), _) => Deny(BEING_DESTROYED),
                (None | Some(Create), _) => Deny("it is not being created"),
            }
        }
        // An operation's owner sees for itself what becomes of the machine.
        Event::MachineEnded => match (operation, state) {
            (Some(operation), _) => Deny(busy(operation)),
            (None, Running | Missing | Pending) => Become(Stopped, Then::Keep),
            (None, Stopped | Error) => Already("it does not run"),
            (None, Paused) => Deny("nothing of it runs while it is paused"),
        },
        Event::MachineFound => match (operation, state) {
            (Some(operation), _) => Deny(busy(operation)),
            (None, Running) => Already("it runs"),
            (None, Pending | Paused | Stopped | Missing) => Become(Running, Then::Keep),
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
            (None, Pending) => Deny(BEING_CREATED),
            (None, Paused) => Deny("it is paused"),
            (None, Stopped) => Deny("it has stopped"),
            (None, Error) => Deny("it could not be created"),
            (None, Missing) => Deny("its host does not answer"),
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
