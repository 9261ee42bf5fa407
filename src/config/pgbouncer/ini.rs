//! The syntax of pgbouncer.ini: sections, keys, `%include`. Says nothing of what they mean.
//!
//! Follows PgBouncer 1.26, tried out: a comment is a whole line (`;` or `#`, after blanks); a value goes to the end
//! of its line, without the blanks around it and with any quotes in it; keys are of letters, digits and `_.-*`, others
//! stand in single quotes, which cannot be part of them; a section's name may be followed by more on the same line.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::config::problem::Problem;

/// `%include` within `%include`, as in PgBouncer.
const DEEPEST: usize = 10;

/// One thing that a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Section(String),
    Entry { key: String, value: String },
}

/// Where it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Arc<Path>,
    /// From 1.
    pub(super) line: usize,
}

impl Place {
    pub(super) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::in_file(&self.file, message).at(Some(self.line))
    }
}

/// What a line may be.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Include(String),
    Item(Item),
    /// What it is not.
    Broken,
}

/// Reads a file and those that it includes, in the order of their lines.
pub(super) fn read(path: &Path) -> Result<Vec<(Place, Item)>, Vec<Problem>> {
    let (mut items, mut problems) = (Vec::new(), Vec::new());
    match load(path) {
        Ok(text) => read_text(path, &text, 0, &mut items, &mut problems),
        Err(problem) => problems.push(problem),
    }
    if problems.is_empty() { Ok(items) } else { Err(problems) }
}

/// As `read`, for a text that is already there.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<(Place, Item)>, Vec<Problem>> {
    let (mut items, mut problems) = (Vec::new(), Vec::new());
    read_text(path, text, 0, &mut items, &mut problems);
    if problems.is_empty() { Ok(items) } else { Err(problems) }
}

fn load(path: &Path) -> Result<String, Problem> {
    let bytes = fs::read(path).map_err(|error| {
        // PgBouncer's words, which people grep for.
        let reason = error.to_string();
        let reason = reason.split(" (os error").next().unwrap_or_default();
        Problem::of_call(format!("could not load file \"{}\": {reason}", path.display()))
    })?;
    // Comments may be in any encoding; what counts is looked at later.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read_text(
    path: &Path,
    text: &str,
    depth: usize,
    items: &mut Vec<(Place, Item)>,
    problems: &mut Vec<Problem>,
) {
    let file: Arc<Path> = Arc::from(path);
    // As in C, nothing is behind a NUL.
    let text = text.split('\0').next().unwrap_or_default();
    for (index, line) in text.split('\n').enumerate() {
        let place = Place { file: Arc::clone(&file), line: index + 1 };
        for part in parts(line) {
            match part {
                Line::Broken => problems.push(
                    place.problem("syntax error in configuration").remedy(
                        "write [section], key = value, %include FILE or ; comment; names of other than letters, digits and _.-* need single quotes",
                    ),
                ),
                Line::Item(item) => {
                    if is_damaged(&item) {
                        problems.push(place.problem("the line is not UTF-8 text").remedy("save it as UTF-8"));
                    }
                    items.push((place.clone(), item));
                }
                Line::Include(_) if depth >= DEEPEST => {
                    let problem = place.problem("include nesting level too deep");
                    problems.push(problem.remedy(format!("at most {DEEPEST} files deep")));
                    return;
                }
                Line::Include(name) => {
                    // From the working directory, not from that of the file.
                    let included = PathBuf::from(name);
                    match load(&included) {
                        Ok(text) => read_text(&included, &text, depth + 1, items, problems),
                        Err(problem) => problems.push(Problem { file: Some(file.to_path_buf()), ..problem }.at(Some(place.line))),
                    }
                }
            }
        }
    }
}

fn is_damaged(item: &Item) -> bool {
    let damaged = |text: &String| text.contains(char::REPLACEMENT_CHARACTER);
    match item {
        Item::Section(name) => damaged(name),
        Item::Entry { key, value } => damaged(key) || damaged(value),
    }
}

fn is_blank(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

/// What stands on a line: nothing, one thing, or a section and one thing.
fn parts(line: &str) -> Vec<Line> {
    let mut found = Vec::new();
    let mut rest = line.trim_start_matches(is_blank);
    while let Some(section) = rest.strip_prefix('[') {
        let Some((name, behind)) = section.split_once(']') else {
            found.push(Line::Broken);
            return found;
        };
        found.push(Line::Item(Item::Section(name.to_owned())));
        rest = behind.trim_start_matches(is_blank);
    }
    if rest.is_empty() || rest.starts_with(['#', ';']) {
        return found;
    }
    found.push(match rest.strip_prefix("%include") {
        Some(name) if name.starts_with(is_blank) => Line::Include(name.trim_matches(is_blank).to_owned()),
        _ => entry(rest).map_or(Line::Broken, Line::Item),
    });
    found
}

fn entry(text: &str) -> Option<Item> {
    let (key, rest) = match text.strip_prefix('\'') {
        Some(quoted) => quoted.split_once('\'').filter(|(key, _)| !key.is_empty())?,
        None => {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-*".contains(c);
            text.split_at(text.find(|c| !is_plain(c)).unwrap_or(text.len()))
        }
    };
    let value = rest.trim_start_matches([' ', '\t']).strip_prefix('=')?;
    let value = value.trim_start_matches([' ', '\t']).trim_end_matches(is_blank);
    (!key.is_empty()).then(|| Item::Entry { key: key.to_owned(), value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        let show = |part: Line| match part {
            Line::Include(name) => format!("include {name}"),
            Line::Item(Item::Section(name)) => format!("[{name}]"),
            Line::Item(Item::Entry { key, value }) => format!("{key}: {value}"),
            Line::Broken => "broken".to_owned(),
        };
        parts(line).into_iter().map(show).collect::<Vec<_>>().join(" / ")
    }

    #[test]
    fn lines_are_read_as_in_pgbouncer() {
        for (line, expected) in [
            ("", ""),
            (" \t\r", ""),
            ("; x = 1", ""),
            ("  # x = 1", ""),
            ("[pgbouncer]", "[pgbouncer]"),
            ("  [databases] ; comment", "[databases]"),
            ("[databases] a = host=b", "[databases] / a: host=b"),
            ("[a] [b]", "[a] / [b]"),
            ("[open", "broken"),
            ("a=1", "a: 1"),
            ("  a.b-c_*9 \t=\t 1 ; not a comment \r", "a.b-c_*9: 1 ; not a comment"),
            ("a =", "a: "),
            ("a = 'b' \"c\"", "a: 'b' \"c\""),
            ("'odd name' = x", "odd name: x"),
            ("'é'=x", "é: x"),
            ("'' = x", "broken"),
            ("'o''dd' = x", "broken"),
            ("\"dq\" = x", "broken"),
            ("é = x", "broken"),
            ("a 1", "broken"),
            ("= 1", "broken"),
            ("%include \t f.ini \r", "include f.ini"),
            ("%included = 1", "broken"),
        ] {
            assert_eq!(shown(line), expected, "{line:?}");
        }
    }

    #[test]
    fn nothing_is_behind_a_nul_and_damaged_text_counts_only_outside_of_comments() {
        let read = |text: &str| parse(Path::new("p.ini"), text).map(|items| items.len());
        assert_eq!(read("a=1\0\nbroken\n"), Ok(1));
        assert_eq!(read("; \u{fffd}\na=1\n"), Ok(1));
        assert!(
            read("a=\u{fffd}\n").unwrap_err()[0].to_string().starts_with("p.ini:1: the line is not UTF-8")
        );
    }
}
