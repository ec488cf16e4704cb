//! What is sent to processes, on the wire: stdin and signals.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{
    ToSchema,
    openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type},
};

use crate::{error::ApiError, wire::text::given};

/// What to write to a process's stdin or terminal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StdinBody {
    /// Text to write.
    data: Option<String>,
    /// Bytes to write, as base64.
    #[schema(pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")]
    data_base64: Option<String>,
    /// Closes stdin behind it: the process reads end of file.
    close: Option<bool>,
}

impl StdinBody {
    /// What to write, and whether to close then.
    pub(crate) fn into_parts(self) -> Result<(Bytes, bool), ApiError> {
        let data = given("data", self.data, self.data_base64)?;
        Ok((data.unwrap_or_default(), self.close.unwrap_or(false)))
    }
}

/// How much was written to stdin.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StdinResult {
    /// Bytes that were taken: fewer than given where the process does not read.
    pub(crate) written_bytes: u64,
    /// Whether stdin is closed now.
    pub(crate) closed: bool,
}

/// A signal, by number or by name.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number such as 15 or a name such as \"SIGTERM\""
)]
pub(crate) enum SignalName {
    /// Its Linux number. JSON knows no difference between 15 and 15.0.
    Number(f64),
    /// Its name, with or without `SIG`.
    Name(String),
}

fn signal_schema() -> Schema {
    let number = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(64));
    let name = ObjectBuilder::new().schema_type(Type::String).pattern(Some(
        "^(SIG)?(HUP|INT|QUIT|KILL|USR1|USR2|TERM|CONT|STOP|TSTP|WINCH)$",
    ));
    let either = OneOfBuilder::new().item(number).item(name);
    either
        .description(Some("Which: its Linux number or its name."))
        .examples(["SIGTERM"])
        .into()
}

impl SignalName {
    pub(crate) fn number(&self) -> Result<i32, ApiError> {
        let name = match self {
            Self::Number(number) => return whole(*number),
            Self::Name(name) => name,
        };
        let short = name.strip_prefix("SIG").unwrap_or(name);
        Ok(match short {
            "HUP" => 1,
            "INT" => 2,
            "QUIT" => 3,
            "KILL" => 9,
            "USR1" => 10,
            "USR2" => 12,
            "TERM" => 15,
            "CONT" => 18,
            "STOP" => 19,
            "TSTP" => 20,
            "WINCH" => 28,
            _ => {
                return Err(ApiError::invalid_field(
                    "signal",
                    "this name is not known; give the number, or a name such as SIGTERM, SIGKILL, \
                     SIGINT or SIGHUP",
                ));
            }
        })
    }
}

fn whole(number: f64) -> Result<i32, ApiError> {
    const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;
    let mut signals = SIGNALS;
    signals
        .find(|signal| f64::from(*signal) == number)
        .ok_or_else(|| {
            ApiError::invalid_field("signal", format!("it is {number}; there are 1 to 64"))
        })
}

/// A signal to send.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignalBody {
    /// Which.
    #[schema(schema_with = signal_schema)]
    pub(crate) signal: SignalName,
    /// Whether its children get it too; true where absent.
    pub(crate) group: Option<bool>,
}
