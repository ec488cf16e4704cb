//! The REST interface over a real socket, against simulated machines.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod auth;
mod bad_input;
mod builds;
mod connections;
mod document;
mod events;
mod files;
mod logs;
mod meta;
mod output;
mod processes;
mod pty;
mod sandboxes;
mod support;
mod teams;
mod templates;
