//! What README.md and docs/ refer to is there: tests that prove a promise, files, headings. Their configurations can be used.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and the pages of docs/.
fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let pages: Vec<_> = std::iter::once(root().join("README.md")).chain(pages).collect();
    assert!(pages.len() > 3, "{pages:?}");
    pages
}

/// What is between backticks in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// `FILE.rs::TEST`.
fn named_test(text: &str) -> Option<(&str, &str)> {
    let (file, test) = text.split_once(".rs::")?;
    let file = text.get(..file.len() + ".rs".len())?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (file.starts_with("tests/") || file.starts_with("src/")).then_some(())?;
    test.chars().all(is_name).then_some((file, test))
}

/// Whether the text has a test of that name: the function, with the attribute above it, whatever is in between.
fn has_test(text: &str, name: &str) -> bool {
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| !line.starts_with("//")) {
            if is_test && rest.strip_prefix(name).is_some_and(|rest| rest.starts_with('(')) {
                return true;
            }
            is_test = false;
        }
    }
    false
}

/// The heading of a line, as it is addressed by links.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(kept)
        .collect::<String>()
        .replace(' ', "-")
}

/// Destinations of links and pictures.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link).collect()
}

#[test]
fn tests_that_are_named_exist() {
    let (mut wrong, mut found) = (Vec::new(), 0);
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (file, test) in text.lines().flat_map(quoted).filter_map(named_test) {
            found += 1;
            let source = fs::read_to_string(root().join(file)).unwrap_or_default();
            if !has_test(&source, test) {
                wrong.push(format!("{}: there is no test {test} in {file}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(found > 50, "{found} tests are named");
}

#[test]
fn every_promise_names_its_tests() {
    let text = fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    let (promised, _) = text.split_once("\n## What is not promised").unwrap();
    let promises: Vec<&str> = promised.split("\n- ").skip(1).collect();
    assert!(promises.len() > 20);
    for promise in promises {
        assert!(quoted(promise).any(|text| named_test(text).is_some()), "nothing proves: {promise}");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.with_file_name("").join(file) };
            let there = if heading.is_empty() {
                target.exists()
            } else {
                let target = fs::read_to_string(&target).unwrap_or_default();
                target.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == heading)
            };
            if !there {
                wrong.push(format!("{}: {link} leads nowhere", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Blocks of code in this language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let begins = format!("\n```{language}\n");
    text.split(&begins).skip(1).filter_map(|rest| rest.split_once("\n```")).map(|(block, _)| block).collect()
}

/// A block with a database is a whole pooler.toml.
#[test]
fn configurations_can_be_used() {
    let dir = std::env::temp_dir().join(format!("pooler-docs-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("admin.password"), "secret").unwrap();
    let (mut wrong, mut found) = (Vec::new(), 0);
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for block in blocks(&text, "toml").into_iter().filter(|block| block.contains("[databases.")) {
            found += 1;
            let file = dir.join("pooler.toml");
            fs::write(&file, block).unwrap();
            let mut check = Command::new(env!("CARGO_BIN_EXE_pooler"));
            check.arg("check").arg("-c").arg(&file);
            for name in block.split("${").skip(1).filter_map(|rest| rest.split_once('}')) {
                check.env(name.0, "secret");
            }
            let output = check.output().unwrap();
            if !output.status.success() {
                let told = String::from_utf8_lossy(&output.stderr).into_owned();
                wrong.push(format!("{}: {told}\n{block}", page.display()));
            }
        }
    }
    fs::remove_dir_all(&dir).unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(found > 2, "{found} configurations");
}

#[test]
fn what_is_looked_for_is_told_apart() {
    assert_eq!(named_test("tests/it/a.rs::b_c"), Some(("tests/it/a.rs", "b_c")));
    for other in ["a.rs::b", "tests/it/a.rs", "tests/it/a.rs::b c", "tests::it"] {
        assert_eq!(named_test(other), None, "{other}");
    }
    let text = "#[test]\n#[cfg(unix)]\nfn one() {}\nfn two() {}\n#[test]\n// fn three()\nfn four() {}";
    let found = ["one", "two", "three", "four", "fou"].map(|name| has_test(text, name));
    assert_eq!(found, [true, false, false, true, false]);
    assert_eq!(anchor("## LISTEN and `NOTIFY`"), "listen-and-notify");
    assert_eq!(links("a [b](c.md#d) ![e](f.svg)"), ["c.md#d", "f.svg"]);
    assert_eq!(blocks("a\n```toml\nb\n```\n```sh\nc\n```", "toml"), ["b"]);
}
