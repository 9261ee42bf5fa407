//! How values are written: one codec per form (time, number, flag, …), used by every table of settings.
//!
//! A codec reads what the file or the console gave (`Input`) and writes the value back, once as
//! PgBouncer's SHOW CONFIG prints it (seconds, 0/1) and once as a TOML literal. It knows nothing of
//! names and lines; the tables and the reader add those. Messages quote the value: codecs of secrets don't.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use crate::error::Secret;

/// A value as it was written, before its meaning is known.
#[derive(Clone, Debug)]
pub enum Input {
    /// A string of the file, or anything that SET was given.
    Text(String),
    /// With its base, so that `0o700` and `700` can be told apart.
    Integer { value: i64, radix: u32 },
    /// A number with decimals.
    Float(f64),
    /// `true` or `false`.
    Flag(bool),
    /// A list of strings.
    List(Vec<String>),
}

impl Input {
    /// A text, as SET gives it.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    fn quote(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{}\"", text.escape_debug()),
            Self::Integer { value, radix: 8 } => format!("{value:#o}"),
            Self::Integer { value, .. } => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Flag(value) => value.to_string(),
            Self::List(_) => "a list".to_owned(),
        }
    }

    fn is_not(&self, what: &str) -> String {
        format!("{} is not {what}", self.quote())
    }
}

/// One form of value.
pub(super) trait Codec {
    /// What it is read into.
    type Value;
    /// Reads; the error says what is wrong with the value.
    fn parse(&self, input: &Input) -> Result<Self::Value, String>;
    /// As SHOW CONFIG prints it; `None`: not set.
    fn show(&self, value: &Self::Value) -> Option<String>;
    /// As a TOML literal.
    fn literal(&self, value: &Self::Value) -> String;
    /// What may be written, for docs and remedies: "a number from 1 to 65535".
    fn form(&self) -> String;
    /// Whether relative values are to be taken from the directory of the file.
    fn is_path(&self) -> bool {
        false
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A length of time: seconds as a number, or a text with a unit.
pub(super) struct Time;

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

/// A whole number within bounds.
pub(super) struct Number<T>(pub RangeInclusive<T>);

/// Any number that fits, from 0.
pub(super) const COUNT: Number<u32> = Number(0..=2_147_483_647);

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
pub(super) struct Bytes(pub RangeInclusive<u32>);

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
pub(super) struct Mode;

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

/// Yes or no.
pub(super) struct Flag;

impl Codec for Flag {
    type Value = bool;

    fn parse(&self, input: &Input) -> Result<bool, String> {
        let word = match input {
            Input::Flag(value) => return Ok(*value),
            Input::Integer { value, .. } => value.to_string(),
            Input::Text(text) => text.trim().to_ascii_lowercase(),
            Input::Float(_) | Input::List(_) => String::new(),
        };
        match word.as_str() {
            "1" | "true" | "on" | "yes" => Ok(true),
            "0" | "false" | "off" | "no" => Ok(false),
            _ => Err(input.is_not("true or false")),
        }
    }

    fn show(&self, value: &bool) -> Option<String> {
        Some(u8::from(*value).to_string())
    }

    fn literal(&self, value: &bool) -> String {
        value.to_string()
    }

    fn form(&self) -> String {
        "true or false".to_owned()
    }
}

/// One of a few words, in any case.
pub(super) struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

impl<T> Choice<T> {
    fn words(&self) -> String {
        self.0.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
    }
}

impl<T: Copy + PartialEq> Codec for Choice<T> {
    type Value = T;

    fn parse(&self, input: &Input) -> Result<T, String> {
        let Input::Text(text) = input else { return Err(input.is_not("one of the words")) };
        let found = self.0.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim()));
        found.map(|(_, value)| *value).ok_or_else(|| format!("{} is unknown", input.quote()))
    }

    fn show(&self, value: &T) -> Option<String> {
        self.0.iter().find(|(_, known)| known == value).map(|(word, _)| (*word).to_owned())
    }

    fn literal(&self, value: &T) -> String {
        quoted(&self.show(value).unwrap_or_default())
    }

    fn form(&self) -> String {
        format!("one of {}", self.words())
    }
}

/// One of a few words, kept as text.
pub(super) struct Word(pub &'static [&'static str]);

impl Codec for Word {
    type Value = String;

