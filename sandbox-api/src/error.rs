//! The one error of the REST interface, and the only place where a status is chosen.
//!
//! Every failure is answered with `{"error":{"code","message"}}`. What a client can do something
//! about is said in the message; what is the platform's own is logged under an error ID, and the
//! message has that ID and nothing else.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use sandbox_core::{
    error::{Error, Told},
    guest::GuestError,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// What went wrong, in one word for programs: `invalid_request` is what no sandbox could do,
/// `invalid_state` what this one can't as it stands. `405` is answered with `invalid_request`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ErrorCode)]
pub(crate) enum Code {
    /// The request makes no sense as given.
    InvalidRequest,
    /// There is no API key, or a wrong one.
    Unauthorized,
    /// The key does not allow this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// Something is there already.
    AlreadyExists,
    /// It can't be done as things stand.
    InvalidState,
    /// Something else changed it at the same time; ask again.
    Conflict,
    /// It is larger than there is room for.
    TooLarge,
    /// A limit on how much or how many there may be is reached.
    QuotaExceeded,
    /// Too many requests; ask again later.
    RateLimited,
    /// A fault of the platform; the message has the ID of the log entry.
    Internal,
    /// The host could not do it.
    HostError,
    /// The host has no room for it, or lacks something.
    HostUnavailable,
    /// Not for now; ask again later.
    Unavailable,
    /// Not built.
    Unsupported,
}

impl Code {
    /// All codes, for tables and tests.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 15] = [
        Self::InvalidRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::AlreadyExists,
        Self::InvalidState,
        Self::Conflict,
        Self::TooLarge,
        Self::QuotaExceeded,
        Self::RateLimited,
        Self::Internal,
        Self::HostError,
        Self::HostUnavailable,
        Self::Unavailable,
        Self::Unsupported,
    ];

    /// The status that goes with a code.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::QuotaExceeded => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists | Self::InvalidState | Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::HostError => StatusCode::BAD_GATEWAY,
            Self::HostUnavailable | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
        }
    }
}

/// The body of every failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// For programs.
    pub(crate) code: Code,
    /// For people.
    pub(crate) message: String,
}

/// A request that was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    detail: ErrorDetail,
}

impl ApiError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            status: code.status(),
            detail: ErrorDetail {
                code,
                message: message.into(),
            },
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, message)
    }

    pub(crate) fn invalid_field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::invalid(format!("`{field}`: {problem}"))
    }

    pub(crate) fn too_large(limit_bytes: usize) -> Self {
        Self::new(
            Code::TooLarge,
            format!("the body is larger than {limit_bytes} bytes"),
        )
    }

    /// The path is there, and this method isn't.
    pub(crate) fn method_not_allowed() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            ..Self::invalid("this path does not take that method; `Allow` has those that it takes")
        }
    }

    pub(crate) fn unsupported(what: &str) -> Self {
        Self::new(
            Code::Unsupported,
            format!("{what}: not supported by this version"),
        )
    }

    /// What only the log may say, joined to the answer by an error ID.
    pub(crate) fn logged(code: Code, public: &str, detail: &dyn std::fmt::Display) -> Self {
        let error_id = format!("err-{}", Uuid::now_v7());
        tracing::error!(%error_id, %detail, "a request failed");
        Self::new(code, format!("{public} ({error_id})"))
    }

    pub(crate) fn detail(&self) -> &ErrorDetail {
        &self.detail
    }
}

/// The code of an engine's error. A test knows all variants by name, so that a new one does not slip
/// through as `internal`.
pub(crate) fn code(error: &Error) -> Code {
    match error {
        Error::InvalidRequest(_) => Code::InvalidRequest,
        Error::SandboxNotFound(_)
        | Error::OperationNotFound(_)
        | Error::TemplateNotFound(_)
        | Error::BuildNotFound(_) => Code::NotFound,
        Error::TemplateExists(_) => Code::AlreadyExists,
        Error::Forbidden(_) => Code::Forbidden,
        Error::InvalidState { .. } | Error::BuildEnded { .. } => Code::InvalidState,
        Error::Conflict(_) | Error::IdempotencyMismatch => Code::Conflict,
        Error::Unauthorized(_) => Code::Unauthorized,
        Error::Unsupported(_) => Code::Unsupported,
        Error::Guest(guest) => guest_code(guest),
        Error::GuestUnavailable(_) | Error::Unavailable(_) => Code::Unavailable,
        Error::Capacity(_) | Error::NotSetUp(_) => Code::HostUnavailable,
        Error::Host(_) => Code::HostError,
        // Only `Error::Internal` comes here; the compiler can't know, since `Error` may grow.
        _ => Code::Internal,
    }
}

fn guest_code(error: &GuestError) -> Code {
    match error {
        GuestError::NotFound { .. } | GuestError::NoSuchProcess { .. } => Code::NotFound,
        GuestError::AlreadyExists { .. } => Code::AlreadyExists,
        GuestError::Changed { .. } | GuestError::NoSuchWrite => Code::Conflict,
        GuestError::DiskFull { .. } => Code::TooLarge,
        // The request is sound; this sandbox can't do it as it stands.
        GuestError::NotAttached { .. }
        | GuestError::WrongKind { .. }
        | GuestError::Io { .. }
        | GuestError::Spawn { .. }
        | GuestError::NoSuchUser { .. } => Code::InvalidState,
        GuestError::Limit { .. } => Code::QuotaExceeded,
        GuestError::BadPath { .. } | GuestError::Invalid(_) => Code::InvalidRequest,
    }
}

/// An error that is only reported, such as that of an operation.
pub(crate) fn reported(error: &Error) -> ErrorDetail {
    let message = match error.told() {
        Told::Plainly(told) => told.to_string(),
        Told::Vaguely(words) => words.to_owned(),
    };
    ErrorDetail {
        code: code(error),
        message,
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let code = code(&error);
        match error.told() {
            Told::Plainly(told) => Self::new(code, told.to_string()),
            Told::Vaguely(words) => Self::logged(code, words, &error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let challenge = self.detail.code == Code::Unauthorized;
        let body = ErrorBody { error: self.detail };
        let mut response = (self.status, Json(body)).into_response();
        if challenge {
            let scheme = HeaderValue::from_static("Bearer");
            let headers = response.headers_mut();
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

#[cfg(test)]
mod tests;
