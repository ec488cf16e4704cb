//! Processes that were started through the platform.

mod attendance;
mod child;
mod entry;
mod output_log;
mod spawn;
mod table;
mod terminal;
mod user;

pub(crate) use table::Processes;
