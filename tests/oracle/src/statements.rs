//! Statements of PostgreSQL's regression tests: what psql would send.

use std::{fs, path::Path};

/// Longest statement in pieces that end with a semicolon.
const PIECES: usize = 60;

pub fn read(source: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for folder in ["src/test/regress/sql", "src/test/isolation/specs", "src/pl/plpgsql/src/sql"] {
        files.extend(
            fs::read_dir(source.join(folder)).into_iter().flatten().flatten().map(|entry| entry.path()),
        );
    }
    files.sort();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    let texts =
        files.iter().flat_map(|file| fs::read(file).ok().and_then(|bytes| String::from_utf8(bytes).ok()));
    let mut statements: Vec<String> = texts.flat_map(|text| split(&text)).collect();
    statements.sort();
    statements.dedup();
    statements
}

/// Lines up to one that ends with a semicolon; more of them while the server's scanner finds something open.
fn split(text: &str) -> Vec<String> {
    let (mut statements, mut open, mut pieces, mut data) = (Vec::new(), String::new(), 0, false);
    for line in text.lines() {
        if data {
            data = line != "\\.";
            continue;
        }
        // Commands of psql, and its variables.
        if line.starts_with('\\') {
            continue;
        }
        let line = line.split(" \\g").next().unwrap_or(line);
        open.push_str(line);
        open.push('\n');
        if !line.trim_end().ends_with(';') {
            continue;
        }
        pieces += 1;
        if pg_query::scan_tokens(&open).is_ok() || pieces > PIECES {
            let statement = std::mem::take(&mut open).trim().to_owned();
            let lower = statement.to_lowercase();
            data = lower.contains("copy ") && lower.contains("from stdin");
            statements.push(statement);
            pieces = 0;
        }
    }
    statements
}
