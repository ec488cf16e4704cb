//! Reading a request's parts, with every refusal in the one error format.

use axum::{
    body::Bytes,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        path::ErrorKind,
        rejection::{BytesRejection, FailedToBufferBody, PathRejection},
    },
    http::{HeaderMap, header, request::Parts},
};
use serde::de::DeserializeOwned;
use std::error::Error as _;

use crate::{error::ApiError, limits::JSON_BODY_BYTES_MAX};

/// A JSON body. None at all stands for `{}`.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let is_json = is_json(request.headers());
        let bytes = buffered(Bytes::from_request(request, state).await)?;
        if bytes.is_empty() {
            return parse(b"{}").map(Self);
        }
        if !is_json {
            return Err(ApiError::invalid(
                "the body must be JSON, with the header `Content-Type: application/json`",
            ));
        }
        parse(&bytes).map(Self)
    }
}

/// Whether the body claims to be JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// A body that was read whole.
pub(crate) fn buffered(bytes: Result<Bytes, BytesRejection>) -> Result<Bytes, ApiError> {
    bytes.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            ApiError::too_large(JSON_BODY_BYTES_MAX)
        }
        _ => ApiError::invalid("the body did not arrive whole"),
    })
}

/// Reads JSON; an error names the field.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.into_inner();
        match path.as_str() {
            "." | "?" => ApiError::invalid(problem.to_string()),
            path => ApiError::invalid_field(path, problem),
        }
    })?;
    reader
        .end()
        .map_err(|error| ApiError::invalid(error.to_string()))?;
    Ok(parsed)
}

/// The parameters after the `?`.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => {
                let problem = rejection.source().map_or_else(
                    || rejection.body_text(),
                    |source| deepest(source).to_string(),
                );
                Err(ApiError::invalid(format!("query: {problem}")))
            }
        }
    }
}

/// The error that names the parameter, under those that wrap it.
fn deepest<'e>(error: &'e (dyn std::error::Error + 'static)) -> &'e dyn std::error::Error {
    // One level holds `path: problem`; what is below has lost the path.
    match error.downcast_ref::<axum::Error>() {
        Some(wrapped) => wrapped.source().map_or(error, |source| source),
        None => error,
    }
}

/// The parts of the path.
pub(crate) struct InPath<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(path)) => Ok(Self(path)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => {
                Err(ApiError::invalid(match error.into_kind() {
                    ErrorKind::ParseErrorAtKey {
                        key,
                        value,
                        expected_type,
                    } => format!("`{key}`: `{value}` is not a valid {expected_type}"),
                    ErrorKind::DeserializeError { key, message, .. } => {
                        format!("`{key}`: {message}")
                    }
                    other => other.to_string(),
                }))
            }
            Err(other) => Err(ApiError::logged(
                crate::error::Code::Internal,
                "internal error",
                &other,
            )),
        }
    }
}

/// A header as text; `None` where it is absent.
pub(crate) fn header_text<'h>(
    headers: &'h HeaderMap,
    name: &str,
) -> Result<Option<&'h str>, ApiError> {
    let text = |value: &'h axum::http::HeaderValue| {
        value
            .to_str()
            .map_err(|_| ApiError::invalid(format!("the header `{name}` is not plain ASCII")))
    };
    headers.get(name).map(text).transpose()
}
