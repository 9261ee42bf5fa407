//! What packages carry about the command line: manual pages, and completions for shells. The program makes them of what it
//! parses, so they always fit it.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{UPSTREAM_VARIABLE, USUAL_PLACES, pgbouncer};

/// What a page has under a heading: terms, and what they mean.
type Section = (&'static str, &'static [(&'static str, &'static str)]);

/// What pooler(1) says beyond options and commands.
const MORE: &[Section] = &[
    (
        "SIGNALS",
        &[
            ("SIGHUP", "Reads the configuration again. A file with a problem changes nothing."),
            (
                "SIGTERM",
                "Accepts no more connections, and stops when all clients have left, or after shutdown_timeout. A second one stops \
                 at once.",
            ),
            ("SIGINT", "Lets running transactions end, and stops."),
            ("SIGQUIT", "Stops at once."),
            ("SIGUSR1, SIGUSR2", "PAUSE and RESUME of all databases, as on the console."),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "It has done what it was asked for."),
            ("1", "It could not. What was wrong, and what to do, is on standard error or in the log."),
            ("2", "A mistake in the command line."),
        ],
    ),
    (
        "EXAMPLES",
        &[
            ("pooler check -c pooler.toml", "Everything that is wrong with a configuration."),
            ("pooler -c pooler.toml", "Serve."),
            ("psql -h 127.0.0.1 -p 6432 -U admin pooler -c 'SHOW HELP'", "What the console knows."),
        ],
    ),
];

/// The page of a command that `Command::build` has given its full name.
fn page(command: &Command, root: &Command) -> io::Result<Vec<u8>> {
    let version = root.get_version().unwrap_or_default();
    let man = Man::new(command.clone()).source(format!("pooler {version}")).manual("pooler");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut out)?;
    }
    let mut more = Roff::new();
    if command.get_name() == root.get_name() {
        man.render_subcommands_section(&mut out)?;
        let [here, system] = USUAL_PLACES;
        let files = [
            (here, "In the current directory: the configuration, if none is named."),
            (system, "The configuration, if none is named and there is none in the current directory."),
        ];
        section(&mut more, "FILES", &files);
        let variables =
            [(UPSTREAM_VARIABLE, "In the place of --upstream, where others cannot see its password.")];
        section(&mut more, "ENVIRONMENT", &variables);
        MORE.iter().for_each(|(heading, terms)| section(&mut more, heading, terms));
    } else {
        if command.get_name() == "pgbouncer" {
            more.control("SH", ["OPTIONS"]);
            more.control("nf", []);
            more.text([roman(pgbouncer::help("pooler pgbouncer").trim_end())]);
            more.control("fi", []);
        }
        more.control("SH", ["SEE ALSO"]);
        more.text([bold(root.get_name()), roman("(1)")]);
    }
    more.to_writer(&mut out)?;
    Ok(out)
}

fn section(roff: &mut Roff, heading: &str, terms: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (term, meaning) in terms {
        roff.control("TP", []);
        roff.text([bold(*term)]);
        roff.text([roman(*meaning)]);
    }
}

/// `pooler man`: prints pooler(1), or writes that page and those of all commands into a directory.
pub(super) fn man(root: Command, directory: Option<&Path>) -> ExitCode {
    match directory {
        None => told(pages(root).map(|pages| pages.into_iter().next().unwrap_or_default().1)),
        Some(directory) => match pages(root).and_then(|pages| write(directory, &pages)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("cannot write manual pages to {}: {error}", directory.display());
                ExitCode::FAILURE
            }
        },
    }
}

/// File names and texts, that of the program first.
fn pages(root: Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    // It would describe itself as a command with all the others below it.
    let mut root = root.disable_help_subcommand(true);
    root.build();
    let commands = root.get_subcommands().filter(|command| !command.is_hide_set());
    let all = std::iter::once(&root).chain(commands);
    all.map(|command| {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        Ok((format!("{name}.1"), page(command, &root)?))
    })
    .collect()
}

fn write(directory: &Path, pages: &[(String, Vec<u8>)]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    pages.iter().try_for_each(|(name, text)| fs::write(directory.join(name), text))
}

/// `pooler completions`: prints what a shell reads.
pub(super) fn completions(mut root: Command, shell: Shell) -> ExitCode {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut root, "pooler", &mut out);
    told(Ok(out))
}

fn told(text: io::Result<Vec<u8>>) -> ExitCode {
    match text {
        Ok(text) => {
            // Who closed the other end of a pipe does not want to read on.
            let _ = io::stdout().write_all(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
