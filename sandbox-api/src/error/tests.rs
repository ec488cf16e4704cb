use std::{collections::BTreeMap, fmt::Debug};

use sandbox_core::{
    build::BuildStatus,
    id::{BuildId, OperationId, SandboxId},
    sandbox::SandboxState,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::*;

/// What must never reach a client.
const SECRET: &str = "/var/lib/sandbox/host SELECT 10.0.0.1";

/// The names of all variants of an enum, as its deserializer knows them: from its words about one
/// that it does not know.
fn variants<T: DeserializeOwned + Debug>() -> Vec<String> {
    let unknown = json!({"no such variant": null});
    let words = serde_json::from_value::<T>(unknown)
        .unwrap_err()
        .to_string();
    let (_, expected) = words.split_once("expected one of ").unwrap();
    expected
        .split(", ")
        .map(|name| name.trim_matches('`').to_owned())
        .collect()
}

fn variant(value: &impl Serialize) -> String {
    match serde_json::to_value(value).unwrap() {
        Value::String(name) => name,
        Value::Object(one) => one.keys().next().unwrap().clone(),
        other => panic!("{other}"),
    }
}

/// Each error's variant, with what it is answered with; a star where its own words stay here.
fn table<T: Serialize>(errors: &[T], into: impl Fn(&T) -> Error) -> BTreeMap<String, String> {
    let rows = errors.iter().map(|error| {
        let told = into(error);
        let code = code(&told);
        let star = match told.told() {
            Told::Plainly(_) => "",
            Told::Vaguely(_) => " *",
        };
        let answer = format!("{} {}{star}", code.status().as_u16(), variant(&code));
        (variant(error), answer)
    });
    rows.collect()
}

fn sandbox() -> SandboxId {
    SandboxId::from_uuid(Uuid::nil())
}

fn words() -> String {
    SECRET.to_owned()
}

#[test]
fn r43_codes_have_the_statuses_that_clients_rely_on() {
    let table: Vec<String> = Code::ALL
        .iter()
        .map(|code| format!("{} {}", variant(code), code.status().as_u16()))
        .collect();
    assert_eq!(
        table,
        [
            "invalid_request 400",
            "unauthorized 401",
            "forbidden 403",
            "not_found 404",
            "already_exists 409",
            "invalid_state 409",
            "conflict 409",
            "too_large 413",
            "quota_exceeded 403",
            "rate_limited 429",
            "internal 500",
            "host_error 502",
            "host_unavailable 503",
            "unavailable 503",
            "unsupported 501",
        ]
    );
}

#[test]
fn r43_every_error_of_the_engine_has_its_code() {
    let errors = [
        Error::InvalidRequest(words()),
        Error::SandboxNotFound(sandbox()),
        Error::OperationNotFound(OperationId::from_uuid(Uuid::nil())),
        Error::TemplateNotFound(words()),
        Error::TemplateExists(words()),
        Error::BuildNotFound(BuildId::from_uuid(Uuid::nil())),
        Error::BuildEnded {
            id: BuildId::from_uuid(Uuid::nil()),
            status: BuildStatus::Failed,
        },
        Error::Forbidden(words()),
        Error::InvalidState {
            id: sandbox(),
            state: SandboxState::Stopped,
            reason: words(),
        },
        Error::Conflict(sandbox()),
        Error::IdempotencyMismatch,
        Error::Unauthorized(words()),
        Error::Unsupported(words()),
        Error::Guest(GuestError::NoSuchWrite),
        Error::GuestUnavailable(words()),
        Error::Capacity(words()),
        Error::NotSetUp(words()),
        Error::Host(words()),
        Error::Unavailable(words()),
        Error::Internal(words()),
    ];
    let table = table(&errors, Error::clone);
    let mut known = variants::<Error>();
    known.sort();
    assert_eq!(table.keys().cloned().collect::<Vec<_>>(), known);
    let rows: Vec<String> = table.iter().map(|(a, b)| format!("{a}: {b}")).collect();
    assert_eq!(
        rows,
        [
            "build_ended: 409 invalid_state",
            "build_not_found: 404 not_found",
            "capacity: 503 host_unavailable *",
            "conflict: 409 conflict",
            "forbidden: 403 forbidden",
            "guest: 409 conflict",
            "guest_unavailable: 503 unavailable",
            "host: 502 host_error *",
            "idempotency_mismatch: 409 conflict",
            "internal: 500 internal *",
            "invalid_request: 400 invalid_request",
            "invalid_state: 409 invalid_state",
            "not_set_up: 503 host_unavailable *",
            "operation_not_found: 404 not_found",
            "sandbox_not_found: 404 not_found",
            "template_exists: 409 already_exists",
            "template_not_found: 404 not_found",
            "unauthorized: 401 unauthorized",
            "unavailable: 503 unavailable *",
            "unsupported: 501 unsupported",
        ]
    );
}

#[test]
fn r43_every_error_of_the_guest_has_its_code() {
    let (path, problem) = (words(), words());
    let errors = [
        GuestError::NotFound { path: path.clone() },
        GuestError::AlreadyExists { path: path.clone() },
        GuestError::WrongKind {
            path: path.clone(),
            problem: problem.clone(),
        },
        GuestError::BadPath {
            path: path.clone(),
            problem: problem.clone(),
        },
        GuestError::Changed { path: path.clone() },
        GuestError::DiskFull { path: path.clone() },
        GuestError::Io {
            path,
            problem: problem.clone(),
        },
        GuestError::NoSuchWrite,
        GuestError::Spawn {
            command: words(),
            problem: problem.clone(),
        },
        GuestError::NoSuchUser { user: words() },
        GuestError::NoSuchProcess { pid: 1 },
        GuestError::NotAttached { pid: 1, problem },
        GuestError::Limit {
            what: words(),
            limit: 1,
        },
        GuestError::Invalid(words()),
    ];
    let table = table(&errors, |error| Error::Guest(error.clone()));
    let mut known = variants::<GuestError>();
    known.sort();
    assert_eq!(table.keys().cloned().collect::<Vec<_>>(), known);
    let rows: Vec<String> = table.iter().map(|(a, b)| format!("{a}: {b}")).collect();
    assert_eq!(
        rows,
        [
            "already_exists: 409 already_exists",
            "bad_path: 400 invalid_request",
            "changed: 409 conflict",
            "disk_full: 413 too_large",
            "invalid: 400 invalid_request",
            "io: 409 invalid_state",
            "limit: 403 quota_exceeded",
            "no_such_process: 404 not_found",
            "no_such_user: 409 invalid_state",
            "no_such_write: 409 conflict",
            "not_attached: 409 invalid_state",
            "not_found: 404 not_found",
            "spawn: 409 invalid_state",
            "wrong_kind: 409 invalid_state",
        ]
    );
}

#[test]
fn r33_what_the_platform_says_to_itself_is_not_told_to_clients() {
    for error in [
        Error::Internal(words()),
        Error::Host(words()),
        Error::Capacity(words()),
        Error::NotSetUp(words()),
        Error::Unavailable(words()),
    ] {
        let told = ApiError::from(error.clone()).detail.message;
        assert!(!told.contains("/var/lib"), "{told}");
        assert!(told.contains("err-"), "{told}");
        assert!(!reported(&error).message.contains("/var/lib"));
    }
    // Of a create that failed the record quotes the host.
    let failed = Error::InvalidState {
        id: sandbox(),
        state: SandboxState::Error,
        reason: words(),
    };
    let told = ApiError::from(failed).detail.message;
    assert!(!told.contains("/var/lib"), "{told}");
}

/// A log that a test can read.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn r33_the_error_id_of_an_answer_leads_to_the_words_in_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    let told = tracing::subscriber::with_default(subscriber, || {
        ApiError::from(Error::Internal(words())).detail.message
    });
    let id = &told[told.find("err-").unwrap()..told.len() - 1];
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = log.lines().find(|line| line.contains(id)).unwrap();
    assert!(line.contains(SECRET), "{line}");
}
