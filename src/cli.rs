//! The command line: what was asked for, as a value. `main` does it.
//!
//! Called as `pgbouncer`, or with that as its command, it takes PgBouncer's arguments (`pgbouncer`).
//! Without a command pooler runs. `-c` beats `POOLER_UPSTREAM`; with neither the usual places are searched.

mod manual;
pub mod pgbouncer;
pub mod target;

use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;

use self::target::TargetArguments;
use crate::{
    config::{Config, Loaded, Problem, Problems},
    error::Secret,
    net::tls::{ClientTls, ServerTls, TlsError},
};

/// Where the configuration is looked for when none is named.
const USUAL_PLACES: [&str; 2] = ["pooler.toml", "/etc/pooler/pooler.toml"];
/// Takes the place of `--upstream`, so that the password need not show in the list of processes.
const UPSTREAM_VARIABLE: &str = "POOLER_UPSTREAM";

/// What was asked for.
#[derive(Debug)]
pub enum Command {
    /// Serve. `takeover`: in the place of the process that runs.
    Run { source: Source, verbosity: Verbosity, takeover: bool },
    /// Serve, in the place of PgBouncer.
    PgBouncer(pgbouncer::Call),
    /// Say what is wrong with a file. `connect`: and with what it leads to.
    Check { config: PathBuf, connect: bool },
    /// Write a pgbouncer.ini as a pooler.toml.
    Import { file: PathBuf },
    /// Write a configuration that fits a PostgreSQL.
    Init(Init),
    /// Show a running pooler.
    Top(Top),
    /// Show what pooler does, with a PostgreSQL of its own.
    Demo(Demo),
    /// Print pooler(1), or write all manual pages into a directory.
    Man { directory: Option<PathBuf> },
    /// Print completions for a shell.
    Completions { shell: Shell },
}

/// Where the configuration comes from.
#[derive(Debug)]
pub enum Source {
    File(PathBuf),
    /// A pgbouncer.ini, whatever its name.
    Ini(PathBuf),
    Upstream {
        url: Secret<String>,
        listen: Option<String>,
    },
}

/// `-v` and `-q`: instead of the configured log level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// Only warnings and errors.
    Quiet,
    /// As configured.
    #[default]
    Configured,
    /// `debug`.
    Verbose,
    /// `trace`.
    VeryVerbose,
}

impl Verbosity {
    /// The log level, unless the configured one counts.
    pub fn level(self) -> Option<&'static str> {
        match self {
            Self::Quiet => Some("warn"),
            Self::Configured => None,
            Self::Verbose => Some("debug"),
            Self::VeryVerbose => Some("trace"),
        }
    }
}

/// `pooler init`.
#[derive(Args, Clone, Debug)]
pub struct Init {
    #[command(flatten)]
    pub target: TargetArguments,
    /// The database that clients ask for first.
    #[arg(long, short, value_name = "NAME", conflicts_with = "url")]
    pub dbname: Option<String>,
    /// Where to write it, and passwords beside it; `-`: to standard output, with the passwords left to the environment.
    #[arg(long, short, value_name = "FILE", default_value = "pooler.toml")]
    pub output: PathBuf,
    /// Replace files that are there.
    #[arg(long)]
    pub force: bool,
    /// Where pooler is to listen.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6432")]
    pub listen: String,
    /// A replica, where pg_stat_replication does not tell how to reach it; may be repeated.
    #[arg(long, value_name = "HOST:PORT")]
    pub node: Vec<String>,
    /// Cores of the server's machine [default: those of this one, if it is the same].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub cores: Option<u32>,
    /// Who may use the console.
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub admin: String,
}

/// `pooler top`.
#[derive(Args, Clone, Debug)]
pub struct Top {
    #[command(flatten)]
    pub target: TargetArguments,
    /// Seconds between two looks.
    #[arg(long, short = 'n', value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub interval: f64,
    /// Print one look as text (also where standard output is no terminal).
    #[arg(long, visible_alias = "plain")]
    pub once: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("it is from 0.1 to 3600".to_owned()),
    }
}

/// `pooler demo`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Demo {
    /// Clients that are driven at the same time.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,
    /// Server connections that they share.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub pool_size: u32,
    /// How long the clients are driven.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Keep the temporary directory with the database and the logs.
    #[arg(long)]
    pub keep: bool,
}

