//! The pooler.toml as text, with the reasons in comments.

use std::{fmt::Write as _, path::Path};

use super::{sizes::Sizes, survey::Survey};
use crate::{
    config::{
        SslMode, host_with_port, is_console,
        literal::{key, quoted, without_references},
    },
    error::Printable,
};

/// Where pooler listens by default.
pub(super) const ADDRESS: &str = "127.0.0.1";
pub(super) const PORT: u16 = 6432;

/// Where it is to listen.
#[derive(Clone, Debug)]
pub(super) struct Listen {
    pub(super) address: String,
    pub(super) port: u16,
}

/// Where a password is kept.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    /// In a file beside the configuration.
    File(String),
    /// In a variable of the environment.
    Variable(String),
}

/// A text as a literal.
fn literal(text: &str) -> String {
    without_references(&quoted(text))
}

/// Fit for a comment.
fn shown(text: &str) -> String {
    Printable(text).to_string()
}

pub(super) fn toml(
    survey: &Survey,
    sizes: &Sizes,
    listen: &Listen,
    kept: &[(String, Kept)],
    admin: &str,
) -> String {
    let mut out = head(survey);
    pooler(&mut out, survey, sizes, listen, admin);
    for (index, name) in survey.databases.iter().enumerate() {
        database(&mut out, survey, name, index == 0);
    }
    if survey.further_databases > 0 {
        let _ = write!(
            out,
            "\n# {} further databases are left away. [databases.\"*\"] would serve every name.\n",
            survey.further_databases
        );
    }
    for (name, kept) in kept {
        user(&mut out, survey, name, kept, name == admin);
    }
    out
}

fn head(survey: &Survey) -> String {
    let mut out = format!(
        "# Written by `pooler init` {} for PostgreSQL {} at {}.\n\
         # All settings: docs/settings.md. After a change: pooler check --connect, and RELOAD or SIGHUP.\n",
        env!("CARGO_PKG_VERSION"),
        shown(&survey.version),
        shown(&survey.target.to_string()),
    );
    if survey.facts.superuser {
        let _ = write!(
            out,
            "#\n# {} is a superuser. An application is better served by a role of its own, which can do less.\n",
            shown(&survey.target.user)
        );
    }
    out
}

fn pooler(out: &mut String, survey: &Survey, sizes: &Sizes, listen: &Listen, admin: &str) {
    out.push_str("\n[pooler]\n");
    if listen.address == ADDRESS {
        out.push_str(
            "# For this machine alone; \"*\" is for all, better with client_tls_sslmode and a certificate.\n",
        );
    }
    let _ = writeln!(out, "listen_addr = {}\nlisten_port = {}", literal(&listen.address), listen.port);
    out.push('\n');
    for line in &sizes.reason {
        let _ = writeln!(out, "# {line}");
    }
    let _ = writeln!(out, "default_pool_size = {}", sizes.default_pool_size);
    if let Some(number) = sizes.max_user_connections {
        out.push_str("# All pools of a user share what there is.\n");
        let _ = writeln!(out, "max_user_connections = {number}");
    }
    if sizes.pins_fewer() {
        out.push_str("# Beyond the size, in the place of servers that stay with a client (temporary tables and the like).\n");
        let _ = writeln!(out, "pinned_pool_size = {}", sizes.pinned_pool_size);
    }
    out.push('\n');
    let mode = survey.target.sslmode;
    match (mode, survey.encrypted) {
        (SslMode::Prefer, true) => {
            out.push_str(
                "# The server has TLS. \"verify-full\", with server_tls_ca_file, also makes sure who it is.\n\
                 server_tls_sslmode = \"require\"\n",
            );
        }
        (SslMode::Prefer, false) => {
            let remote = if survey.target.is_local() {
                ""
            } else {
                " Passwords and data cross the network in clear text."
            };
            let _ = writeln!(out, "# The server has no TLS.{remote}\nserver_tls_sslmode = \"prefer\"");
        }
        (mode, _) => {
            let _ = writeln!(out, "server_tls_sslmode = {}", literal(mode.word()));
        }
    }
    if let Some(file) = &survey.target.ca_file {
        let _ = writeln!(out, "server_tls_ca_file = {}", literal(&file.to_string_lossy()));
    }
    let _ = write!(
        out,
        "\n# May use every command of the console: psql -h HOST -p {} -U {} pooler\nadmin_users = [{}]\n",
        listen.port,
        shown(admin),
        literal(admin)
    );
}

fn database(out: &mut String, survey: &Survey, name: &str, is_first: bool) {
    let entry = if is_console(name) { format!("{name}_database") } else { name.to_owned() };
    out.push('\n');
    if entry != name {
        let _ = writeln!(out, "# The name \"{}\" leads to the console.", shown(name));
    }
    let _ = writeln!(out, "[databases.{}]", key(&entry));
    let primary = &survey.target;
    if is_first {
        for missing in &survey.missing {
            let _ = writeln!(out, "# {missing}");
        }
    }
    if survey.replicas.is_empty() {
        let _ = writeln!(out, "host = {}", literal(&primary.host));
        if primary.port != 5432 {
            let _ = writeln!(out, "port = {}", primary.port);
        }
        if is_first && !survey.missing.is_empty() {
            let _ = writeln!(
                out,
                "# With replicas, in the place of host and port:\n# nodes = [{}, \"REPLICA:5432\"]",
                literal(&host_with_port(&primary.host, primary.port))
            );
        }
    } else {
        if is_first {
            out.push_str(
                "# Which one is the primary is found out, also after a failover. Reads go to the others.\n",
            );
        }
        out.push_str("nodes = [\n");
        let _ = writeln!(out, "    {},", literal(&host_with_port(&primary.host, primary.port)));
        for replica in &survey.replicas {
            let name = replica.name.as_ref().map(|name| format!("  # {}", shown(name))).unwrap_or_default();
            let _ = writeln!(out, "    {},{name}", literal(&host_with_port(&replica.host, replica.port)));
        }
        out.push_str("]\n");
    }
    if entry != name {
        let _ = writeln!(out, "dbname = {}", literal(name));
    }
}

fn user(out: &mut String, survey: &Survey, name: &str, kept: &Kept, is_admin: bool) {
    out.push('\n');
    let _ = writeln!(out, "[users.{}]", key(name));
    if is_admin && name != survey.target.user {
        out.push_str("# For the console: not known to PostgreSQL.\n");
    } else if survey.target.password.is_none() {
        out.push_str("# PostgreSQL asks for no password; this one is what clients prove to pooler.\n");
    }
    match kept {
        Kept::File(file) => {
            let _ = writeln!(out, "password_file = {}", literal(file));
        }
        Kept::Variable(variable) => {
            let _ = writeln!(out, "password = \"${{{variable}}}\"");
        }
    }
}

/// What to do with it.
pub(super) fn next_steps(
    written: &[String],
    config: &Path,
    listen: &Listen,
    user: &str,
    database: &str,
) -> String {
    let host = match listen.address.as_str() {
        "*" | "0.0.0.0" | "::" => "127.0.0.1",
        address => address,
    };
    let config = word(&config.display().to_string());
    let database = if is_console(database) { format!("{database}_database") } else { database.to_owned() };
    format!(
        "Wrote {}.\n  pooler check --connect -c {config}\n  pooler -c {config}\n  psql -h {host} -p {} -U {} {}\n",
        written.join(", "),
        listen.port,
        word(user),
        word(&database),
    )
}

/// As a word of a shell.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", Printable(&text.replace('\'', "'\\''")))
}
