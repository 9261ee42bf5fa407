//! `${NAME}` and `${NAME:-default}` in the strings of pooler.toml; `$${` stands for `${`.

/// Where `${NAME}` is looked up; the process's environment outside tests.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// The process's environment.
pub(super) fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Why a reference could not be followed. Never repeats the text around it, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReferenceError {
    #[error("environment variable {0} is not set")]
    NotSet(String),
    #[error("a \"${{\" has no \"}}\"")]
    Unclosed,
    #[error("a \"${{…}}\" names no environment variable")]
    BadName,
}

impl ReferenceError {
    /// What to do.
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::NotSet(name) => format!("set it, or give a default: ${{{name}:-default}}"),
            Self::Unclosed | Self::BadName => {
                "write ${NAME} or ${NAME:-default}; a literal \"${\" is written \"$${\"".to_owned()
            }
        }
    }
}

/// Replaces the references of one string. What they stand for is not looked at again.
pub(super) fn interpolate(text: &str, environment: Environment<'_>) -> Result<String, ReferenceError> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            result.push_str(before);
            result.push_str("${");
            rest = after;
            continue;
        }
        result.push_str(before);
        let (reference, after) = after.split_once('}').ok_or(ReferenceError::Unclosed)?;
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(ReferenceError::BadName);
        }
        // As in shells, `:-` also covers a variable that is set to nothing.
        let value = environment(name).filter(|value| default.is_none() || !value.is_empty());
        match value.as_deref().or(default) {
            Some(value) => result.push_str(value),
            None => return Err(ReferenceError::NotSet(name.to_owned())),
        }
        rest = after;
    }
    result.push_str(rest);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db1".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("${HOST}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn references_are_replaced_once() {
        for (text, expected) in [
            ("plain", "plain"),
            ("${HOST}", "db1"),
            ("a${HOST}b${HOST}c", "adb1bdb1c"),
            ("${MISSING:-there}", "there"),
            ("${MISSING:-}", ""),
            ("${EMPTY:-there}", "there"),
            ("${EMPTY}", ""),
            ("${HOST:-there}", "db1"),
            ("${MISSING:-a:-b}", "a:-b"),
            ("${TRICK}", "${HOST}"),
            ("$${HOST}", "${HOST}"),
            ("pa$$word$", "pa$$word$"),
            ("$${a}${HOST}", "${a}db1"),
        ] {
            assert_eq!(interpolate(text, &environment).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_an_error() {
        let fails = |text| interpolate(text, &environment).unwrap_err();
        assert_eq!(fails("${NOPE}"), ReferenceError::NotSet("NOPE".to_owned()));
        assert_eq!(fails("secret${HOST"), ReferenceError::Unclosed);
        assert_eq!(fails("${}"), ReferenceError::BadName);
        assert_eq!(fails("${a b}"), ReferenceError::BadName);
        assert!(fails("${NOPE}").remedy().contains("${NOPE:-default}"));
    }
}
