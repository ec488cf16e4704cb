//! A sandbox's life: which changes are legal, and how a legal change is written.
//!
//! ```text
//!  birth                                  MachineEnded
//!    │              CreateSucceeded    ┌────────────────► stopped ─┐
//!    ▼             ┌──────────────► running ◄──────────────────────┤ MachineFound
//!  pending ────────┤                   │  ▲                        │
//!   +create        │ CreateFailed      │  └───────── missing ◄─────┘ HostSilent
//!    │             └──────────────► error │            ▲  (from running, paused, stopped)
//!    │ CreateUndone                       └────────────┘
//!    ▼                                      HostSilent
//!  (removed)
//!
//!  every state, with or without an operation:
//!     ── BeginDestroy ──► same state +destroy, generation + 1 ── DestroySucceeded ──► (removed)
//!
//!  running         ── BeginPause ─────┐
//!  paused          ── BeginResume ────┤
//!  running, paused ── BeginSnapshot ──┴──► paused +operation
//!     ── Ended… ──► running, paused or stopped: what the host says, whatever was asked
//!
//!  without an operation, by the host's report: every state but error becomes running
//!  (MachineFound), paused (PausedFound) or stopped (MachineEnded)
//! ```
//!
//! A pause, resume or snapshot is marked `paused` before its order leaves, with the operation beside
//! it; so a crash in its middle can be told from a finished pause. An operation in flight
//! shields the record: only its owner ends it, and only a destroy cuts it short. A destroy that has
//! begun is never given up; it is done again until the host has done it.
//!
//! [`rule`] is the whole table and the only place that knows it. [`transition`] is the only way in
//! which a record changes: it asks the table, and builds the write with its version, reason, time,
//! operations and audit entry. Neither has a clock, randomness or I/O.

mod birth;
pub mod build;
mod change;
mod table;
mod template;
#[cfg(test)]
mod tests;
mod transition;

pub use birth::{NewSandbox, birth};
pub use change::{Change, Standing};
pub use table::{Denied, Event, Rule, Then, rule};
pub use template::{
    NewTemplate, abandon_template, begin_template, extend_template_lease, forget_template,
    give_up_template, hide_template, measure_template, minimal_template, name_layer,
    publish_template, template_birth, touch_layer,
};
pub use transition::{Removal, Stamp, Transition, transition};
