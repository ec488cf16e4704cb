//! Who is at the other end of a connection.
//!
//! ```text
//!  stranger ──hello, key fits──► known
//!     └─────── anything else ──► refused, for as long as the connection lasts
//! ```

use std::sync::{Mutex, PoisonError};

use crate::rpc::codec::FrameLimit;

/// What clients must show.
pub(super) struct Key(String);

impl Key {
    pub(super) const fn new(key: String) -> Self {
        Self(key)
    }

    /// Compares in a time that tells at most how long the key is.
    pub(super) fn fits(&self, shown: &str) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), shown.as_bytes());
        let difference = ours
            .iter()
            .zip(theirs)
            .fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
        ours.len() == theirs.len() && difference == 0
    }
}

/// How far someone has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Has said nothing yet.
    Stranger,
    /// May ask for everything.
    Known,
    /// Had its chance.
    Refused,
}

/// Who is at the other end of a connection.
pub(super) struct Session {
    standing: Mutex<Standing>,
    limit: FrameLimit,
    /// The system itself let only the owner in.
    private: bool,
}

impl Session {
    pub(super) const fn new(limit: FrameLimit, private: bool) -> Self {
        Self {
            standing: Mutex::new(Standing::Stranger),
            limit,
            private,
        }
    }

    pub(super) fn standing(&self) -> Standing {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) const fn is_private(&self) -> bool {
        self.private
    }

    pub(super) fn is_known(&self) -> bool {
        self.standing() == Standing::Known
    }

    pub(super) fn refuse(&self) {
        self.settle(Standing::Refused);
    }

    pub(super) fn welcome(&self) {
        self.settle(Standing::Known);
        self.limit.lift();
    }

    fn settle(&self, standing: Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_fits_only_itself() {
        let key = Key::new("secret".to_owned());
        assert!(key.fits("secret"));
        for wrong in ["", "secre", "secret ", "Secret", "secrets"] {
            assert!(!key.fits(wrong), "{wrong:?}");
        }
    }
}
