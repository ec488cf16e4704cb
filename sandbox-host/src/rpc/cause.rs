//! What a call belongs to, as the log of whoever calls names it. It travels with the call, so that
//! both logs name the same request and operation.

use serde::{Deserialize, Serialize};
use tarpc::RequestName;

#[cfg(feature = "rpc-listener")]
const ID_BYTES_MAX: usize = 128;

/// The request and the operation that a call belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cause {
    /// The ID of the request, as its client chose it or was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The operation's ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
}

impl Cause {
    /// The IDs, request and operation, where they are such that a log line can hold them without
    /// harm: they come from elsewhere.
    #[cfg(feature = "rpc-listener")]
    pub(super) fn for_the_log(&self) -> (Option<&str>, Option<&str>) {
        let sane = |id: &&str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
            (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain)
        };
        (
            self.request_id.as_deref().filter(sane),
            self.operation_id.as_deref().filter(sane),
        )
    }
}

/// A call, and what it belongs to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Caused<Q> {
    #[serde(default)]
    pub(super) cause: Cause,
    pub(super) call: Q,
}

impl<Q: RequestName> RequestName for Caused<Q> {
    fn name(&self) -> &str {
        self.call.name()
    }
}

#[cfg(all(test, feature = "rpc-listener"))]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_would_forge_the_log_is_left_out() {
        let long = "x".repeat(ID_BYTES_MAX + 1);
        for (id, sane) in [
            ("req-0190163d", true),
            ("a/b:c+d=e@f_g.h", true),
            ("", false),
            ("two words", false),
            ("line\nbreak", false),
            ("\u{1b}[31m", false),
            (&long, false),
        ] {
            let cause = Cause {
                request_id: Some(id.to_owned()),
                operation_id: None,
            };
            assert_eq!(cause.for_the_log(), (sane.then_some(id), None), "{id:?}");
        }
    }
}
