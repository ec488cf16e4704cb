//! Who may ask: requests carry an API key, as `X-API-Key` or as a bearer token.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    error::{ApiError, Code},
    state::AppState,
};

/// The header that carries a key.
pub(crate) const API_KEY_HEADER: &str = "x-api-key";

/// What is kept of a key: enough to know it again, and useless to a thief.
#[derive(Clone)]
pub struct KeyHash([u8; 32]);

impl std::fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

impl KeyHash {
    /// The hash of a key.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Whether a key is the one, in the same time for every answer.
    #[must_use]
    pub fn is_of(&self, key: &str) -> bool {
        self.0.ct_eq(&Self::of(key).0).into()
    }
}

/// Lets requests through that carry the key.
pub(crate) async fn require_key(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let given = key_of(request.headers());
    match given {
        Some(key) if state.key.is_of(key) => next.run(request).await,
        Some(_) => refused("the API key is not valid"),
        None => refused(
            "this needs an API key, as `X-API-Key: KEY` or `Authorization: Bearer KEY`; \
             the administrator's is in the file admin.key of the daemon's data folder",
        ),
    }
}

fn refused(message: &str) -> Response {
    ApiError::new(Code::Unauthorized, message).into_response()
}

fn key_of(headers: &HeaderMap) -> Option<&str> {
    if let Some(key) = headers.get(API_KEY_HEADER) {
        return key.to_str().ok();
    }
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        [(name.parse().unwrap(), value.parse().unwrap())]
            .into_iter()
            .collect()
    }

    #[test]
    fn a_key_comes_in_either_header() {
        assert_eq!(key_of(&headers("x-api-key", "k")), Some("k"));
        assert_eq!(key_of(&headers("authorization", "Bearer k")), Some("k"));
        assert_eq!(key_of(&headers("authorization", "bearer  k")), Some("k"));
        assert_eq!(key_of(&headers("authorization", "Basic k")), None);
        assert_eq!(key_of(&headers("authorization", "k")), None);
        assert_eq!(key_of(&HeaderMap::new()), None);
    }

    #[test]
    fn a_hash_knows_its_key_and_does_not_show_it() {
        let hash = KeyHash::of("sbk_1");
        assert!(hash.is_of("sbk_1"));
        assert!(!hash.is_of("sbk_2"));
        assert!(!hash.is_of(""));
        assert_eq!(format!("{hash:?}"), "KeyHash(..)");
    }
}
