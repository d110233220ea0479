//! Durations in Go's notation: `4m0s`, `8760h0m0s`, `1.5s`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration that reads and writes Go's notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Duration(pub std::time::Duration);

impl Duration {
    /// `seconds` seconds.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// `hours` hours.
    pub const fn from_hours(hours: u64) -> Self {
        Self::from_seconds(hours * 3600)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.as_nanos();
        let (whole, part, unit) = match nanoseconds {
            0 => return formatter.write_str("0s"),
            1..1_000 => return write!(formatter, "{nanoseconds}ns"),
            1_000..1_000_000 => (nanoseconds / 1_000, nanoseconds % 1_000, "µs"),
            1_000_000..1_000_000_000 => (nanoseconds / 1_000_000, nanoseconds % 1_000_000, "ms"),
            _ => (u128::from(self.0.as_secs()), u128::from(self.0.subsec_nanos()), "s"),
        };
        let digits = match unit {
            "µs" => 3,
            "ms" => 6,
            _ => 9,
        };
        let mut whole = whole;
        if unit == "s" {
            let (hours, minutes) = (whole / 3600, whole / 60 % 60);
            if hours > 0 {
                write!(formatter, "{hours}h")?;
            }
            if hours > 0 || minutes > 0 {
                write!(formatter, "{minutes}m")?;
            }
            whole %= 60;
        }
        write!(formatter, "{whole}")?;
        if part > 0 {
            write!(formatter, ".{}", format!("{part:0digits$}").trim_end_matches('0'))?;
        }
        formatter.write_str(unit)
    }
}

impl FromStr for Duration {
    type Err = String;

    /// Reads `1h2m3.5s`; a bare `0` needs no unit. Negative durations have no meaning in kubeadm and are refused.
    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("{text:?} is not a duration such as 4m0s or 8760h");
        if text == "0" {
            return Ok(Self::default());
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        let mut nanoseconds = 0_u128;
        if rest.is_empty() {
            return Err(invalid());
        }
        while !rest.is_empty() {
            let end = rest.find(|one: char| !one.is_ascii_digit() && one != '.').ok_or_else(invalid)?;
            let (number, tail) = rest.split_at(end);
            let (unit, next) =
                tail.split_at(tail.find(|one: char| one.is_ascii_digit() || one == '.').unwrap_or(tail.len()));
            let scale: u128 = match unit {
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                _ => return Err(invalid()),
            };
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            if whole.is_empty() && fraction.is_empty() || whole.len() > 12 || fraction.contains('.') {
                return Err(invalid());
            }
            let fraction = &fraction[..fraction.len().min(12)];
            let parse = |digits: &str| if digits.is_empty() { Ok(0) } else { digits.parse::<u128>() };
            nanoseconds += parse(whole).map_err(|_| invalid())? * scale;
            nanoseconds += parse(fraction).map_err(|_| invalid())? * scale / 10_u128.pow(fraction.len() as u32);
            rest = next;
        }
        // Go counts nanoseconds in 63 bits: about 292 years.
        let nanoseconds = i64::try_from(nanoseconds).map_err(|_| format!("{text:?} is longer than 292 years"))?;
        Ok(Self(std::time::Duration::from_nanos(nanoseconds as u64)))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Duration;

    #[rstest]
    #[case("8760h", "8760h0m0s")]
    #[case("87600h0m0s", "87600h0m0s")]
    #[case("4m0s", "4m0s")]
    #[case("90s", "1m30s")]
    #[case("1.5s", "1.5s")]
    #[case("500ms", "500ms")]
    #[case("1.5ms", "1.5ms")]
    #[case("2us", "2µs")]
    #[case("7ns", "7ns")]
    #[case("0", "0s")]
    #[case("1h0m0.25s", "1h0m0.25s")]
    #[case(".5m", "30s")]
    fn go_notation_is_read_and_written(#[case] read: &str, #[case] written: &str) {
        assert_eq!(read.parse::<Duration>().unwrap().to_string(), written);
    }

    #[rstest]
    #[case("")]
    #[case("4")]
    #[case("-1s")]
    #[case("1d")]
    #[case("1.2.3s")]
    #[case(".s")]
    #[case("3000000h")]
    fn other_texts_are_refused(#[case] text: &str) {
        assert!(text.parse::<Duration>().is_err());
    }
}
