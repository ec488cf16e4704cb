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
//! ```
//!
//! `paused` has a place in the table and no event that leads there yet. An operation in flight
//! shields the record: only its owner ends it, and only a destroy cuts it short. A destroy that has
//! begun is never given up; it is done again until the host has done it.
//!
//! [`rule`] is the whole table and the only place that knows it. [`transition`] is the only way in
//! which a record changes: it asks the table, and builds the write with its version, reason, time,
//! operations and audit entry. Neither has a clock, randomness or I/O.

mod birth;
mod change;
mod table;
#[cfg(test)]
mod tests;

pub use birth::{NewSandbox, birth};
pub use change::{Change, Removal, Stamp, Transition, transition};
pub use table::{Denied, Event, Rule, Then, rule};
