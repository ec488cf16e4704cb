//! The shapes of JSON bodies, as they are fixed on the wire, and the way from and to the core's
//! types. Nothing here does anything.

pub(crate) mod build;
pub(crate) mod build_log;
pub(crate) mod command;
pub(crate) mod file;
pub(crate) mod input;
pub(crate) mod list;
pub(crate) mod operation;
pub(crate) mod output;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod sandbox;
pub(crate) mod schema;
pub(crate) mod template;
pub(crate) mod text;
mod whole;
