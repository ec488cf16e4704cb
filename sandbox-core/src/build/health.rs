//! When a build's result counts as healthy: pure, over what the checks have said so far.
//!
//! ```text
//!            ok
//!  check ─────────► healthy
//!    │ fails
//!    ├── within the start period: it does not count, wait, check again
//!    └── after it: counts; more than `retries` in a row: unhealthy
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::recipe::HealthcheckText;

/// How a build's result is found healthy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Healthcheck {
    /// A shell line; exit code 0 is healthy.
    pub cmd: String,
    /// Seconds between two checks.
    #[serde(default = "interval_sec")]
    pub interval_sec: u32,
    /// Seconds that one check may take.
    #[serde(default = "timeout_sec")]
    pub timeout_sec: u32,
    /// Seconds from the start in which a failed check does not count.
    #[serde(default)]
    pub start_period_sec: u32,
    /// Failed checks in a row that are put up with, beyond the first.
    #[serde(default = "retries")]
    pub retries: u32,
}

const fn interval_sec() -> u32 {
    2
}

const fn timeout_sec() -> u32 {
    10
}

const fn retries() -> u32 {
    15
}

/// The most seconds, or retries, that a healthcheck may name: a day.
pub const HEALTHCHECK_MAX: u32 = 24 * 3600;

impl Healthcheck {
    /// A shell line, and the defaults: a check every 2 s of at most 10 s, 15 retries.
    #[must_use]
    pub fn new(cmd: impl Into<String>) -> Self {
        Self {
            cmd: cmd.into(),
            interval_sec: interval_sec(),
            timeout_sec: timeout_sec(),
            start_period_sec: 0,
            retries: retries(),
        }
    }

    /// What to do after a check.
    #[must_use]
    pub fn after(&self, checks: &mut Checks, since_start: Duration, ok: bool) -> Health {
        checks.made += 1;
        if ok {
            return Health::Healthy;
        }
        if since_start >= Duration::from_secs(self.start_period_sec.into()) {
            checks.failed += 1;
        }
        if checks.failed > self.retries {
            return Health::Unhealthy;
        }
        Health::Again {
            after: Duration::from_secs(self.interval_sec.into()),
        }
    }
}

/// A shell line, and the defaults.
impl From<&str> for Healthcheck {
    fn from(cmd: &str) -> Self {
        Self::new(cmd)
    }
}

/// A shell line, and the defaults.
impl From<String> for Healthcheck {
    fn from(cmd: String) -> Self {
        Self::new(cmd)
    }
}

/// The defaults for what a recipe leaves open.
impl From<HealthcheckText> for Healthcheck {
    fn from(text: HealthcheckText) -> Self {
        let default = Self::new(text.cmd);
        Self {
            interval_sec: text.interval_sec.unwrap_or(default.interval_sec),
            timeout_sec: text.timeout_sec.unwrap_or(default.timeout_sec),
            start_period_sec: text.start_period_sec.unwrap_or(default.start_period_sec),
            retries: text.retries.unwrap_or(default.retries),
            cmd: default.cmd,
        }
    }
}

/// What the checks have said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checks {
    /// Checks that were made.
    pub made: u32,
    /// Those that failed and counted.
    pub failed: u32,
}

/// What to do after a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It is healthy.
    Healthy,
    /// Check again after a pause.
    Again {
        /// The pause.
        after: Duration,
    },
    /// It is not, and will not be.
    Unhealthy,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(check: &Healthcheck, answers: &[(u64, bool)]) -> (Health, Checks) {
        let mut checks = Checks::default();
        let mut last = Health::Unhealthy;
        for (at_sec, ok) in answers {
            last = check.after(&mut checks, Duration::from_secs(*at_sec), *ok);
            if !matches!(last, Health::Again { .. }) {
                break;
            }
        }
        (last, checks)
    }

    #[test]
    fn r30_one_success_is_enough() {
        let check = Healthcheck::new("true");
        assert_eq!(run(&check, &[(0, false), (2, true)]).0, Health::Healthy);
    }

    #[test]
    fn r30_retries_are_counted_beyond_the_first_failure() {
        let mut check = Healthcheck::new("true");
        check.retries = 2;
        let again = Health::Again {
            after: Duration::from_secs(2),
        };
        assert_eq!(run(&check, &[(0, false), (2, false)]).0, again);
        let failures = [(0, false), (2, false), (4, false), (6, true)];
        assert_eq!(run(&check, &failures).0, Health::Unhealthy);
    }

    #[test]
    fn r30_failures_within_the_start_period_do_not_count() {
        let mut check = Healthcheck::new("true");
        check.start_period_sec = 5;
        check.retries = 0;
        let (health, checks) = run(&check, &[(0, false), (4, false), (5, false)]);
        assert_eq!(health, Health::Unhealthy);
        assert_eq!((checks.made, checks.failed), (3, 1));
    }
}
