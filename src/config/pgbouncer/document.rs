//! Writes `docs/pgbouncer.md`: what is to be known by whoever comes from PgBouncer. The lists of settings come from the table.
//!
//! After a change: `REGENERATE=1 cargo test --lib config::pgbouncer::document`.

use std::fmt::Write as _;

use super::parameters::{Meaning, PARAMETERS};
use crate::config::document::assert_up_to_date;

const HEAD: &str = "\
# From PgBouncer

Generated from `src/config/pgbouncer` by `REGENERATE=1 cargo test --lib config::pgbouncer::document`.

pooler reads pgbouncer.ini, userlist.txt, HBA and ident files as they are, and takes PgBouncer's arguments when it is called as
`pgbouncer`:

```sh
ln -s /usr/local/bin/pooler /usr/local/sbin/pgbouncer
pooler check -c /etc/pgbouncer/pgbouncer.ini          # whether it would start, and what is different
pgbouncer -d /etc/pgbouncer/pgbouncer.ini             # or: pooler pgbouncer -d …
pooler import /etc/pgbouncer/pgbouncer.ini >pooler.toml
```

Defaults are PgBouncer's then (`pool_mode = session`, `max_client_conn = 100`, …), units too; SHOW CONFIG, SET and RELOAD
speak of its settings. Pid file, log file and lines, exit codes, signals and sd_notify are as there. `pooler import` writes the
same configuration as a pooler.toml, with comments where something better is at hand.

What watches PgBouncer works unchanged: Debian's `prometheus-pgbouncer-exporter` (that of Debian 12 and that of 13), the checks of
`check-postgres` (`pgb_pool_…`, `pgbouncer_backends`, `pgbouncer_checksum`), the plugins of munin (`pgbouncer_connections`,
`pgbouncer_requests`).

A setting that pooler has no counterpart for is refused at the start by its name, with what to do, unless nothing that matters
depends on it.
";

