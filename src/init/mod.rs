//! `pooler init`: asks PostgreSQL what there is, and writes a pooler.toml that fits.
//!
//! `survey` asks, `sizes` decides how large the pools may be, `document` writes all that down, and `files` puts it on disk:
//! passwords in files of their own that only their owner can read, and nothing in the place of what is there already.

mod document;
mod files;
mod sizes;
mod survey;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use self::{
    document::{Kept, Listen},
    files::File,
};
use crate::{
    auth,
    cli::{
        self, Init,
        target::{Defaults, Target},
    },
    config::{self, Environment, Problem, Problems},
    error::Secret,
};

/// Stands for standard output.
const STDOUT: &str = "-";

/// Does it.
pub fn run(options: &Init) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("pooler init: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(init(options, &|name| std::env::var(name).ok())) {
        Ok(text) => {
            // Who closed the other end of a pipe does not want to read on.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("pooler init: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Asks and writes; returns what is to be printed.
async fn init(options: &Init, environment: Environment<'_>) -> Result<String, Problem> {
    let listen = listen(&options.listen)?;
    let to_stdout = options.output == Path::new(STDOUT);
    let names = Names::of(options);
    if !to_stdout && !options.force {
        // Before anybody is asked for a password.
        files::refuse_existing([&options.output])?;
    }
    let target = target(options, environment)?;
    let survey = survey::survey(target, options).await?;
    let sizes = sizes::sizes(survey.room());
    let (user, admin) = (survey.target.user.clone(), options.admin.clone());
    let mut kept = Vec::new();
    let mut files = Vec::new();
    for (name, password) in [(&user, survey.target.password.clone()), (&admin, None)] {
        if kept.iter().any(|(known, _)| known == name) {
            continue;
        }
        if to_stdout {
            kept.push((name.clone(), Kept::Variable(names.variable(name))));
            continue;
        }
        let mut file = names.file(name);
        // Names that differ in nothing but what does not fit a file's name.
        if files.iter().any(|known: &File| known.path == file) {
            file.set_extension("2.password");
        }
        let password = match password {
            Some(password) => password,
            None => generated()?,
        };
        kept.push((name.clone(), Kept::File(file_name(&file))));
        files.push(File { path: file, text: Secret(format!("{}\n", password.0)), is_secret: true });
    }
    let text = document::toml(&survey, &sizes, &listen, &kept, &admin);
    if to_stdout {
        return Ok(text);
    }
    files.push(File { path: options.output.clone(), text: Secret(text), is_secret: false });
    files::write(&files, options.force)?;
    let warnings = check(&options.output)?;
    let database = survey.target.dbname.as_str();
    let written: Vec<String> = files.iter().map(|file| file.path.display().to_string()).collect();
    Ok(format!("{warnings}{}", document::next_steps(&written, &options.output, &listen, &user, database)))
}

/// What was written is read as pooler will.
fn check(path: &Path) -> Result<String, Problem> {
    match cli::load_usable(path) {
        Ok(loaded) => Ok(loaded.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect()),
        Err(Problems(problems)) => {
            Err(problems.into_iter().next().unwrap_or_else(|| Problem::of_call("no file")))
        }
    }
}

fn target(options: &Init, environment: Environment<'_>) -> Result<Target, Problem> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    let mut arguments = options.target.clone();
    let named = arguments.host.is_some() || arguments.port.is_some() || arguments.user.is_some();
    if arguments.url.is_none() && !named && options.dbname.is_none() {
        arguments.url = set("DATABASE_URL").map(Secret);
    }
    let defaults = Defaults { host: None, port: 5432, dbname: None, is_postgres: true };
    Target::resolve(&arguments, options.dbname.as_deref(), defaults, environment)
}

fn listen(text: &str) -> Result<Listen, Problem> {
    match config::parse_listen(text, document::PORT) {
        Some((address, port)) => {
            Ok(Listen { address: address.unwrap_or_else(|| document::ADDRESS.to_owned()), port })
        }
        None => Err(Problem::of_call("--listen: this is not an address and a port")
            .remedy("write ADDR:PORT, for example 127.0.0.1:6432, [::1]:6432 or *:6432")),
    }
}

/// Letters and digits that nobody guesses.
fn generated() -> Result<Secret<String>, Problem> {
    let bytes: [u8; 24] = auth::random()
        .map_err(|_| Problem::of_call("the system has no random numbers").remedy("see /dev/urandom"))?;
    Ok(Secret(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Names of what is kept beside the configuration.
struct Names {
    directory: PathBuf,
}

impl Names {
    fn of(options: &Init) -> Self {
        Self { directory: options.output.parent().unwrap_or(Path::new("")).to_owned() }
    }

    /// Where a user's password is kept.
    fn file(&self, user: &str) -> PathBuf {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let name: String = user.chars().map(|c| if fits(c) { c } else { '_' }).collect();
        self.directory.join(format!("{name}.password"))
    }

    /// The variable that holds a user's password.
    fn variable(&self, user: &str) -> String {
        let fits = |c: char| c.is_ascii_alphanumeric();
        let name: String = user.chars().map(|c| if fits(c) { c.to_ascii_uppercase() } else { '_' }).collect();
        format!("{name}_PASSWORD")
    }
}
