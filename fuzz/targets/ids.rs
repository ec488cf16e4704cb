//! R1: what parses formats back to the very same text, every identifier parses from what it
//! formats to, and one kind's text is no other kind's.

#![no_main]

use std::{fmt::Display, str::FromStr};

use libfuzzer_sys::fuzz_target;
use sandbox_core::id;
use uuid::Uuid;

fn is_kept_by_parsing<I>(text: &str) -> bool
where
    I: FromStr + Display,
    I::Err: Display,
{
    match text.parse::<I>() {
        Ok(parsed) => {
            assert_eq!(parsed.to_string(), text);
            true
        }
        Err(error) => {
            // However long the text, what is said of it fits a log line.
            assert!(error.to_string().len() < 512);
            false
        }
    }
}

/// Calls the function with each kind of identifier.
macro_rules! each_kind {
    ($call:ident) => {
        $call!(
            SandboxId,
            TemplateId,
            BuildId,
            UserId,
            TeamId,
            KeyId,
            HostId,
            HostTokenId,
            HostRefreshTokenId,
            OperationId,
            AuditId
        )
    };
}

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        macro_rules! kinds_that_parse {
            ($($kind:ident),*) => { [$(is_kept_by_parsing::<id::$kind>(text)),*] };
        }
        let kinds = each_kind!(kinds_that_parse);
        assert!(kinds.iter().filter(|parses| **parses).count() <= 1);
    }
    if let Some(bits) = data.first_chunk::<16>() {
        let uuid = Uuid::from_bytes(*bits);
        macro_rules! survive_formatting {
            ($($kind:ident),*) => {$(
                let id = id::$kind::from_uuid(uuid);
                assert_eq!(id.to_string().parse(), Ok(id));
                assert_eq!(id.uuid(), uuid);
            )*};
        }
        each_kind!(survive_formatting);
    }
});