/// What differs, how it is in PgBouncer, how it is here and why, and what switches it.
const DEVIATIONS: &[[&str; 4]] = &[
    [
        "Online restart (`-R`)",
        "Takes over all sockets, drops those with TLS; gone in 1.26",
        "Takes over listening sockets, the pid file, and clients between two transactions. Those with TLS, in session mode, with temporary tables, LISTEN and the like, or of databases with nodes stay with the old process until they leave; cancel requests find them there. Servers stay, too. Not from a PgBouncer",
        "`shutdown_timeout` (pooler.toml) ends them",
    ],
    [
        "Sockets from systemd at a shutdown",
        "Closed; on unix sockets the console can still be reached",
        "Whoever connects waits for the next process",
        "",
    ],
    [
        "Clients whose login is under way at a shutdown",
        "Refused, or reset",
        "Served, as those who were connected before",
        "",
    ],
    [
        "SIGTERM",
        "Waits for clients for ever",
        "Up to `shutdown_timeout`, if that is set",
        "`shutdown_timeout` (pooler.toml)",
    ],
    [
        "Several processes on one machine",
        "To use more than one core",
        "One process uses all cores. Peers work all the same, also mixed with PgBouncer",
        "`workers` (pooler.toml); `peer_id`, `[peers]`",
    ],
    [
        "Lists of hosts",
        "One that cannot be reached keeps the pool waiting for `server_login_retry` each time it has its turn",
        "It is passed over at once, or when it has not answered after a second, and tried again after 100 ms, doubled up to `server_login_retry`",
        "`nodes` (pooler.toml) for a primary and its replicas",
    ],
    [
        "Names with several addresses",
        "In turns, IPv4 and IPv6 alike",
        "In turns, but only those of the kind that the system prefers; one that cannot be reached, or does not answer within a second, is passed over. Names are looked up as the system does it, and again when no address can be reached",
        "`dns_max_ttl`",
    ],
    [
        "TLS",
        "OpenSSL: also 1.0 and 1.1, and many suites",
        "1.2 and 1.3, suites with ECDHE and AES-GCM or ChaCha20",
        "`client_tls_ciphers` and the like choose among these",
    ],
    [
        "`server_tls_sslmode = require` with `server_tls_ca_file`",
        "The file makes no difference",
        "As in libpq, the certificate has to be signed by an authority of the file",
        "`server_tls_ca_file`",
    ],
    [
        "Bad values",
        "`pool_size=x` is 0, which is no limit; ports beyond 65535 and negative sizes are taken",
        "Refused: they never mean what they say",
        "",
    ],
    [
        "Errors of the file",
        "The first one, with connect strings and their passwords",
        "All of them, with what to do; never a connect string",
        "",
    ],
    ["Encoding of the file", "Any", "UTF-8, but in comments", ""],
    ["Database `pooler`", "As any other", "Leads to the console, as `pgbouncer` does", ""],
    [
        "RELOAD",
        "Settings without a default (auth_file, auth_user, …) keep their last value when they are removed from the file",
        "What is removed is gone",
        "",
    ],
    ["SET of what needs a restart", "Says SET, and changes nothing", "An error", ""],
    [
        "An address in use",
        "A warning, if another one is free",
        "Ends the start: half a pooler is hard to notice. (An address that the machine does not have is a warning if others of the same entry are there.)",
        "`listen_addr`",
    ],
    [
        "Unix socket that does not answer",
        "Taken over",
        "Ends the start, as long as somebody listens there",
        "`unix_socket_dir`",
    ],
    [
        "HBA lines that cannot be read",
        "Passed over",
        "The same, but for those with `reject`, which end the start: without them more would be let in",
        "",
    ],
    [
        "LDAP",
        "Names with characters that would have to be escaped are refused; servers also by DNS (SRV); one login at a time",
        "They are escaped; servers by name; what is wrong with the options is told at the start",
        "`auth_ldap_options`",
    ],
    [
        "PAM",
        "Service `pgbouncer`; not in the HBA file; one login at a time",
        "The same service, also in the HBA file; libpam is loaded when it is needed",
        "`auth_pam_service` (pooler.toml), `pamservice=` in the HBA file",
    ],
    [
        "Certificates as proof",
        "Common name or subject alternative names, also patterns (`*.example.net`)",
        "Common name or alternative names of DNS, which are no patterns",
        "",
    ],
    ["SHOW CONFIG", "Shows `ldapbindpasswd`", "Shows `auth_ldap_options` without it", ""],
    ["Unknown users", "`no such user` with auth_query", "The dialogue and the error of a wrong password", ""],
    [
        "auth_query",
        "On servers of the pool; the answer's name becomes the user",
        "On a session of its own for each database and auth_user, closed after 10 s without use; an answer about somebody else counts as none",
        "`auth_query_lifetime` keeps answers (pooler.toml)",
    ],
    ["Errors", "SQLSTATE 08P01", "PostgreSQL's words and SQLSTATE where it has them", ""],
    [
        "Startup parameters",
        "Unknown ones are refused",
        "Passed on to the server, which decides",
        "`ignore_startup_parameters`",
    ],
    [
        "Session state in transaction mode",
        "Stays on the server, for whoever comes next",
        "Follows the client, or keeps its server",
        "`session_state` (pooler.toml)",
    ],
    [
        "`max_packet_size`",
        "Every message",
        "Messages that have to be read as a whole; others are streamed",
        "",
    ],
    [
        "Connecting to servers",
        "One attempt at a time for each pool; 15 s after a failure",
        "Up to four for each worker; 100 ms after the first failure, doubled up to `server_login_retry`",
        "`max_connect_attempts` (pooler.toml)",
    ],
    [
        "Log",
        "Local time; address of a structure (`C-0x55d…`)",
        "UTC; the `id` of SHOW CLIENTS and SHOW SERVERS in that place (0 during the login)",
        "`log_format` (pooler.toml)",
    ],
    [
        "SHOW DATABASES, STATS, CLIENTS, SERVERS",
        "Columns of 1.25",
        "The same and, behind them, `reserve_pool` and `total_requests`, which older tools ask for, `route`, `node` and `class`, and `pinned`",
        "",
    ],
    [
        "SUSPEND",
        "There up to 1.25. Nobody can connect meanwhile",
        "There. The console can be reached; other clients log in, and wait with their first request",
        "",
    ],
    ["SHOW FDS", "There up to 1.25, for `-R`", "Not there: `-R` does without", ""],
    [
        "`dns_zone_check_period`",
        "How often serial numbers of zones are asked for, and the names of those that have changed looked up",
        "How often names are looked up although nobody asks for connections",
        "",
    ],
    ["SHOW MEM, DNS_ZONES", "Rows of objects in memory, zones", "No rows: there is nothing of that", ""],
];

fn page() -> String {
    let mut out = HEAD.to_owned();
    out.push_str("\n## What differs\n\n| | PgBouncer | pooler | switch |\n|---|---|---|---|\n");
    for [what, there, here, switch] in DEVIATIONS {
        let _ = writeln!(out, "| {what} | {there} | {here} | {switch} |");
    }
    out.push_str("\n## Settings without effect\n\nAny value is taken; another one than the default is told in the log.\n\n| | why |\n|---|---|\n");
    for parameter in PARAMETERS {
        if let Meaning::Unused(why) = parameter.meaning {
            let _ = writeln!(out, "| `{}` | {why} |", parameter.name);
        }
    }
    out.push_str("\n## Settings that are refused\n\n| | taken | otherwise |\n|---|---|---|\n");
    for parameter in PARAMETERS {
        if let Meaning::Only(values, remedy) = parameter.meaning {
            let quote =
                |value: &&str| if value.is_empty() { "empty".to_owned() } else { format!("`{value}`") };
            let values: Vec<_> = values.iter().map(quote).collect();
            let _ = writeln!(out, "| `{}` | {} | {remedy} |", parameter.name, values.join(", "));
        }
    }
    out.push_str("\n## Settings that mean the same\n\n");
    let is_same = |meaning| matches!(meaning, Meaning::Same | Meaning::Own);
    let same = PARAMETERS.iter().filter(|p| is_same(p.meaning) && p.name != "conffile");
    let names: Vec<_> = same.map(|parameter| format!("`{}`", parameter.name)).collect();
    let _ = writeln!(out, "{}.", names.join(", "));
    out
}

#[test]
fn page_is_up_to_date() {
    assert_up_to_date("docs/pgbouncer.md", &page());
}
