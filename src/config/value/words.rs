//! Flags, words, texts, secrets, paths and lists.

use std::path::PathBuf;

use super::{Codec, Input, quoted};
use crate::{config::word_of, error::Secret};

/// Yes or no.
pub(in crate::config) struct Flag;

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
pub(in crate::config) struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

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
        word_of(value, self.0).map(str::to_owned)
    }

    fn literal(&self, value: &T) -> String {
        quoted(&self.show(value).unwrap_or_default())
    }

    fn form(&self) -> String {
        format!("one of {}", self.words())
    }
}

/// One of a few words, kept as text.
pub(in crate::config) struct Word(pub &'static [&'static str]);

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
pub(in crate::config) struct Text;

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
pub(in crate::config) struct Name;

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
pub(in crate::config) struct Password;

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
pub(in crate::config) struct FilePath;

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
pub(in crate::config) struct List;

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
