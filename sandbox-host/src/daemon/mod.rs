//! What our daemons have in common: how they are told to stop, how they log, the secrets that their
//! first start writes, and what they make ready.

mod key_file;
mod log;
mod stop;
#[cfg(feature = "host")]
mod warm_up;

pub use key_file::{KeyFile, KeyFileError};
pub use log::{BadFilter, LogFormat, start_log};
pub use stop::Stop;
#[cfg(feature = "host")]
pub use warm_up::warm_up;
