//! Writes `pooler.toml.example` and `docs/settings.md` from the tables, and checks that both are up to date.
//!
//! After a change of a table: `REGENERATE=1 cargo test --lib config::document`.

use std::{fmt::Write, fs, path::Path};

use super::{
    Config, Settings,
    entries::{DATABASE_KEYS, PEER_KEYS, USER_KEYS},
    settings::SETTINGS,
    table::{Change, Row},
};

/// The part of the example that shows rather than lists.
const BY_EXAMPLE: &str = r#"# pooler.toml: settings of pooler, a PostgreSQL connection pooler.
#
# Generated from the settings table (src/config/settings.rs); `pooler check -c FILE` tells what is wrong with
# a file. Commented-out settings in [pooler] show the default.
#
# Texts may contain ${NAME} or ${NAME:-default}, taken from the environment; a literal "${" is written "$${".
# Times are seconds (15, 0.5) or texts with a unit ("500ms", "15s", "10min", "1h", "1d").
# Relative paths start at the directory of this file.

# Clients that ask for the database "app" get the database "app" at db1.example.com.
[databases.app]
host = "db1.example.com"

# In one line. All clients log in at the server as "reporter" and share one pool of 5 connections.
[databases.reports]
url = "postgres://reporter:${REPORTER_PASSWORD}@db2.example.com:5432/reports?sslmode=require"
pool_size = 5

# Every other database.
#[databases."*"]
#host = "db1.example.com"

# Who may log in. A SCRAM secret (as in pg_authid) is as good as a password; so is a file with all users (auth_file).
[users.alice]
password = "${ALICE_PASSWORD}"

[users.batch]
password = "${BATCH_PASSWORD}"
pool_mode = "session"
query_timeout = "1h"

"#;

/// Lines of comment, at most this wide.
const WIDTH: usize = 100;

/// A doc comment in one line.
fn paragraph(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn comment(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().unwrap();
        if !line.is_empty() && line.len() + word.len() + 3 > WIDTH {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.iter().map(|line| format!("# {line}\n")).collect()
}

fn example() -> String {
    let defaults = Settings::default();
    let mut out = BY_EXAMPLE.to_owned();
    out.push_str("[pooler]\n");
    let mut section = "";
    for row in SETTINGS {
        if row.section != section {
            section = row.section;
            write!(out, "\n## {section}\n").unwrap();
        }
        let restart = if row.change == Change::Restart { " Needs a restart." } else { "" };
        let text = format!("{}{restart}", paragraph(row.doc)).replace('`', "");
        write!(out, "\n{}#{} = {}\n", comment(&text), row.name, (row.literal)(&defaults).unwrap()).unwrap();
    }
    out
}

fn reference() -> String {
    let mut out = String::from(
        "# Settings\n\n\
         Generated from the tables in `src/config` by `REGENERATE=1 cargo test --lib config::document`.\n\n\
         `pooler.toml` has four kinds of tables: `[pooler]` with the settings of the process and the defaults of\n\
         databases and users, `[databases.NAME]`, `[users.NAME]`, and `[peers.ID]`. `pooler check -c FILE` tells everything that is\n\
         wrong with a file, with lines and remedies.\n\n\
         - Texts may contain `${NAME}` or `${NAME:-default}`, taken from the environment; a literal `${` is written `$${`.\n\
         - Times are seconds (`15`, `0.5`) or texts with a unit (`\"500ms\"`, `\"15s\"`, `\"10min\"`, `\"1h\"`, `\"1d\"`).\n\
         - Relative paths start at the directory of the file.\n\
         - Where a user, a database and `[pooler]` set the same thing, the user's counts before the database's before `[pooler]`'s.\n\
         - SIGHUP and `RELOAD` read the file again; a file with a problem changes nothing.\n\n",
    );
    out.push_str("## [pooler]\n");
    let defaults = Settings::default();
    let mut section = "";
    for row in SETTINGS {
        if row.section != section {
            section = row.section;
            write!(out, "\n### {section}\n").unwrap();
        }
        let default = (row.literal)(&defaults).unwrap();
        let change = match row.change {
            Change::Live => "can be changed live",
            Change::Restart => "needs a restart",
        };
        describe(&mut out, row, &format!("Default `{default}`; {change}. "));
    }
    out.push_str("\n## [databases.NAME]\n\n");
    out.push_str(
        "NAME is what clients ask for; `\"*\"` serves every name that is not listed. `pooler` and `pgbouncer` are \
         the console. At most 63 bytes.\n",
    );
    DATABASE_KEYS.iter().for_each(|row| describe(&mut out, row, ""));
    out.push_str("\n## [users.NAME]\n\nNAME is the login name. Users of `auth_file` need no table here.\n");
    USER_KEYS.iter().for_each(|row| describe(&mut out, row, ""));
    out.push_str(
        "\n## [peers.ID]\n\nAnother process that clients may reach by the same address (`so_reuseport`, a load balancer), by its \
         `peer_id`: cancel requests for its clients are passed on to it, with TLS as `server_tls_sslmode` says. All may \
         have the same list: the own id in it is passed over.\n",
    );
    PEER_KEYS.iter().for_each(|row| describe(&mut out, row, ""));
    out
}

fn describe<S>(out: &mut String, row: &Row<S>, facts: &str) {
    write!(out, "\n**`{}`** · {}\n\n{facts}Takes {}.\n", row.name, paragraph(row.doc), (row.form)()).unwrap();
    if !row.note.is_empty() {
        write!(out, "\n{}\n", row.note).unwrap();
    }
}

pub(crate) fn assert_up_to_date(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("REGENERATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{file} is out of date: REGENERATE=1 cargo test --lib config::document");
}

#[test]
fn example_file_is_up_to_date() {
    assert_up_to_date("pooler.toml.example", &example());
}

#[test]
fn reference_page_is_up_to_date() {
    assert_up_to_date("docs/settings.md", &reference());
}

#[test]
fn example_loads_and_its_comments_are_the_defaults() {
    let load =
        |text: &str| Config::from_text(Path::new("example.toml"), text, &|_| Some("secret".to_owned()));
    let loaded = load(&example()).unwrap();
    assert_eq!(loaded.config.settings, Settings::default());
    // Only lines "#name = value" are settings; "# text" is comment.
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(rest) if SETTINGS.iter().any(|row| rest.starts_with(&format!("{} = ", row.name))) => {
            rest.to_owned()
        }
        _ => line.to_owned(),
    };
    let text: Vec<String> = example().lines().map(uncomment).collect();
    let count =
        text.iter().filter(|line| SETTINGS.iter().any(|row| line.starts_with(&format!("{} = ", row.name))));
    assert!(count.count() >= SETTINGS.len());
    let loaded = load(&text.join("\n")).unwrap();
    assert_eq!(loaded.config.settings, Settings::default());
}
