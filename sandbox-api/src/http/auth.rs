//! Who may ask: requests carry an API key, as `X-API-Key` or as a bearer token.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sandbox_core::api::Api;

use crate::{
    error::{ApiError, Code},
    state::AppState,
};

/// The header that carries a key.
pub(crate) const API_KEY_HEADER: &str = "x-api-key";

/// What the key of a request opens: the platform as its holder sees it.
#[derive(Clone)]
pub(crate) struct Opened(pub(crate) Arc<dyn Api>);

/// Lets requests through that carry a key that is known.
pub(crate) async fn require_key(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let given = key_of(request.headers());
    match given.map(|key| state.keys.open(key)) {
        Some(Some(api)) => {
            request.extensions_mut().insert(Opened(api));
            next.run(request).await
        }
        Some(None) => refused("the API key is not valid"),
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
}
