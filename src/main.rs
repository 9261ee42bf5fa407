//! The program: reads the command line and does what it says.

use std::process::ExitCode;

use pooler::cli::{self, Command};

fn main() -> ExitCode {
    match cli::parse() {
        Command::Run { source, verbosity, takeover } => pooler::app::run(source, verbosity, takeover),
        Command::PgBouncer(call) => pooler::app::run_as_pgbouncer(call),
        Command::Import { file } => cli::import(&file),
        Command::Check { config, connect: false } => cli::check(&config),
        Command::Check { config, connect: true } => pooler::inspect::run(&config),
        Command::Init(options) => pooler::init::run(&options),
        Command::Top(options) => pooler::top::run(&options),
        Command::Man { directory } => cli::man(directory.as_deref()),
        Command::Completions { shell } => cli::completions(shell),
        Command::Demo(options) => pooler::demo::run(&options),
    }
}
