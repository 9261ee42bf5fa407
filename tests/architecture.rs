//! The layers of src/: a module uses modules of lower layers and of its own, never of a higher one.
//!
//! Also keeps files short and headed by a `//!` that says what they own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lowest layer first; modules of one line may use each other. A path counts with its longest prefix in the table,
/// so a part of a module may be lower than the rest.
const LAYERS: &[&[&str]] = &[
    &["calendar", "error", "events", "protocol"],
    &["config", "auth"],
    &["sql"],
    &["session"],
    &["net"],
    &["server"],
    &["cluster"],
    &["pool"],
    &["client"],
    &["worker"],
    &["cli"],
    &["admin"],
    &["app"],
    &["inspect"],
    &["init", "top"],
    &["demo"],
    &["lib", "main"],
];

/// From here on a file is told to be long.
const LONG: usize = 400;
/// No file has more lines.
const TOO_LONG: usize = 800;

/// A source file: its module path (`demo::cluster`) and text.
struct Module {
    file: PathBuf,
    path: String,
    text: String,
}

fn modules() -> Vec<Module> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() {
                dirs.push(file);
            } else if file.extension().is_some_and(|extension| extension == "rs") {
                let relative = file.strip_prefix(&root).unwrap().with_extension("");
                let path = relative.to_str().unwrap().replace('/', "::");
                let path = path.strip_suffix("::mod").unwrap_or(&path).to_owned();
                found.push(Module { text: fs::read_to_string(&file).unwrap(), file, path });
            }
        }
    }
    assert!(found.len() > 10, "src/ was not found");
    found
}

/// Index of the layer that a module path belongs to.
fn layer(path: &str) -> Option<usize> {
    let within =
        |name: &str| path == name || path.strip_prefix(name).is_some_and(|rest| rest.starts_with("::"));
    let rows = LAYERS.iter().enumerate();
    let names = rows.flat_map(|(index, row)| row.iter().map(move |name| (index, *name)));
    names.filter(|(_, name)| within(name)).max_by_key(|(_, name)| name.len()).map(|(index, _)| index)
}

/// Every path after `crate::`, groups in braces spread out. Comments and the file's unit tests do not count.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let code: String =
        code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join(" ");
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        spread("", rest, &mut found);
    }
    found
}

/// Reads one path at the start of `text` below `prefix`; returns what follows it.
fn spread<'a>(prefix: &str, text: &'a str, found: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = spread(prefix, rest, found).trim_start();
            match rest.strip_prefix(',') {
                Some(next) if !next.trim_start().starts_with('}') => rest = next,
                Some(next) => return next.trim_start().strip_prefix('}').unwrap_or(next),
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    if let Some(below) = rest.strip_prefix("::") {
        return spread(&path, below, found);
    }
    found.push(path);
    // `use crate::protocol as wire` inside a group.
    rest.trim_start().strip_prefix("as ").map_or(rest, |alias| {
        let alias = alias.trim_start();
        &alias[alias.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(alias.len())..]
    })
}

#[test]
fn modules_use_only_lower_layers() {
    let mut wrong = Vec::new();
    for module in modules() {
        let Some(own) = layer(&module.path) else {
            wrong.push(format!("{}: not in LAYERS of tests/architecture.rs", module.path));
            continue;
        };
        for import in imports(&module.text) {
            if layer(&import).is_some_and(|used| used > own) {
                wrong.push(format!("{} uses crate::{import}, which is in a higher layer", module.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_own() {
    let mut wrong = Vec::new();
    for module in modules() {
        let (file, lines) = (module.file.display(), module.text.lines().count());
        if lines > TOO_LONG {
            wrong.push(format!("{file}: {lines} lines, more than {TOO_LONG}"));
        } else if lines > LONG {
            println!("warning: {file}: {lines} lines, more than {LONG}");
        }
        if !module.text.starts_with("//!") {
            wrong.push(format!("{file}: does not start with //!"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_read_from_groups_and_expressions() {
    let text = "use crate::{error::Report, protocol::{self, encode::{message, cstr}}, app as it, net};\n\
                // crate::comment\nfn f() { crate::config::load() }\n#[cfg(test)]\nmod tests { use crate::test; }";
    assert_eq!(
        imports(text),
        [
            "error::Report",
            "protocol::self",
            "protocol::encode::message",
            "protocol::encode::cstr",
            "app",
            "net",
            "config::load"
        ]
    );
}

#[test]
fn layer_of_a_path_is_that_of_its_longest_prefix() {
    assert!(layer("demo::cluster") > layer("net::tls"));
    assert_eq!(layer("session::pipeline::tests"), layer("session"));
    assert_eq!(layer("sessions"), None);
}