    fn parse(&self, input: &Input) -> Result<String, String> {
        let Input::Text(text) = input else { return Err(input.is_not("one of the words")) };
        let word = text.trim().to_ascii_lowercase();
        if self.0.contains(&word.as_str()) { Ok(word) } else { Err(format!("{} is unknown", input.quote())) }
    }

    fn show(&self, value: &String) -> Option<String> {
        Some(value.clone())
    }

    fn literal(&self, value: &String) -> String {
        quoted(value)
    }

    fn form(&self) -> String {
        format!("one of {}", self.0.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "))
    }
}

/// Any text. Without NUL, which no message of the protocol can carry inside a string.
pub(super) struct Text;

impl Codec for Text {
    type Value = String;

    fn parse(&self, input: &Input) -> Result<String, String> {
        match input {
            Input::Text(text) if text.contains('\0') => Err("the text contains a NUL byte".to_owned()),
            Input::Text(text) => Ok(text.clone()),
            _ => Err(format!("{} is not a text", input.quote())),
        }
    }

    fn show(&self, value: &String) -> Option<String> {
        Some(value.clone())
    }

    fn literal(&self, value: &String) -> String {
        quoted(value)
    }

    fn form(&self) -> String {
        "a text in quotes".to_owned()
    }
}

/// As `Text`, but not empty.
pub(super) struct Name;

impl Codec for Name {
    type Value = String;

    fn parse(&self, input: &Input) -> Result<String, String> {
        let text = Text.parse(input)?;
        if text.is_empty() { Err("the text is empty".to_owned()) } else { Ok(text) }
    }

    fn show(&self, value: &String) -> Option<String> {
        Some(value.clone())
    }

    fn literal(&self, value: &String) -> String {
        quoted(value)
    }

    fn form(&self) -> String {
        "a text in quotes, not empty".to_owned()
    }
}

/// A password. No message repeats it.
pub(super) struct Password;

impl Codec for Password {
    type Value = Secret<String>;

    fn parse(&self, input: &Input) -> Result<Secret<String>, String> {
        match input {
            Input::Text(text) if text.is_empty() => Err("the text is empty".to_owned()),
            Input::Text(text) if text.contains('\0') => Err("the text contains a NUL byte".to_owned()),
            Input::Text(text) => Ok(Secret(text.clone())),
            _ => Err("the value is not a text".to_owned()),
        }
    }

    fn show(&self, _: &Secret<String>) -> Option<String> {
        None
    }

    fn literal(&self, _: &Secret<String>) -> String {
        quoted("")
    }

    fn form(&self) -> String {
        "a text in quotes, not empty".to_owned()
    }
}

/// A file or directory; the empty text means none.
pub(super) struct FilePath;

impl Codec for FilePath {
    type Value = Option<PathBuf>;

    fn parse(&self, input: &Input) -> Result<Option<PathBuf>, String> {
        let text = Text.parse(input)?;
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn show(&self, value: &Option<PathBuf>) -> Option<String> {
        value.as_ref().map(|path| path.display().to_string())
    }

    fn literal(&self, value: &Option<PathBuf>) -> String {
        quoted(&self.show(value).unwrap_or_default())
    }

    fn form(&self) -> String {
        "a path in quotes, relative to the directory of the file; \"\" for none".to_owned()
    }

    fn is_path(&self) -> bool {
        true
    }
}

/// A list of words.
pub(super) struct List;

impl Codec for List {
    type Value = Vec<String>;

    fn parse(&self, input: &Input) -> Result<Vec<String>, String> {
        let words: Vec<String> = match input {
            Input::List(words) => words.clone(),
            Input::Text(text) => {
                let parts = text.split(|c: char| c == ',' || c.is_whitespace());
                parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
            }
            _ => return Err(input.is_not("a list")),
        };
        if words.iter().any(|word| word.is_empty() || word.contains('\0')) {
            return Err("the list has an empty entry".to_owned());
        }
        Ok(words)
    }

    fn show(&self, value: &Vec<String>) -> Option<String> {
        Some(value.join(","))
    }

    fn literal(&self, value: &Vec<String>) -> String {
        format!("[{}]", value.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "))
    }

    fn form(&self) -> String {
        "a list of texts ([\"a\", \"b\"]), or one text with commas (\"a, b\")".to_owned()
    }
}
