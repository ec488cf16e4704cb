//! Who is at the other end of a connection.
//!
//! ```text
//!  stranger ──hello, key fits──► known
//!     └─────── anything else ──► refused, for as long as the connection lasts
//! ```

use std::sync::{Mutex, PoisonError};

use sandbox_core::wire::{ClientHello, FrameLimit, Refusal, ServerHello, understands};

/// How far someone has come.
#[derive(Debug)]
enum Standing<D> {
    /// Has said nothing yet.
    Stranger,
    /// May ask for what is behind this door.
    Known(D),
    /// Had its chance.
    Refused,
}

/// Who is at the other end of a connection. `D` is what a key opens.
#[derive(Debug)]
pub struct Session<D> {
    standing: Mutex<Standing<D>>,
    limit: FrameLimit,
    /// The system itself let only the owner in.
    private: bool,
}

impl<D: Clone> Session<D> {
    pub(super) const fn new(limit: FrameLimit, private: bool) -> Self {
        Self {
            standing: Mutex::new(Standing::Stranger),
            limit,
            private,
        }
    }

    /// What is open to whoever it is; nothing before a good `hello`.
    pub fn door(&self) -> Option<D> {
        self.with_standing(|standing| match standing {
            Standing::Known(door) => Some(door.clone()),
            Standing::Stranger | Standing::Refused => None,
        })
    }

    /// Answers a client's first words in the name of the server that `ours` introduces. `open` gets
    /// the key that was shown, and whether the system itself let nobody but the owner in.
    ///
    /// # Errors
    /// A refusal, which holds for the rest of the connection: a key can't be guessed on one.
    pub fn greet(
        &self,
        ours: ServerHello,
        hello: &ClientHello,
        open: impl FnOnce(&str, bool) -> Option<D>,
    ) -> Result<ServerHello, Refusal> {
        self.with_standing(|standing| {
            if matches!(standing, Standing::Refused) {
                return Err(Refusal::Unauthorized);
            }
            *standing = Standing::Refused;
            if !understands(ours.protocol_version, hello.protocol_version) {
                return Err(Refusal::protocol(ours.protocol_version));
            }
            let shown = hello.key.as_deref().unwrap_or_default();
            let door = open(shown, self.private).ok_or(Refusal::Unauthorized)?;
            *standing = Standing::Known(door);
            self.limit.lift();
            Ok(ours)
        })
    }

    fn with_standing<T>(&self, look: impl FnOnce(&mut Standing<D>) -> T) -> T {
        look(&mut self.standing.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
