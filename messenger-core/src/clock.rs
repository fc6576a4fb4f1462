//! The only source of time.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::Invalid;

/// A moment in microseconds since 1970-01-01T00:00:00Z.
///
/// Both databases keep exactly this number, so what a write returns equals what a later read
/// returns. Displayed as RFC 3339 in UTC with six digits: `2026-02-23T09:30:00.123456Z`.
///
/// # Examples
///
/// ```
/// use messenger_core::Timestamp;
///
/// let time = Timestamp::from_micros(1_771_839_000_123_456);
/// assert_eq!(time.to_string(), "2026-02-23T09:30:00.123456Z");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Takes microseconds since 1970.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns microseconds since 1970.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns whole seconds since 1970, rounded down.
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    pub(crate) fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// The time from an earlier moment to this one; zero, if that is a later one.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    pub(crate) fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros(span)))
    }
}

impl FromStr for Timestamp {
    type Err = Invalid;

    /// Takes RFC 3339 with any offset, like `2026-02-23T10:30:00+01:00`. What is finer than a
    /// microsecond is cut off.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let time = OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| Invalid::new("time", "must be a time like 2026-02-23T09:30:00Z"))?;
        let micros = time.unix_timestamp_nanos().div_euclid(1_000);
        Ok(Self(i64::try_from(micros).unwrap_or(i64::MAX)))
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            time.year(),
            u8::from(time.month()),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.microsecond()
        )
    }
}

/// Reads the system's clock. Everything that asks for the time asks here.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(micros(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_always_has_six_digits_and_a_z() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp(10).to_string(), "1970-01-01T00:00:00.000010Z");
    }

    #[test]
    fn a_time_reads_what_it_writes_with_any_offset() {
        let time = Timestamp(1_771_839_000_123_456);

        assert_eq!(time.to_string().parse(), Ok(time));
        assert_eq!("2026-02-23T10:30:00.123456+01:00".parse(), Ok(time));
        for wrong in ["", "2026-02-23", "2026-02-23T09:30:00", "tomorrow"] {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_round_down_before_1970_too() {
        assert_eq!(Timestamp(-1).as_seconds(), -1);
        assert_eq!(Timestamp(1_999_999).as_seconds(), 1);
    }
}
