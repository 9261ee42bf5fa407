//! The settings in PgBouncer's words: SHOW CONFIG and SET.

use std::{collections::BTreeMap, path::Path};

use super::parameters::{Form, Meaning, PARAMETERS, Parameter, int, parameter};
use crate::config::{
    Config, SettingError, Settings, ShownSetting,
    file::{Dialect, Reader},
    ldap::without_password,
    settings::SETTINGS,
    table::find,
    value::Input,
};

/// What a pgbouncer.ini says in `[pgbouncer]`, each value as SHOW CONFIG prints it. What it does not say is at
/// PgBouncer's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given(pub(super) BTreeMap<&'static str, String>);

/// Longest message that can be read as a whole; PgBouncer's default is beyond it.
const LARGEST_PACKET: i64 = 1_073_741_823;

/// Why a value was not taken.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) message: String,
    pub(super) remedy: String,
}

/// Reads one value into the settings. What it does not change but should is told.
pub(super) fn apply(
    settings: &mut Settings,
    parameter: &Parameter,
    value: &str,
) -> Result<Option<String>, Refused> {
    let name = parameter.name;
    let invalid = |expected: String| Refused {
        message: format!("invalid value \"{}\" for parameter {name}", value.escape_debug()),
        remedy: format!("expected {expected}"),
    };
    let Some(normal) = parameter.form.normal(value) else {
        return Err(invalid(expected(parameter.form).to_owned()));
    };
    let (target, input) = match parameter.meaning {
        Meaning::Unused(reason) => {
            let told = (Some(normal.as_str()) != parameter.default)
                .then(|| format!("{name} makes no difference: {reason}"));
            return Ok(told);
        }
        Meaning::Only(values, remedy) => {
            let right = values.contains(&normal.as_str());
            let message = format!("{name} = {} is not supported", value.escape_debug());
            return if right { Ok(None) } else { Err(Refused { message, remedy: remedy.to_owned() }) };
        }
        Meaning::Own => match own(name, &normal, value)? {
            Some(found) => found,
            None => return Ok(None),
        },
        Meaning::Same => (name, input(parameter.form, &normal, value)),
    };
    let applied = find(SETTINGS, target).and_then(|row| {
        let input = match input {
            // From the working directory, as in PgBouncer.
            Input::Text(text) if (row.is_path)() && !text.is_empty() => Input::Text(absolute(&text)),
            input => input,
        };
        row.apply(settings, &input)
    });
    applied.map(|()| None).map_err(|error| match error {
        SettingError::Invalid { form, .. } => invalid(form),
        other => Refused { message: other.to_string(), remedy: String::new() },
    })
}

fn absolute(path: &str) -> String {
    std::path::absolute(Path::new(path))
        .map_or_else(|_| path.to_owned(), |path| path.to_string_lossy().into_owned())
}

fn expected(form: Form) -> &'static str {
    match form {
        Form::Int | Form::Mode => "a whole number",
        Form::Flag => "0 or 1",
        Form::Time => "a number of seconds",
        Form::Text | Form::Words => "a text",
    }
}

fn input(form: Form, normal: &str, value: &str) -> Input {
    let number = |radix| Input::Integer { value: int(normal).unwrap_or(-1), radix };
    match form {
        Form::Int => number(10),
        Form::Mode => number(8),
        Form::Flag => Input::Flag(normal != "0"),
        Form::Time => Input::Float(super::parameters::time(value).unwrap_or(-1.0)),
        Form::Text | Form::Words => Input::text(normal),
    }
}

fn level_of(verbose: &str) -> &'static str {
    match int(verbose).unwrap_or(0) {
        ..=0 => "info",
        1 => "debug",
        _ => "trace",
    }
}

/// Settings that mean almost what pooler's of some name means. `None`: there is nothing to set.
fn own(name: &'static str, normal: &str, value: &str) -> Result<Option<(&'static str, Input)>, Refused> {
    let number = int(normal);
    let refused = |remedy: &str| Refused {
        message: format!("{name} = {} is not supported", value.escape_debug()),
        remedy: remedy.to_owned(),
    };
    Ok(match name {
        "auth_type" => Some(("auth_type", Input::text(normal))),
        "max_packet_size" => {
            let value = number.unwrap_or(-1).min(LARGEST_PACKET);
            Some(("max_packet_size", Input::Integer { value, radix: 10 }))
        }
        // Milliseconds.
        "tcp_user_timeout" => Some(("tcp_user_timeout", Input::text(format!("{normal}ms")))),
        "verbose" => Some(("log_level", Input::text(level_of(normal)))),
        "conffile" if !value.is_empty() => {
            return Err(refused("remove it: the file is named on the command line"));
        }
        // conffile without a value.
        _ => None,
    })
}

