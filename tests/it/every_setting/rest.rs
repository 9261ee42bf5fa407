//! Settings that make no difference, which is told, or that are refused; and a few that only a start shows.

use std::time::Duration;

use super::Ground;
use crate::{pgbouncer::err, support::raw::PATIENCE};

/// Any value is taken.
const TOLD: &[(&str, &str)] = &[
    ("client_tls_dheparams", "none"),
    ("client_tls_ecdhcurve", "none"),
    ("job_name", "x"),
    ("pkt_buf", "8192"),
    ("sbuf_loopcnt", "1"),
    ("tcp_defer_accept", "0"),
    ("tcp_socket_buffer", "8192"),
    ("track_extra_parameters", "search_path"),
];

/// Only the value that means nothing is taken.
const REFUSED: &[(&str, &str)] = &[("conffile", "/elsewhere"), ("resolv_conf", "/elsewhere")];

/// Shown as they are from RELOAD on. Where lines of syslog go to, `/dev/log`, is the machine's; what others do is in `directories::`,
/// `hosts::`, `peers::`, `modes::`, `suspend::`.
const SHOWN: &[(&str, &str, &str)] = &[
    ("auth_ldap_options", "ldapserver=x", "NULL"),
    ("autodb_idle_timeout", "1", "3600"),
    ("dns_max_ttl", "1", "15"),
    ("dns_nxdomain_ttl", "1", "15"),
    ("dns_zone_check_period", "1", "0"),
    ("login_notify_message", "hello", ""),
    ("peer_id", "1", "0"),
    ("pool_idle_timeout", "1", "0"),
    ("query_wait_notify", "1", "5"),
    ("server_fast_close", "1", "0"),
    ("suspend_timeout", "1", "10"),
    ("syslog", "1", "0"),
    ("syslog_facility", "local3", "daemon"),
    ("syslog_ident", "another", "pgbouncer"),
];

/// Names of the system: one that it does not know ends the start; the own one does not.
const NAMES: &[(&str, &str)] = &[
    ("unix_socket_group", "there is no such group as unix_socket_group names"),
    ("user", "could not find user 'nobody_knows' to switch to"),
];

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let pairs = [TOLD, REFUSED, NAMES].into_iter().flatten().map(|(name, _)| *name);
    // By a start only: see `modes::`.
    pairs.chain(SHOWN.iter().map(|(name, ..)| *name)).chain(["disable_pqexec"])
}

fn shown(ground: &Ground, name: &str) -> String {
    let rows = ground.admin().sql("SHOW CONFIG");
    let row = rows.iter().find_map(|row| row.strip_prefix(&format!("{name}|")));
    row.unwrap_or_default().split('|').next().unwrap_or_default().to_owned()
}

pub(super) fn try_all() {
    let ground = Ground::new();
    let running = ground.start("");
    for (name, value) in TOLD {
        let told = format!("{name} makes no difference: ");
        let line = format!("{name} = {value}");
        assert!(!ground.logged(|| ground.reload(""), &told, Duration::ZERO), "{name} is told without it");
        assert!(ground.logged(|| ground.reload(&line), &told, PATIENCE), "{name} is not told");
        assert_eq!(ground.login().sql("SELECT 1"), ["1"], "{name}");
    }
    ground.reload("");
    for (name, value) in REFUSED {
        let before = shown(&ground, name);
        ground.write(&format!("{name} = {value}\nmax_client_conn = 7"));
        let refused = ground.admin().try_sql("RELOAD").unwrap_err();
        assert!(refused.field(b'M').contains("RELOAD failed"), "{name}: {refused:?}");
        assert!(refused.field(b'D').contains(name), "{name}: {refused:?}");
        // Nothing of the file counts.
        assert_eq!((shown(&ground, name), shown(&ground, "max_client_conn")), (before, "100".to_owned()));
    }
    for (name, value, default) in SHOWN {
        ground.reload("");
        assert_eq!(shown(&ground, name), *default);
        ground.reload(&format!("{name} = {value}"));
        assert_eq!(shown(&ground, name), *value);
        assert_eq!(ground.login().sql("SELECT 1"), ["1"], "{name}");
    }
    ground.reload("");
    running.stop();
    for (name, error) in NAMES {
        let own = ground.stage.filled(if *name == "user" { "@USER@" } else { "@GROUP@" });
        ground.start(&format!("{name} = {own}")).stop();
        ground.write(&format!("{name} = nobody_knows"));
        let output = ground.stage.run(ground.stage.path("pgbouncer").to_str().unwrap(), &["pgbouncer.ini"]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(err(&output).contains(error), "{name}: {}", err(&output));
    }
}
