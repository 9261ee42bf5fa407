//! Times, numbers, sizes and file modes.

use std::{ops::RangeInclusive, time::Duration};

use super::{Codec, Input};

/// A length of time: seconds as a number, or a text with a unit.
pub(in crate::config) struct Time;

/// Longest accepted time. `Instant + Duration` must never overflow.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);
const UNITS: [(&str, f64); 6] =
    [("us", 1e-6), ("ms", 1e-3), ("min", 60.0), ("s", 1.0), ("h", 3600.0), ("d", 86400.0)];

impl Codec for Time {
    type Value = Duration;

    fn parse(&self, input: &Input) -> Result<Duration, String> {
        let seconds = match input {
            Input::Text(text) => seconds_of(text),
            // Only huge numbers lose digits, and those are refused below.
            Input::Integer { value, .. } => value.to_string().parse().ok(),
            Input::Float(value) => Some(*value),
            Input::Flag(_) | Input::List(_) => None,
        };
        let seconds = seconds.ok_or_else(|| input.is_not("a time"))?;
        if seconds < 0.0 {
            return Err(format!("{} is negative", input.quote()));
        }
        match Duration::try_from_secs_f64(seconds) {
            Ok(time) if time <= LONGEST => Ok(time),
            _ => Err(format!("{} is more than 3650 days", input.quote())),
        }
    }

    fn show(&self, value: &Duration) -> Option<String> {
        Some(value.as_secs_f64().to_string())
    }

    fn literal(&self, value: &Duration) -> String {
        let micros = value.as_micros();
        let units = [
            ("d", 86_400_000_000),
            ("h", 3_600_000_000),
            ("min", 60_000_000),
            ("s", 1_000_000),
            ("ms", 1000),
        ];
        match units.iter().find(|(_, size)| micros >= *size && micros.is_multiple_of(*size)) {
            Some((unit, size)) => format!("\"{}{unit}\"", micros / size),
            None if micros == 0 => "0".to_owned(),
            None => format!("\"{micros}us\""),
        }
    }

    fn form(&self) -> String {
        "a time: seconds as a number (15, 0.5) or a text with a unit (\"500ms\", \"15s\", \"10min\", \"1h\", \"1d\")"
            .to_owned()
    }
}

fn seconds_of(text: &str) -> Option<f64> {
    let text = text.trim();
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(unit_at)?;
    let size = match unit {
        "" => 1.0,
        _ => UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.trim().parse::<f64>().ok().map(|number| number * size)
}

/// A time with a lower bound.
pub(in crate::config) struct AtLeast(pub(in crate::config) Duration);

impl Codec for AtLeast {
    type Value = Duration;

    fn parse(&self, input: &Input) -> Result<Duration, String> {
        let time = Time.parse(input)?;
        if time < self.0 { Err(format!("{} is too short", input.quote())) } else { Ok(time) }
    }

    fn show(&self, value: &Duration) -> Option<String> {
        Time.show(value)
    }

    fn literal(&self, value: &Duration) -> String {
        Time.literal(value)
    }

    fn form(&self) -> String {
        format!("{}, at least {}", Time.form(), Time.literal(&self.0))
    }
}

/// A whole number within bounds.
pub(in crate::config) struct Number<T>(pub RangeInclusive<T>);

/// Any number that fits, from 0.
pub(in crate::config) const COUNT: Number<u32> = Number(0..=2_147_483_647);

impl<T> Codec for Number<T>
where
    T: Copy + PartialOrd + ToString + TryFrom<i64>,
{
    type Value = T;

    fn parse(&self, input: &Input) -> Result<T, String> {
        let value = match input {
            Input::Text(text) => text.trim().parse::<i64>().ok(),
            Input::Integer { value, .. } => Some(*value),
            Input::Float(_) | Input::Flag(_) | Input::List(_) => None,
        };
        let value = value.ok_or_else(|| input.is_not("a whole number"))?;
        match T::try_from(value) {
            Ok(value) if self.0.contains(&value) => Ok(value),
            _ => Err(format!("{value} is out of range")),
        }
    }

    fn show(&self, value: &T) -> Option<String> {
        Some(value.to_string())
    }

    fn literal(&self, value: &T) -> String {
        value.to_string()
    }

    fn form(&self) -> String {
        format!("a whole number from {} to {}", self.0.start().to_string(), self.0.end().to_string())
    }
}

/// A size in bytes; units of 1024 as in PostgreSQL.
pub(in crate::config) struct Bytes(pub RangeInclusive<u32>);

const SIZES: [(&str, u32); 3] = [("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)];

impl Codec for Bytes {
    type Value = u32;

    fn parse(&self, input: &Input) -> Result<u32, String> {
        let bytes = match input {
            Input::Text(text) => {
                let text = text.trim();
                let (number, size) = SIZES
                    .iter()
                    .find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)))
                    .unwrap_or((text, 1));
                number.trim().parse::<i64>().ok().map(|number| number.saturating_mul(i64::from(size)))
            }
            Input::Integer { value, .. } => Some(*value),
            Input::Float(_) | Input::Flag(_) | Input::List(_) => None,
        };
        let bytes = bytes.ok_or_else(|| input.is_not("a size"))?;
        match u32::try_from(bytes) {
            Ok(bytes) if self.0.contains(&bytes) => Ok(bytes),
            _ => Err(format!("{} is out of range", input.quote())),
        }
    }

    fn show(&self, value: &u32) -> Option<String> {
        Some(value.to_string())
    }

    fn literal(&self, value: &u32) -> String {
        match SIZES.iter().find(|(_, size)| value >= size && value.is_multiple_of(*size)) {
            Some((unit, size)) => format!("\"{}{unit}\"", value / size),
            None => value.to_string(),
        }
    }

    fn form(&self) -> String {
        format!(
            "a size: bytes as a number or a text with a unit (\"64kB\", \"16MB\"), from {} to {} bytes",
            self.0.start(),
            self.0.end()
        )
    }
}

/// File permissions. Decimal numbers are refused: `777` never means what it says.
pub(in crate::config) struct Mode;

impl Codec for Mode {
    type Value = u32;

    fn parse(&self, input: &Input) -> Result<u32, String> {
        let mode = match input {
            Input::Text(text) => text
                .strip_prefix("0o")
                .or_else(|| text.strip_prefix('0'))
                .and_then(|digits| u32::from_str_radix(digits, 8).ok()),
            Input::Integer { value, radix: 8 } => u32::try_from(*value).ok(),
            _ => None,
        };
        mode.filter(|mode| *mode <= 0o777).ok_or_else(|| input.is_not("a file mode"))
    }

    fn show(&self, value: &u32) -> Option<String> {
        Some(format!("{value:04o}"))
    }

    fn literal(&self, value: &u32) -> String {
        format!("\"{value:04o}\"")
    }

    fn form(&self) -> String {
        "a file mode in octal (\"0777\" or 0o777)".to_owned()
    }
}
