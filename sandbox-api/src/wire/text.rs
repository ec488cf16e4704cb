//! Bytes in JSON: as text where they are UTF-8, else as base64.

use base64::{
    Engine, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;

/// Base64 as everyone writes it, and as some do who leave odd bits at the end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) enum Encoding {
    /// As text.
    #[serde(rename = "utf-8")]
    Utf8,
    /// As base64, with padding.
    #[serde(rename = "base64")]
    Base64,
}

/// The one encoding in which all of these can be written.
pub(crate) fn encoding_of(all: &[&[u8]]) -> Encoding {
    if all.iter().all(|bytes| std::str::from_utf8(bytes).is_ok()) {
        Encoding::Utf8
    } else {
        Encoding::Base64
    }
}

/// Bytes, written so.
pub(crate) fn encoded(bytes: &[u8], encoding: Encoding) -> String {
    match encoding {
        // Nothing is lost: this encoding was chosen for bytes that are UTF-8.
        Encoding::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
        Encoding::Base64 => BASE64.encode(bytes),
    }
}

/// Bytes that came as text or as base64, not as both.
pub(crate) fn given(
    field: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<bytes::Bytes>, ApiError> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(ApiError::invalid(format!(
            "`{field}` and `{field}_base64` are two ways to say the same; give one"
        ))),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(base64)) => BASE64
            .decode(base64)
            .map(|bytes| Some(bytes.into()))
            .map_err(|error| ApiError::invalid_field(&format!("{field}_base64"), error)),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r5_bytes_survive_json() {
        for bytes in [&b"plain"[..], b"", b"\xff\xfe", "\u{e4}\0".as_bytes()] {
            let encoding = encoding_of(&[bytes]);
            let text = encoded(bytes, encoding);
            let back = match encoding {
                Encoding::Utf8 => given("x", Some(text), None),
                Encoding::Base64 => given("x", None, Some(text)),
            };
            assert_eq!(back.unwrap().unwrap(), bytes);
        }
    }

    #[test]
    fn one_binary_stream_makes_both_base64() {
        assert_eq!(encoding_of(&[b"text", b"\xff"]), Encoding::Base64);
        assert_eq!(encoding_of(&[b"text", b"more"]), Encoding::Utf8);
    }
}
