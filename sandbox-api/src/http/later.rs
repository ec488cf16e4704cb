//! Whether a client wants to wait for what takes long.

use axum::http::HeaderMap;

use crate::{
    error::ApiError,
    http::{extract::header_text, flag::Flag},
};

/// Whether the client asked for an answer at once.
pub(crate) fn prefers_async(headers: &HeaderMap) -> Result<bool, ApiError> {
    let prefer = header_text(headers, "prefer")?;
    Ok(prefer.is_some_and(|prefer| prefer.split(',').any(|one| one.trim() == "respond-async")))
}

/// Whether to answer once it is done. The parameter `wait` goes before the header.
pub(crate) fn waits(
    headers: &HeaderMap,
    wait: Option<Flag>,
    default: bool,
) -> Result<bool, ApiError> {
    let prefers_async = prefers_async(headers)?;
    Ok(wait.map_or(default && !prefers_async, Flag::is_set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_goes_before_the_header_and_that_before_the_default() {
        let plain = HeaderMap::new();
        let mut later = HeaderMap::new();
        later.insert("prefer", "handling=lenient, respond-async".parse().unwrap());
        for (headers, wait, default, waited) in [
            (&plain, None, true, true),
            (&plain, None, false, false),
            (&later, None, true, false),
            (&later, Some(Flag::True), false, true),
            (&plain, Some(Flag::Zero), true, false),
        ] {
            assert_eq!(waits(headers, wait, default), Ok(waited));
        }
    }
}
