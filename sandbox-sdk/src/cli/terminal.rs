//! The terminal that the user sits at.

use std::io;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use sandbox_core::process::PtySize;

use super::failure::Failure;

/// Of a terminal that nobody sits at.
const DEFAULT_SIZE: PtySize = PtySize { rows: 24, cols: 80 };

pub(super) fn stdin_is_one() -> bool {
    isatty(io::stdin())
}

/// The size of the terminal that output goes to, or else that input comes from.
pub(super) fn size() -> PtySize {
    let found = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin()));
    match found {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => PtySize {
            rows: size.ws_row,
            cols: size.ws_col,
        },
        _ => DEFAULT_SIZE,
    }
}

/// Keys go through as they are pressed, until this is dropped.
pub(super) struct RawMode {
    before: Termios,
}

impl RawMode {
    pub(super) fn enter() -> Result<Self, Failure> {
        let failed = |error: rustix::io::Errno| {
            Failure::local("can't set the terminal up")(io::Error::from(error))
        };
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}
