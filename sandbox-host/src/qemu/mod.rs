//! The driver: one QEMU process per machine.
//!
//! A QEMU process is nobody's child: it lives in a session of its own, goes on when the host's
//! process ends, and is found again through its machine's folder. What decides anything about
//! sandboxes is elsewhere; here is only how to start, ask and end such a process.
//!
//! ```text
//! boot ──► agent answers ──► save ──► memory image ─┐
//!                                                   ├─► restore ──► agent answers ──► … ──► ended
//!                              (any number of times)┘
//! ```
//!
//! A machine that runs is saved otherwise, since its memory is its own: stop ──► save devices, while
//! the host reads its memory; and it is restored stopped ──► memory filled ──► devices loaded ──► go
//! on.

mod args;
mod ended;
mod process;
mod qmp;

pub(crate) use args::{
    GUEST_SOCKET, LOG_FILE, MACHINE_TYPE, MachineConfig, QMP_SOCKET, Start, StateFormat, Then,
};
pub(crate) use ended::{console_tail, reason_of_end};
pub(crate) use process::{MachineProcess, find_in_folder, kill_all_in_folder, launch};
pub(crate) use qmp::{ANSWER_LIMIT, Qmp, QmpError, QmpEvent};