impl Given {
    /// Takes one value into account.
    pub(super) fn note(&mut self, parameter: &Parameter, value: &str) {
        if let Some(normal) = parameter.form.normal(value) {
            self.0.insert(parameter.name, normal);
        }
    }

    /// Forgets what has a default: that counts again.
    pub(super) fn start_over(&mut self) -> bool {
        let before = self.0.len();
        self.0.retain(|name, _| parameter(name).is_none_or(|parameter| parameter.default.is_none()));
        self.0.len() != before
    }

    fn rows(&self, path: Option<&Path>) -> Vec<ShownSetting> {
        let shown = |parameter: &Parameter| {
            let default = parameter.default.map(str::to_owned);
            let value = match parameter.name {
                "conffile" => path.map(|path| path.display().to_string()),
                name => self.0.get(name).cloned().or_else(|| value_of_default(parameter)),
            };
            ShownSetting { key: parameter.name, value, default, changeable: parameter.changeable }
        };
        PARAMETERS.iter().map(shown).collect()
    }
}

fn value_of_default(parameter: &Parameter) -> Option<String> {
    if parameter.name == "verbose" {
        return Some("0".to_owned());
    }
    parameter.form.normal(parameter.default?)
}

impl Config {
    /// The lines of SHOW CONFIG: flags as 0 and 1, times in seconds, as PgBouncer prints them.
    pub fn rows(&self) -> Vec<ShownSetting> {
        let mut rows = match &self.pgbouncer {
            Some(given) => given.rows(self.path.as_deref()),
            None => self.settings.rows(),
        };
        // Whoever watches need not know the password in it.
        let options = rows.iter_mut().filter(|row| row.key == "auth_ldap_options");
        options.for_each(|row| row.value = row.value.take().map(|text| without_password(&text)));
        rows
    }

    /// SET: changes one setting that can be changed live. What settings need of each other is not checked.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let parameter = match &self.pgbouncer {
            Some(_) => parameter(key),
            None => None,
        };
        match parameter {
            Some(parameter) => self.set_parameter(parameter, value)?,
            None => self.settings.set(key, value).map_err(|error| error.to_string())?,
        }
        if ["auth_type", "auth_hba_file", "auth_ident_file"].contains(&key) {
            self.read_hba_again()?;
        }
        Ok(())
    }

    /// The rules have not been read if they did not count before.
    fn read_hba_again(&mut self) -> Result<(), String> {
        let path = self.path.clone().unwrap_or_default();
        let dialect = if self.pgbouncer.is_some() { Dialect::PgBouncer } else { Dialect::Toml };
        let mut reader = Reader::new(&path, "", &|_| None, dialect);
        reader.config.settings = self.settings.clone();
        reader.read_hba();
        let loaded = reader.finish().map_err(|problems| problems.to_string())?;
        self.hba = loaded.config.hba;
        Ok(())
    }

    fn set_parameter(&mut self, parameter: &Parameter, value: &str) -> Result<(), String> {
        let key = parameter.name;
        if !parameter.changeable {
            return Err(format!("{key} can only be changed by a restart"));
        }
        let told = apply(&mut self.settings, parameter, value)
            .map_err(|refused| format!("{}; {}", refused.message, refused.remedy))?;
        if let Some(told) = told {
            tracing::warn!("{told}");
        }
        if let Some(given) = &mut self.pgbouncer {
            given.note(parameter, value);
        }
        Ok(())
    }

    /// Takes what only a restart can change from `running`, so that SHOW CONFIG keeps telling the truth after a reload.
    pub fn keep_restart_settings(&mut self, running: &Self) {
        self.settings.keep_restart_settings(&running.settings);
        let (Some(new), Some(old)) = (&mut self.pgbouncer, &running.pgbouncer) else { return };
        for parameter in PARAMETERS.iter().filter(|parameter| !parameter.changeable) {
            match old.0.get(parameter.name) {
                Some(value) => drop(new.0.insert(parameter.name, value.clone())),
                None => drop(new.0.remove(parameter.name)),
            }
        }
    }
}