/// A PostgreSQL connection pooler.
///
/// Serves thousands of clients with a few server connections.
#[derive(Parser, Debug)]
#[command(name = "pooler", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Serve clients (the same as without a command).
    Run(Run),
    /// Check a configuration: tells everything that is wrong with it and what to do.
    Check {
        #[command(flatten)]
        file: FileArgument,
        /// Log in wherever clients would be led to, too: tells what would fail there (users, TLS, roles, limits).
        #[arg(long)]
        connect: bool,
    },
    /// Write the pooler.toml that means what a pgbouncer.ini means, to standard output.
    Import {
        /// The pgbouncer.ini.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Serve in the place of PgBouncer: takes its arguments and its configuration (also when pooler is called as `pgbouncer`).
    #[command(disable_help_flag = true)]
    Pgbouncer {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        arguments: Vec<OsString>,
    },
    /// Ask PostgreSQL what there is, and write a configuration that fits.
    ///
    /// PostgreSQL is named by a URL, by options, or as for psql: DATABASE_URL, PGHOST, PGPORT, PGUSER, PGDATABASE, PGPASSWORD,
    /// PGSSLMODE, PGSSLROOTCERT, ~/.pgpass.
    Init(Init),
    /// Watch a running pooler, or PgBouncer, by its console: pools, rates, nodes, statements.
    ///
    /// Logs in as PGUSER at 127.0.0.1:6432 if nothing else is said (admin_users and stats_users may), with PGPASSWORD or ~/.pgpass.
    Top(Top),
    /// Start PostgreSQL in a temporary directory, pooler in front, and drive clients through it.
    Demo(Demo),
    /// Print the manual page pooler(1).
    Man {
        /// Write it there instead, and those of all commands (pooler-check.1, …).
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Print completions for a shell: source <(pooler completions bash)
    Completions {
        /// The shell.
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
}

#[derive(Args, Debug)]
struct FileArgument {
    /// The configuration [default: ./pooler.toml, else /etc/pooler/pooler.toml].
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct Run {
    #[command(flatten)]
    file: FileArgument,
    /// Serve one database, without a configuration: postgres://user:password@host:port/dbname.
    ///
    /// Clients log in with that user and password, also for SHOW on the console (database `pooler`). Other users of the machine may see arguments: rather set
    /// the environment variable POOLER_UPSTREAM, or leave the password to PGPASSWORD.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    upstream: Option<String>,
    /// Where to listen, with --upstream [default: 127.0.0.1:6432].
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "config")]
    listen: Option<String>,
    /// Log more; twice: everything.
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Log only warnings and errors.
    #[arg(short, long)]
    quiet: bool,
    /// Take over from the process that runs with the same unix_socket_dir and listen_port, which ends when its clients have left.
    #[arg(short = 'R', long)]
    takeover: bool,
}

/// Reads the command line of the process; ends the process on `--help`, `--version` and mistakes.
pub fn parse() -> Command {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    if Path::new(&program).file_name() == Some(OsStr::new("pgbouncer")) {
        return as_pgbouncer(&program.to_string_lossy(), arguments);
    }
    // Not clap's business: options that it does not know follow.
    if std::env::args_os().nth(1).is_some_and(|command| command == "pgbouncer") {
        return as_pgbouncer(&format!("{} pgbouncer", program.to_string_lossy()), arguments.skip(1));
    }
    let environment = |name: &str| std::env::var(name).ok();
    parse_from(std::env::args_os(), &environment, &Path::exists).unwrap_or_else(|error| error.exit())
}

fn as_pgbouncer(program: &str, arguments: impl Iterator<Item = OsString>) -> Command {
    let code = match pgbouncer::parse(program, arguments) {
        Ok(call) => return Command::PgBouncer(call),
        Err(pgbouncer::Instead::Told(text)) => {
            // Who closed the other end of a pipe does not want to read on.
            let _ = std::io::stdout().write_all(text.as_bytes());
            0
        }
        Err(pgbouncer::Instead::Mistake(text)) => {
            let _ = std::io::stderr().write_all(text.as_bytes());
            1
        }
    };
    std::process::exit(code)
}

/// As `parse`, from given arguments.
fn parse_from(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    environment: &dyn Fn(&str) -> Option<String>,
    exists: &dyn Fn(&Path) -> bool,
) -> Result<Command, clap::Error> {
    let arguments = Arguments::try_parse_from(arguments)?;
    match arguments.action {
        None => run(arguments.run, environment, exists),
        Some(Action::Run(arguments)) => run(arguments, environment, exists),
        Some(Action::Check { file: argument, connect }) => {
            Ok(Command::Check { config: file(argument, exists)?, connect })
        }
        Some(Action::Import { file }) => Ok(Command::Import { file }),
        // Caught before: its arguments are not clap's.
        Some(Action::Pgbouncer { .. }) => {
            Err(Arguments::command().error(ErrorKind::InvalidSubcommand, "pgbouncer comes first"))
        }
        Some(Action::Init(init)) => Ok(Command::Init(init)),
        Some(Action::Top(top)) => Ok(Command::Top(top)),
        Some(Action::Demo(demo)) => Ok(Command::Demo(demo)),
        Some(Action::Man { directory }) => Ok(Command::Man { directory }),
        Some(Action::Completions { shell }) => Ok(Command::Completions { shell }),
    }
}

fn run(
    arguments: Run,
    environment: &dyn Fn(&str) -> Option<String>,
    exists: &dyn Fn(&Path) -> bool,
) -> Result<Command, clap::Error> {
    let verbosity = match (arguments.quiet, arguments.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Configured,
        (false, 1) => Verbosity::Verbose,
        (false, _) => Verbosity::VeryVerbose,
    };
    let from_environment = || environment(UPSTREAM_VARIABLE).filter(|url| !url.is_empty());
    let upstream = match arguments.file.config {
        Some(_) => None,
        None => arguments.upstream.or_else(from_environment),
    };
    let source = match upstream {
        Some(url) => Source::Upstream { url: Secret(url), listen: arguments.listen },
        None if arguments.listen.is_some() => {
            let message =
                "--listen goes with --upstream; with a configuration set listen_addr and listen_port";
            return Err(Arguments::command().error(ErrorKind::MissingRequiredArgument, message));
        }
        None => Source::File(file(arguments.file, exists)?),
    };
    Ok(Command::Run { source, verbosity, takeover: arguments.takeover })
}

fn file(argument: FileArgument, exists: &dyn Fn(&Path) -> bool) -> Result<PathBuf, clap::Error> {
    let usual = || USUAL_PLACES.iter().map(PathBuf::from).find(|path| exists(path));
    argument.config.or_else(usual).ok_or_else(|| {
        let message = format!(
            "there is no configuration: neither {} is there\n\n\
             Name one:                    pooler -c FILE   (pooler.toml.example is a start)\n\
             Or serve one database:       pooler --upstream postgres://user:password@host:port/dbname\n\
             Or see what pooler does:     pooler demo",
            USUAL_PLACES.join(" nor ")
        );
        Arguments::command().error(ErrorKind::MissingRequiredArgument, message)
    })
}

impl Source {
    /// Reads the configuration.
    pub fn load(&self) -> Result<Loaded, Problems> {
        match self {
            Self::File(path) => Config::load(path),
            Self::Ini(path) => Config::load_ini(path),
            Self::Upstream { url, listen } => {
                let config = Config::from_upstream(&url.0, listen.as_deref())?;
                Ok(Loaded { config, warnings: Vec::new() })
            }
        }
    }
}

/// `pooler check`: prints everything that is wrong with the file.
pub fn check(path: &Path) -> ExitCode {
    tell(path, load_usable(path))
}

/// Reads a file, and the certificates and keys that it names.
pub fn load_usable(path: &Path) -> Result<Loaded, Problems> {
    Config::load(path).and_then(with_usable_tls)
}

/// Prints what became of that.
pub fn tell(path: &Path, result: Result<Loaded, Problems>) -> ExitCode {
    let code = if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let text = report(path, result);
    // Who closed the other end of a pipe does not want to read on.
    let _ = std::io::stdout().write_all(text.as_bytes());
    code
}

/// `pooler import`: prints the same configuration as a pooler.toml.
pub fn import(path: &Path) -> ExitCode {
    match Config::import(path) {
        Ok(toml) => {
            let _ = std::io::stdout().write_all(toml.as_bytes());
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::FAILURE
        }
    }
}

/// `pooler man`: prints pooler(1), or writes all manual pages.
pub fn man(directory: Option<&Path>) -> ExitCode {
    manual::man(Arguments::command(), directory)
}

/// `pooler completions`: prints what a shell reads.
pub fn completions(shell: Shell) -> ExitCode {
    manual::completions(Arguments::command(), shell)
}

/// Certificates and keys that can be read may still be unfit, or not belong together.
fn with_usable_tls(loaded: Loaded) -> Result<Loaded, Problems> {
    let settings = &loaded.config.settings;
    let unfit = [ClientTls::build(settings).err(), ServerTls::build(settings).err()];
    let file = loaded.config.path.clone().unwrap_or_default();
    let problem = |error: TlsError| Problem::in_file(&file, error.to_string()).remedy(error.hint());
    let problems: Vec<Problem> = unfit.into_iter().flatten().map(problem).collect();
    if problems.is_empty() { Ok(loaded) } else { Err(Problems(problems)) }
}

fn report(path: &Path, result: Result<Loaded, Problems>) -> String {
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    match result {
        Err(problems) => {
            format!("{problems}\n{}: {}\n", path.display(), count(problems.0.len(), "problem"))
        }
        Ok(Loaded { config, warnings }) => {
            let warned: String = warnings.iter().map(warning).collect();
            let databases = count(config.databases.len(), "database");
            let users = count(config.users.len(), "user");
            let warnings = count(warnings.len(), "warning");
            format!("{warned}{}: ok ({databases}, {users}, {warnings})\n", path.display())
        }
    }
}

fn warning(problem: &Problem) -> String {
    format!("warning: {problem}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &str, upstream: Option<&str>, existing: &[&str]) -> String {
        let environment = |name: &str| upstream.filter(|_| name == "POOLER_UPSTREAM").map(str::to_owned);
        let exists = |path: &Path| existing.iter().any(|file| Path::new(file) == path);
        let arguments = std::iter::once("pooler").chain(arguments.split_whitespace());
        match parse_from(arguments, &environment, &exists) {
            Ok(Command::Run { source: Source::File(path), verbosity, takeover }) => {
                let takeover = if takeover { " takeover" } else { "" };
                format!("run {} {verbosity:?}{takeover}", path.display())
            }
            Ok(Command::Run { source: Source::Upstream { url, listen }, .. }) => {
                format!("upstream {} {}", url.0, listen.unwrap_or_default())
            }
            Ok(Command::Run { source: Source::Ini(path), .. }) => format!("ini {}", path.display()),
            Ok(Command::PgBouncer(call)) => format!("{call:?}"),
            Ok(Command::Init(init)) => {
                format!("init {:?} {} {}", init.target.port, init.output.display(), init.node.join(" "))
            }
            Ok(Command::Top(top)) => format!("top {:?} {} {}", top.target.user, top.interval, top.once),
            Ok(Command::Import { file }) => format!("import {}", file.display()),
            Ok(Command::Check { config, connect }) => {
                format!("check {}{}", config.display(), if connect { " connect" } else { "" })
            }
            Ok(Command::Demo(demo)) => {
                format!("demo {} {} {} {}", demo.clients, demo.pool_size, demo.seconds, demo.keep)
            }
            Ok(Command::Man { directory }) => format!("man {directory:?}"),
            Ok(Command::Completions { shell }) => format!("completions {shell}"),
            Err(error) => format!("error {}", error.exit_code()),
        }
    }

    #[test]
    fn commands_are_understood() {
        for (arguments, expected) in [
            ("-c a.toml", "run a.toml Configured"),
            ("--config a.toml -v", "run a.toml Verbose"),
            ("-c a.toml -vv", "run a.toml VeryVerbose"),
            ("run -c a.toml -q", "run a.toml Quiet"),
            ("run -R -c a.toml", "run a.toml Configured takeover"),
            ("-c a.toml --takeover", "run a.toml Configured takeover"),
            ("check -c a.toml", "check a.toml"),
            ("check --connect -c a.toml", "check a.toml connect"),
            ("init", "init None pooler.toml "),
            ("init -p 5433 --node a --node b:1 -o x.toml", "init Some(5433) x.toml a b:1"),
            ("top", "top None 1 false"),
            ("top -U admin -n 0.5 --plain", "top Some(\"admin\") 0.5 true"),
            ("import pgbouncer.ini", "import pgbouncer.ini"),
            ("demo", "demo 200 20 20 false"),
            ("demo --clients 5 --pool-size 2 --seconds 3 --keep", "demo 5 2 3 true"),
            ("man", "man None"),
            ("man --directory d", "man Some(\"d\")"),
            ("completions fish", "completions fish"),
            ("--upstream postgres://h/d", "upstream postgres://h/d "),
            ("run --upstream postgres://h/d --listen *:7000", "upstream postgres://h/d *:7000"),
        ] {
            assert_eq!(parsed(arguments, None, &[]), expected, "{arguments}");
        }
    }

    #[test]
    fn mistakes_end_with_code_2_and_help_with_0() {
        for arguments in [
            "",
            "run",
            "check",
            "--nope",
            "serve",
            "-c a --upstream postgres://h/d",
            "-c a --listen :1",
            "--listen :1",
            "-q -v -c a",
            "demo --clients 0",
            "init postgres://h/d --host h",
            "init -p 0",
            "top -n 0",
            "completions",
            "completions command.com",
        ] {
            assert_eq!(parsed(arguments, None, &[]), "error 2", "{arguments}");
        }
        assert_eq!(parsed("--help", None, &[]), "error 0");
        assert_eq!(parsed("--version", None, &[]), "error 0");
    }

    #[test]
    fn without_a_name_the_usual_places_are_searched_in_order() {
        let both = ["pooler.toml", "/etc/pooler/pooler.toml"];
        assert_eq!(parsed("", None, &both), "run pooler.toml Configured");
        assert_eq!(parsed("check", None, &both), "check pooler.toml");
        assert_eq!(parsed("", None, &both[1..]), "run /etc/pooler/pooler.toml Configured");
    }

    #[test]
    fn the_variable_takes_the_place_of_the_option_unless_a_file_is_named() {
        let url = Some("postgres://env/d");
        assert_eq!(parsed("", url, &["pooler.toml"]), "upstream postgres://env/d ");
        assert_eq!(parsed("--listen :7000", url, &[]), "upstream postgres://env/d :7000");
        assert_eq!(parsed("--upstream postgres://arg/d", url, &[]), "upstream postgres://arg/d ");
        assert_eq!(parsed("-c a.toml", url, &[]), "run a.toml Configured");
        assert_eq!(parsed("", Some(""), &["pooler.toml"]), "run pooler.toml Configured");
    }

    #[test]
    fn having_nothing_to_run_says_what_to_do() {
        let error = parse_from(["pooler"], &|_| None, &|_| false).unwrap_err().to_string();
        for part in ["pooler.toml", "-c FILE", "--upstream postgres://", "pooler demo"] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn a_url_never_shows_in_help_or_debug() {
        let url = "postgres://u:s3cret@h/d";
        let environment = |_: &str| Some(url.to_owned());
        let help = parse_from(["pooler", "--help"], &environment, &|_| false).unwrap_err().to_string();
        assert!(help.contains("POOLER_UPSTREAM") && !help.contains("s3cret"), "{help}");
        let command = parse_from(["pooler", "--upstream", url], &|_| None, &|_| false).unwrap();
        assert!(!format!("{command:?}").contains("s3cret"));
        for command in ["init", "top"] {
            let command = parse_from(["pooler", command, url], &|_| None, &|_| false).unwrap();
            assert!(!format!("{command:?}").contains("s3cret"));
        }
    }

    #[test]
    fn check_reports_problems_or_ok() {
        let load = |text: &str| Config::from_text(Path::new("p.toml"), text, &|_| None);
        let bad = report(Path::new("p.toml"), load("[pooler]\nlisten_port = 0\n[databases.a]\n"));
        assert!(bad.starts_with("p.toml:2: invalid value for listen_port"), "{bad}");
        assert!(bad.ends_with("p.toml: 2 problems\n"), "{bad}");
        let good = report(Path::new("p.toml"), load("[databases.a]\nhost = \"h\"\n"));
        assert!(good.starts_with("warning: p.toml: no user"), "{good}");
        assert!(good.ends_with("p.toml: ok (1 database, 0 users, 1 warning)\n"), "{good}");
    }
}
