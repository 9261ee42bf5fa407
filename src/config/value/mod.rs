//! How values are written: one codec per form (time, number, flag, …), used by every table of settings.
//!
//! A codec reads what the file or the console gave (`Input`) and writes the value back, once as
//! PgBouncer's SHOW CONFIG prints it (seconds, 0/1) and once as a TOML literal. It knows nothing of
//! names and lines; the tables and the reader add those. Messages quote the value: codecs of secrets don't.

mod endpoint;
mod nodes;
mod numbers;
mod words;

pub use self::endpoint::{Endpoint, HttpUrl};
pub(crate) use self::nodes::host_and_port;
pub(super) use self::{
    endpoint::{EndpointText, HttpUrlText},
    nodes::{HostName, Hosts, Nodes, PatroniApis},
    numbers::{AtLeast, Bytes, COUNT, Mode, Number, Time},
    words::{Choice, FilePath, Flag, List, Name, Password, Text, Word},
};

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
