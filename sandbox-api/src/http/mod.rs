//! What every request passes through, and how its parts are read: nothing here knows a route.

pub(crate) mod auth;
pub(crate) mod drain;
pub(crate) mod extract;
pub(crate) mod flag;
pub(crate) mod later;
pub(crate) mod spanned;
pub(crate) mod unsent;
pub(crate) mod watch;
