//! Files that are written all or not at all, and never in the place of others without a word.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::{config::Problem, error::Secret};

/// What is to be written.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) text: Secret<String>,
    /// Nobody but the owner is to read it.
    pub(super) is_secret: bool,
}

/// Nothing is written in the place of files that are there.
pub(super) fn refuse_existing<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), Problem> {
    let there: Vec<String> = paths
        .into_iter()
        .filter(|path| fs::symlink_metadata(path).is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if there.is_empty() {
        return Ok(());
    }
    let message = format!("{} is there already", there.join(", "));
    Err(Problem::of_call(message).remedy("name another file with --output, or replace it with --force"))
}

/// Writes all of them.
pub(super) fn write(files: &[File], force: bool) -> Result<(), Problem> {
    if !force {
        refuse_existing(files.iter().map(|file| &file.path))?;
    }
    let mut written: Vec<&Path> = Vec::new();
    for file in files {
        let result = if force { replace(file) } else { create(&file.path, file) };
        if let Err(error) = result {
            // What is new goes again; what was replaced stays.
            written.iter().filter(|_| !force).for_each(|path| drop(fs::remove_file(path)));
            let remedy = match error.kind() {
                ErrorKind::NotFound => "make the directory first, or name another file with --output",
                ErrorKind::PermissionDenied => {
                    "name a file in a directory that you may write in with --output"
                }
                _ => "name another file with --output",
            };
            let message = format!("cannot write {}: {error}", file.path.display());
            return Err(Problem::of_call(message).remedy(remedy));
        }
        written.push(&file.path);
    }
    Ok(())
}

/// Fails if somebody has been quicker; the permissions are there from the start.
fn create(path: &Path, file: &File) -> io::Result<()> {
    let mode = if file.is_secret { 0o600 } else { 0o644 };
    let mut open = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = open.write_all(file.text.0.as_bytes()).and_then(|()| open.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// Whoever reads it meanwhile finds the old one or the new one, whole. Its permissions are not those of the old one.
fn replace(file: &File) -> io::Result<()> {
    let mut name = file.path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new.{}", std::process::id()));
    let beside = file.path.with_file_name(name);
    create(&beside, file)?;
    fs::rename(&beside, &file.path).inspect_err(|_| drop(fs::remove_file(&beside)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::demo::process::TempDir;

    #[test]
    fn all_are_written_or_none_and_nothing_is_replaced_without_force() {
        let dir = TempDir::new(None).unwrap();
        let file = |name: &str, text: &str, is_secret| File {
            path: dir.path().join(name),
            text: Secret(text.to_owned()),
            is_secret,
        };
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        fs::write(dir.path().join("b"), "old").unwrap();
        fs::set_permissions(dir.path().join("b"), fs::Permissions::from_mode(0o644)).unwrap();

        let files = [file("a", "1", true), file("b", "2", true)];
        let refused = write(&files, false).unwrap_err().to_string();
        assert!(refused.contains("b is there already") && refused.contains("--force"), "{refused}");
        assert!(!dir.path().join("a").exists() && read("b") == "old");

        write(&files, true).unwrap();
        assert_eq!(
            (read("a"), read("b"), mode("a"), mode("b")),
            ("1".to_owned(), "2".to_owned(), 0o600, 0o600)
        );

        let failing = [file("c", "3", true), file("no/where", "4", false)];
        let failed = write(&failing, false).unwrap_err().to_string();
        assert!(failed.contains("make the directory first"), "{failed}");
        assert!(!dir.path().join("c").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
