//! The files that hold secrets: `password_file`, `auth_file`, and a word about who can read them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    AuthType, User, auth_file,
    file::Reader,
    hba::{BadLine, Hba},
    problem::Problem,
};
use crate::error::Secret;

impl Reader<'_> {
    pub(super) fn read_password_file(
        &mut self,
        table: &str,
        password: &mut Option<Secret<String>>,
        file: Option<PathBuf>,
    ) {
        let Some(file) = file else { return };
        if self.has(table, "password") {
            let problem = self.at(table, "password_file", "password and password_file are both given");
            self.problems.push(problem.remedy("remove one of them"));
        }
        let problem = match fs::read_to_string(&file) {
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                if !text.is_empty() && !text.contains('\0') {
                    *password = Some(Secret(text.to_owned()));
                    self.warn_if_others_can_read(&file);
                    return;
                }
                self.at(table, "password_file", format!("{} contains no password", file.display()))
                    .remedy("write the password into the file, as text on one line")
            }
            Err(error) => self
                .at(table, "password_file", format!("cannot read {}: {error}", file.display()))
                .remedy("give the path of a file that pooler's user can read"),
        };
        self.problems.push(problem);
    }

    /// A warning when everybody on the machine can read a secret.
    pub(super) fn warn_if_others_can_read(&mut self, file: &Path) {
        if fs::metadata(file).is_ok_and(|metadata| metadata.mode() & 0o004 != 0) {
            let problem =
                Problem::in_file(file, "every user of this machine can read the secrets in this file");
            self.warnings.push(problem.remedy(format!("chmod o-rwx {}", file.display())));
        }
    }

    /// Merges the users of `auth_file` into those of `[users]`.
    pub(super) fn read_auth_file(&mut self) {
        let Some(file) = self.config.settings.auth_file.clone() else { return };
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("cannot read auth_file {}: {error}", file.display());
                let problem = self.at("pooler", "auth_file", message);
                self.tell(problem.remedy("give the path of a text file that pooler's user can read"));
                return;
            }
        };
        let (entries, errors) = auth_file::parse(&text);
        for (line, error) in errors {
            let problem = Problem::in_file(&file, error.to_string()).at(Some(line));
            self.tell(problem.remedy("write \"user\" \"password\" (a quote inside is written \"\")"));
        }
        let mut seen = BTreeMap::new();
        for entry in entries {
            let quoted = format!("\"{}\"", entry.user.escape_debug());
            let warning = match seen.insert(entry.user.clone(), entry.line) {
                Some(line) => Some(format!("user {quoted} is already in line {line}; this line counts")),
                None if self.has_password(&entry.user) => Some(format!(
                    "user {quoted} has a password in [users] of {}, too; that one counts",
                    self.file.display()
                )),
                None => None,
            };
            if let Some(message) = warning {
                let warning =
                    Problem::in_file(&file, message).at(Some(entry.line)).remedy("remove one of them");
                self.warnings.push(warning);
            }
            self.add_user(entry);
        }
        self.warn_if_others_can_read(&file);
    }

    /// Reads the rules by which clients are let in, if they count.
    pub(super) fn read_hba(&mut self) {
        if self.config.settings.auth_type != AuthType::Hba {
            return;
        }
        let mut hba = Hba::default();
        match self.config.settings.auth_hba_file.clone() {
            Some(file) => {
                if let Some(text) = self.read_text("auth_hba_file", &file) {
                    let bad = hba.parse(&file, &text);
                    self.tell_bad_lines(&file, bad);
                }
            }
            None => {
                let problem =
                    self.at("pooler", "auth_type", "auth_type is hba, and there is no auth_hba_file");
                self.tell(problem.remedy("set auth_hba_file: without a rule nobody is let in"));
            }
        }
        if let Some(file) = self.config.settings.auth_ident_file.clone()
            && let Some(text) = self.read_text("auth_ident_file", &file)
        {
            let bad = hba.parse_maps(&text);
            self.tell_bad_lines(&file, bad);
        }
        for map in hba.missing_maps() {
            let message =
                format!("map \"{}\" of auth_hba_file is not in auth_ident_file", map.escape_debug());
            let problem = self.at("pooler", "auth_hba_file", message);
            self.warnings.push(problem.remedy("nobody is let in by it: add its lines, or correct the name"));
        }
        self.config.hba = Arc::new(hba);
    }

    fn read_text(&mut self, name: &str, file: &Path) -> Option<String> {
        match fs::read_to_string(file) {
            Ok(text) => Some(text),
            Err(error) => {
                let problem =
                    self.at("pooler", name, format!("cannot read {name} {}: {error}", file.display()));
                self.tell(problem.remedy("give the path of a text file that pooler's user can read"));
                None
            }
        }
    }

    /// PgBouncer passes such lines over. Where one keeps somebody out, that would let more in.
    fn tell_bad_lines(&mut self, file: &Path, bad: Vec<BadLine>) {
        for BadLine { line, message, rejects } in bad {
            let problem = Problem::in_file(file, message).at(Some(line));
            if rejects {
                self.problems.push(problem.remedy("correct the line: without it more would be let in"));
            } else {
                self.tell(problem.remedy("correct the line, or remove it; it lets nobody in"));
            }
        }
    }

    fn add_user(&mut self, entry: auth_file::Entry) {
        let keep = self.has_password(&entry.user);
        let new = || Arc::new(User { name: entry.user.clone(), ..User::default() });
        let user = self.config.users.entry(entry.user.clone()).or_insert_with(new);
        if !keep {
            Arc::make_mut(user).password = entry.password;
        }
    }

    /// Whether `[users.NAME]` gives a password.
    fn has_password(&self, user: &str) -> bool {
        let table = format!("users.{user}");
        self.has(&table, "password") || self.has(&table, "password_file")
    }
}
