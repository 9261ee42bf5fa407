//! PgBouncer's command line, as getopt_long(3) reads it there: options and file in any order, short ones together,
//! long ones shortened.

use std::{ffi::OsString, path::PathBuf};

use super::Verbosity;

/// The PgBouncer that pooler takes the place of.
pub(crate) const VERSION: &str = concat!("PgBouncer 1.25.2 (pooler ", env!("CARGO_PKG_VERSION"), ")");

/// A start as PgBouncer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub config: PathBuf,
    /// `-d`
    pub daemon: bool,
    /// `-q`
    pub quiet: bool,
    /// `-v`
    pub verbosity: Verbosity,
    /// `-u`
    pub user: Option<String>,
    /// `-R`
    pub takeover: bool,
}

/// What else may come of a command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Instead {
    /// To standard output, and a good end.
    Told(String),
    /// To standard error, and code 1.
    Mistake(String),
}

/// Long names, their short ones, and whether a value belongs to them.
const OPTIONS: &[(&str, char, bool)] = &[
    ("daemon", 'd', false),
    ("help", 'h', false),
    ("quiet", 'q', false),
    ("reboot", 'R', false),
    ("user", 'u', true),
    ("verbose", 'v', false),
    ("version", 'V', false),
];

/// Reads the arguments behind the program's name.
pub(super) fn parse(program: &str, arguments: impl IntoIterator<Item = OsString>) -> Result<Call, Instead> {
    let mut read = Read { program, daemon: false, quiet: false, verbose: 0, user: None, takeover: false };
    let mut files = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().unwrap_or_default().to_owned();
        if text == "--" {
            files.extend(arguments.by_ref());
        } else if let Some(long) = text.strip_prefix("--") {
            read.long(long, &mut arguments)?;
        } else if let Some(short) = text.strip_prefix('-').filter(|short| !short.is_empty()) {
            read.short(short, &mut arguments)?;
        } else {
            files.push(argument);
        }
    }
    match <[OsString; 1]>::try_from(files) {
        Ok([file]) => Ok(Call {
            config: PathBuf::from(file),
            daemon: read.daemon,
            quiet: read.quiet,
            verbosity: match read.verbose {
                0 => Verbosity::Configured,
                1 => Verbosity::Verbose,
                _ => Verbosity::VeryVerbose,
            },
            user: read.user,
            takeover: read.takeover,
        }),
        Err(_) => Err(read.mistake("no configuration file specified")),
    }
}

struct Read<'a> {
    program: &'a str,
    daemon: bool,
    quiet: bool,
    verbose: u8,
    user: Option<String>,
    takeover: bool,
}

impl Read<'_> {
    fn mistake(&self, what: &str) -> Instead {
        let program = self.program;
        Instead::Mistake(format!("{program}: {what}\nTry \"{program} --help\" for more information.\n"))
    }

    fn long(&mut self, text: &str, rest: &mut impl Iterator<Item = OsString>) -> Result<(), Instead> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let exact = OPTIONS.iter().filter(|(long, ..)| *long == name);
        let begun = OPTIONS.iter().filter(|(long, ..)| long.starts_with(name));
        let found: Vec<_> = if exact.clone().count() == 1 { exact.collect() } else { begun.collect() };
        let (long, short, takes) = match found.as_slice() {
            [] => return Err(self.mistake(&format!("unrecognized option '--{name}'"))),
            [option] => **option,
            several => {
                let names: Vec<_> = several.iter().map(|(long, ..)| format!("'--{long}'")).collect();
                let names = names.join(" ");
                return Err(self.mistake(&format!("option '--{name}' is ambiguous; possibilities: {names}")));
            }
        };
        match (takes, value) {
            (false, Some(_)) => Err(self.mistake(&format!("option '--{long}' doesn't allow an argument"))),
            (true, None) => match rest.next() {
                Some(value) => self.apply(short, value.to_string_lossy().into_owned()),
                None => Err(self.mistake(&format!("option '--{long}' requires an argument"))),
            },
            (_, value) => self.apply(short, value.unwrap_or_default()),
        }
    }

    fn short(&mut self, text: &str, rest: &mut impl Iterator<Item = OsString>) -> Result<(), Instead> {
        for (at, letter) in text.char_indices() {
            let Some((_, _, takes)) = OPTIONS.iter().find(|(_, short, _)| *short == letter) else {
                return Err(self.mistake(&format!("invalid option -- '{letter}'")));
            };
            if !takes {
                self.apply(letter, String::new())?;
                continue;
            }
            let here =
                text.get(at + letter.len_utf8()..).filter(|value| !value.is_empty()).map(str::to_owned);
            let value = here.or_else(|| rest.next().map(|value| value.to_string_lossy().into_owned()));
            let missing = || self.mistake(&format!("option requires an argument -- '{letter}'"));
            let value = value.ok_or_else(missing)?;
            return self.apply(letter, value);
        }
        Ok(())
    }

    fn apply(&mut self, option: char, value: String) -> Result<(), Instead> {
        match option {
            'd' => self.daemon = true,
            'q' => self.quiet = true,
            'v' => self.verbose = self.verbose.saturating_add(1),
            'u' => self.user = Some(value),
            'V' => return Err(Instead::Told(format!("{VERSION}\n"))),
            'h' => return Err(Instead::Told(help(self.program))),
            _ => self.takeover = true,
        }
        Ok(())
    }
}

