//! A table of settings: what its rows say, and reading and writing by name.
//!
//! The same kind of row describes `[pooler]`, `[databases.NAME]` and `[users.NAME]`; parsing, SHOW CONFIG,
//! `pooler.toml.example` and `docs/settings.md` all come from it.

use super::{
    suggest::closest,
    value::{Codec, Input},
};

/// What a change needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// RELOAD or SET.
    Live,
    /// A new start of the process.
    Restart,
}

/// One setting of `S`.
pub struct Row<S> {
    pub name: &'static str,
    /// Heading in the docs.
    pub section: &'static str,
    pub doc: &'static str,
    /// How it differs from PgBouncer's setting of that name; empty if it does not.
    pub note: &'static str,
    pub change: Change,
    /// Whether relative values are to be taken from the directory of the file.
    pub is_path: fn() -> bool,
    /// What may be written.
    pub form: fn() -> String,
    pub parse: fn(&mut S, &Input) -> Result<(), String>,
    /// As SHOW CONFIG prints it; `None`: not set.
    pub show: fn(&S) -> Option<String>,
    /// As a TOML literal; `None`: not set.
    pub literal: fn(&S) -> Option<String>,
    pub copy: fn(&mut S, &S),
}

/// Why a setting was not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("unknown setting \"{name}\"{}", did_you_mean(.suggestion))]
    Unknown { name: String, suggestion: Option<&'static str> },
    #[error("invalid value for {name}: {message}; expected {form}")]
    Invalid { name: &'static str, message: String, form: String },
    #[error("{name} can only be changed by a restart")]
    NeedsRestart { name: &'static str },
}

fn did_you_mean(suggestion: &Option<&'static str>) -> String {
    suggestion.map_or_else(String::new, |name| format!("; did you mean \"{name}\"?"))
}

/// The row of that name.
pub(super) fn find<'t, S>(table: &'t [Row<S>], name: &str) -> Result<&'t Row<S>, SettingError> {
    table.iter().find(|row| row.name == name).ok_or_else(|| SettingError::Unknown {
        name: name.to_owned(),
        suggestion: closest(name, table.iter().map(|row| row.name)),
    })
}

impl<S> Row<S> {
    /// Reads one value into `target`, which stays as it was on error.
    pub(super) fn apply(&self, target: &mut S, input: &Input) -> Result<(), SettingError> {
        (self.parse)(target, input).map_err(|message| SettingError::Invalid {
            name: self.name,
            message,
            form: (self.form)(),
        })
    }
}

/// Reads the text of a default. A default that does not parse is found by `every_default_parses`.
pub(super) fn default_of<C>(codec: &C, text: &str) -> C::Value
where
    C: Codec,
    C::Value: Default,
{
    codec.parse(&Input::text(text)).unwrap_or_default()
}
