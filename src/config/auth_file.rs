//! `auth_file`: PgBouncer's userlist.txt.
//!
//! Lines `"user" "password"`, the rest of the line is ignored; `""` inside quotes is a quote; empty lines and
//! lines that start with `;` do not count. Follows `shared/PGBOUNCER.md` 1.9, but reports every broken line
//! where PgBouncer stops at the first.

use crate::error::Secret;

/// PgBouncer's bounds.
const LONGEST_USER: usize = 127;
const LONGEST_PASSWORD: usize = 65_530;

/// A user with the line it was found in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub line: usize,
    pub user: String,
    /// `None`: the quotes were empty; the user is known but cannot log in with a password.
    pub password: Option<Secret<String>>,
}

/// What is wrong with a line. Never repeats what it says, which may be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineError {
    #[error("the line does not start with a user name in double quotes")]
    NoUser,
    #[error("the user name is not followed by a password in double quotes")]
    NoPassword,
    #[error("a double quote is not closed")]
    Unclosed,
    #[error("the user name is empty")]
    EmptyUser,
    #[error("the user name is longer than {LONGEST_USER} bytes")]
    LongUser,
    #[error("the password is longer than {LONGEST_PASSWORD} bytes")]
    LongPassword,
    #[error("the line contains a NUL byte")]
    Nul,
}

/// Reads the whole file: the entries, and the lines that are none.
pub(super) fn parse(text: &str) -> (Vec<Entry>, Vec<(usize, LineError)>) {
    let (mut entries, mut errors) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        match parse_line(line) {
            Ok(Some((user, password))) => entries.push(Entry { line: line_number, user, password }),
            Ok(None) => {}
            Err(error) => errors.push((line_number, error)),
        }
    }
    (entries, errors)
}

type UserAndPassword = (String, Option<Secret<String>>);

fn parse_line(line: &str) -> Result<Option<UserAndPassword>, LineError> {
    let line = line.trim_start();
    if line.is_empty() || line.starts_with(';') {
        return Ok(None);
    }
    if line.contains('\0') {
        return Err(LineError::Nul);
    }
    let (user, rest) = quoted(line, LineError::NoUser)?;
    let (password, _ignored) = quoted(rest.trim_start(), LineError::NoPassword)?;
    if user.is_empty() {
        return Err(LineError::EmptyUser);
    }
    if user.len() > LONGEST_USER {
        return Err(LineError::LongUser);
    }
    if password.len() > LONGEST_PASSWORD {
        return Err(LineError::LongPassword);
    }
    Ok(Some((user, (!password.is_empty()).then_some(Secret(password)))))
}

/// The text in quotes at the start, and what follows it.
fn quoted(text: &str, missing: LineError) -> Result<(String, &str), LineError> {
    let mut rest = text.strip_prefix('"').ok_or(missing)?;
    let mut value = String::new();
    loop {
        let (part, after) = rest.split_once('"').ok_or(LineError::Unclosed)?;
        value.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => return Ok((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_comments_and_quotes_are_understood() {
        let text = "; users\n\n\"alice\" \"secret\"\n  \"o\"\"neil\"   \"a\"\"b\" rest of line\r\n\"nobody\" \"\"\n\"x\"\"\" \"y\"";
        let (entries, errors) = parse(text);
        assert_eq!(errors, []);
        let seen: Vec<_> = entries
            .iter()
            .map(|e| (e.line, e.user.as_str(), e.password.as_ref().map(|p| p.0.as_str())))
            .collect();
        assert_eq!(
            seen,
            [
                (3, "alice", Some("secret")),
                (4, "o\"neil", Some("a\"b")),
                (5, "nobody", None),
                (6, "x\"", Some("y"))
            ]
        );
    }

    #[test]
    fn every_broken_line_is_reported() {
        let long = "u".repeat(LONGEST_USER + 1);
        let text = format!(
            "alice secret\n\"alice\"\n\"alice\" secret\n\"alice\" \"secret\n\"\" \"x\"\n\"ok\" \"x\"\n\"{long}\" \"x\"\n\"a\0\" \"x\""
        );
        let (entries, errors) = parse(&text);
        assert_eq!(entries.len(), 1);
        assert_eq!(
            errors,
            [
                (1, LineError::NoUser),
                (2, LineError::NoPassword),
                (3, LineError::NoPassword),
                (4, LineError::Unclosed),
                (5, LineError::EmptyUser),
                (7, LineError::LongUser),
                (8, LineError::Nul),
            ]
        );
    }

    #[test]
    fn bounds_are_inclusive() {
        let text = format!("\"{}\" \"{}\"", "u".repeat(LONGEST_USER), "p".repeat(LONGEST_PASSWORD));
        assert_eq!(parse(&text).0.len(), 1);
        let text = format!("\"u\" \"{}\"", "p".repeat(LONGEST_PASSWORD + 1));
        assert_eq!(parse(&text).1, [(1, LineError::LongPassword)]);
    }
}
