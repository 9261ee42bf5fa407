//! pgbouncer.ini: a second front end to the same `Config`.
//!
//! `ini` and `pairs` know the syntax, `parameters` every setting and what becomes of it, `reader` builds the
//! configuration; nothing behind it knows which file it came from, but for SHOW CONFIG and SET, which call the
//! settings as PgBouncer does (`given`). `import` writes the same configuration as a pooler.toml.
//!
//! What a setting of PgBouncer needs and pooler lacks is refused, by its name, unless it is at its default or nothing
//! that matters depends on it.

#[cfg(test)]
mod document;
mod given;
mod import;
mod ini;
mod pairs;
mod parameters;
mod reader;
#[cfg(test)]
mod tests;

use std::{fs, path::Path};

pub use self::given::Given;
use self::reader::IniReader;
use super::{Config, Loaded, Problems};

/// Whether a file is a pgbouncer.ini rather than a pooler.toml: by its name, else by its sections.
pub(super) fn is_ini(path: &Path) -> bool {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("ini") => true,
        Some("toml") => false,
        _ => {
            let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let has = |text: &str, section| text.lines().any(|line| line.trim() == section);
            text.is_ok_and(|text| has(&text, "[pgbouncer]") && !has(&text, "[pooler]"))
        }
    }
}

impl Config {
    /// Reads a pgbouncer.ini, whatever its name, and the files that it refers to.
    pub fn load_ini(path: &Path) -> Result<Loaded, Problems> {
        let items = ini::read(path).map_err(Problems::sorted)?;
        IniReader::new(path).read(items)
    }

    /// As `load_ini`, for a text that is already there.
    pub fn from_ini_text(path: &Path, text: &str) -> Result<Loaded, Problems> {
        let items = ini::parse(path, text).map_err(Problems::sorted)?;
        IniReader::new(path).read(items)
    }

    /// The pooler.toml that means what a pgbouncer.ini means. It has been read: what pooler would say against it is
    /// said now.
    pub fn import(path: &Path) -> Result<String, Problems> {
        let toml = import::toml(&Self::load_ini(path)?.config);
        Self::from_text(&path.with_extension("toml"), &toml, &|_| None)?;
        Ok(toml)
    }
}
