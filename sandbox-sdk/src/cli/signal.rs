//! Signals by name and number.

/// Names and numbers on Linux, those that people send.
const SIGNALS: [(&str, i32); 16] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ABRT", 6),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("WINCH", 28),
];

pub(super) const PIPE: i32 = 13;

/// Reads `TERM`, `sigterm` or `15`.
pub(super) fn parse(text: &str) -> Result<i32, String> {
    if let Ok(number) = text.parse() {
        return if (1..=64).contains(&number) {
            Ok(number)
        } else {
            Err("signals go from 1 to 64".to_owned())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let found = SIGNALS.iter().find(|(known, _)| *known == name);
    found.map(|(_, number)| *number).ok_or_else(|| {
        let names: Vec<_> = SIGNALS.iter().map(|(name, _)| *name).collect();
        format!("write a number or one of {}", names.join(", "))
    })
}

/// `SIGTERM`, or the number where it has no common name.
pub(super) fn name(number: i32) -> String {
    let found = SIGNALS.iter().find(|(_, known)| *known == number);
    found.map_or_else(
        || format!("signal {number}"),
        |(name, _)| format!("SIG{name}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        for text in ["TERM", "term", "SIGTERM", "sigterm", "15"] {
            assert_eq!(parse(text), Ok(15), "{text}");
        }
        for text in ["", "SIG", "NOPE", "0", "65", "-9"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!((name(9), name(40)), ("SIGKILL".into(), "signal 40".into()));
    }
}