pub(super) fn help(program: &str) -> String {
    format!(
        "{program} is a connection pooler for PostgreSQL.\n\n\
         Usage:\n  {program} [OPTION]... CONFIG_FILE\n\n\
         Options:\n\
         \x20 -d, --daemon         run in background (as a daemon)\n\
         \x20 -q, --quiet          run quietly\n\
         \x20 -R, --reboot         take over from the process that runs\n\
         \x20 -u, --user=USERNAME  assume identity of USERNAME\n\
         \x20 -v, --verbose        increase verbosity\n\
         \x20 -V, --version        show version, then exit\n\
         \x20 -h, --help           show this help, then exit\n\n\
         This is pooler, called as PgBouncer; it reads the same configuration file.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Call, Instead> {
        parse("pgbouncer", line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn calls_are_read_as_by_getopt() {
        for (line, daemon, quiet, verbosity, user) in [
            ("a.ini", false, false, Verbosity::Configured, None),
            ("-d a.ini", true, false, Verbosity::Configured, None),
            ("a.ini -d -q", true, true, Verbosity::Configured, None),
            ("-dqv a.ini", true, true, Verbosity::Verbose, None),
            ("-v -vv a.ini", false, false, Verbosity::VeryVerbose, None),
            ("-u me a.ini", false, false, Verbosity::Configured, Some("me")),
            ("-dume a.ini", true, false, Verbosity::Configured, Some("me")),
            ("--user me --daemon a.ini", true, false, Verbosity::Configured, Some("me")),
            ("--us=me --da -- a.ini", true, false, Verbosity::Configured, Some("me")),
        ] {
            let user = user.map(str::to_owned);
            let expected = Call { config: "a.ini".into(), daemon, quiet, verbosity, user, takeover: false };
            assert_eq!(read(line), Ok(expected), "{line}");
        }
        for line in ["-R a.ini", "-dR a.ini", "--reboot a.ini"] {
            assert!(read(line).is_ok_and(|call| call.takeover), "{line}");
        }
    }

    #[test]
    fn mistakes_are_told_as_by_getopt() {
        for (line, expected) in [
            ("", "no configuration file specified"),
            ("a b", "no configuration file specified"),
            ("--nope a", "unrecognized option '--nope'"),
            ("-qx a", "invalid option -- 'x'"),
            ("a -u", "option requires an argument -- 'u'"),
            ("--user", "option '--user' requires an argument"),
            ("--quiet=x a", "option '--quiet' doesn't allow an argument"),
            ("--ver a", "option '--ver' is ambiguous; possibilities: '--verbose' '--version'"),
        ] {
            let Err(Instead::Mistake(text)) = read(line) else { panic!("{line}") };
            assert!(text.starts_with(&format!("pgbouncer: {expected}")), "{line}: {text}");
            assert!(text.ends_with("\nTry \"pgbouncer --help\" for more information.\n"), "{text}");
        }
    }

    #[test]
    fn help_and_version_are_told() {
        for (line, expected) in [
            ("-V", "PgBouncer 1."),
            ("--vers", "PgBouncer 1."),
            ("-h", "pgbouncer is a connection pooler"),
            ("-dh a", "pgbouncer is a connection pooler"),
        ] {
            let Err(Instead::Told(text)) = read(line) else { panic!("{line}") };
            assert!(text.starts_with(expected), "{line}: {text}");
        }
    }
}
