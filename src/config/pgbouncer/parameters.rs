//! The one table of `[pgbouncer]`: every setting of PgBouncer 1.25 and 1.26, its default there, and what becomes of it.
//!
//! The order is that of PgBouncer's SHOW CONFIG.

use Form::{Flag, Int, Mode, Text, Time, Words};
use Meaning::{Only, Own, Same, Unused};

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As strtol(3) with base 0: `010` is octal, `0x10` hexadecimal.
    Int,
    /// A number; other than 0: yes.
    Flag,
    /// A number; SHOW CONFIG prints it in decimal.
    Mode,
    /// Seconds, with decimals.
    Time,
    Text,
    /// Some words in any case.
    Words,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// pooler's setting of the same name.
    Same,
    /// The reader knows.
    Own,
    /// Any value is as good as any other, for this reason. Other than the default is told at the start.
    Unused(&'static str),
    /// Only these values mean what they mean in PgBouncer; others are refused, with this remedy.
    Only(&'static [&'static str], &'static str),
}

/// One setting.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// As SHOW CONFIG prints it; `None`: NULL.
    pub(super) default: Option<&'static str>,
    pub(super) form: Form,
    /// RELOAD and SET change it.
    pub(super) changeable: bool,
    pub(super) meaning: Meaning,
}

const fn live(name: &'static str, default: &'static str, form: Form, meaning: Meaning) -> Parameter {
    Parameter { name, default: Some(default), form, changeable: true, meaning }
}

const fn null(name: &'static str, form: Form, meaning: Meaning) -> Parameter {
    Parameter { name, default: None, form, changeable: true, meaning }
}

const fn fixed(name: &'static str, default: &'static str, form: Form, meaning: Meaning) -> Parameter {
    Parameter { name, default: Some(default), form, changeable: false, meaning }
}

const NONE: &[&str] = &[""];
const CURVES: &str = "X25519, P-256 and P-384 are always offered";

/// Every setting.
#[rustfmt::skip]
pub(super) static PARAMETERS: &[Parameter] = &[
    live("admin_users", "", Text, Same),
    live("application_name_add_host", "0", Flag, Same),
    null("auth_dbname", Text, Same),
    null("auth_file", Text, Same),
    live("auth_hba_file", "", Text, Same),
    null("auth_ident_file", Text, Same),
    null("auth_ldap_options", Text, Same),
    live("auth_query", AUTH_QUERY, Text, Same),
    live("auth_type", "md5", Words, Own),
    null("auth_user", Text, Same),
    live("autodb_idle_timeout", "3600", Time, Same),
    live("cancel_wait_timeout", "10", Time, Same),
    live("client_idle_timeout", "0", Time, Same),
    live("client_login_timeout", "60", Time, Same),
    null("client_tls13_ciphers", Text, Same),
    live("client_tls_ca_file", "", Text, Same),
    live("client_tls_cert_file", "", Text, Same),
    live("client_tls_ciphers", "default", Text, Same),
    live("client_tls_dheparams", "auto", Text, Unused("no cipher suite with DHE is offered")),
    live("client_tls_ecdhcurve", "auto", Text, Unused(CURVES)),
    live("client_tls_key_file", "", Text, Same),
    live("client_tls_protocols", "secure", Text, Same),
    live("client_tls_sslmode", "disable", Words, Same),
    null("conffile", Text, Own),
    live("default_pool_size", "20", Int, Same),
    fixed("disable_pqexec", "0", Flag, Same),
    live("dns_max_ttl", "15", Time, Same),
    live("dns_nxdomain_ttl", "15", Time, Same),
    live("dns_zone_check_period", "0", Time, Same),
    live("idle_transaction_timeout", "0", Time, Same),
    live("ignore_startup_parameters", "", Text, Same),
    fixed("job_name", "pgbouncer", Text, Unused("a name for services of Windows")),
    fixed("listen_addr", "", Text, Same),
    fixed("listen_backlog", "128", Int, Same),
    fixed("listen_port", "6432", Int, Same),
    live("log_connections", "1", Flag, Same),
    live("log_disconnections", "1", Flag, Same),
    live("log_pooler_errors", "1", Flag, Same),
    live("log_stats", "1", Flag, Same),
    live("logfile", "", Text, Same),
    live("login_notify_message", "", Text, Same),
    live("max_client_conn", "100", Int, Same),
    live("max_db_client_connections", "0", Int, Same),
    live("max_db_connections", "0", Int, Same),
    live("max_packet_size", "2147483647", Int, Own),
    live("max_prepared_statements", "200", Int, Same),
    live("max_user_client_connections", "0", Int, Same),
    live("max_user_connections", "0", Int, Same),
    live("min_pool_size", "0", Int, Same),
    live("peer_id", "0", Int, Same),
    fixed("pidfile", "", Text, Same),
    fixed("pkt_buf", "4096", Int, Unused("buffers are as large as what they hold")),
    live("pool_idle_timeout", "0", Time, Same),
    live("pool_mode", "session", Words, Same),
    live("query_timeout", "0", Time, Same),
    live("query_wait_notify", "5", Int, Same),
    live("query_wait_timeout", "120", Time, Same),
    live("reserve_pool_size", "0", Int, Same),
    live("reserve_pool_timeout", "5", Time, Same),
    fixed("resolv_conf", "", Text, Only(NONE, "remove it: names are looked up as the system does it, by /etc/resolv.conf")),
    live("sbuf_loopcnt", "5", Int, Unused("each client gets its turn without it")),
    live("scram_iterations", "4096", Int, Same),
    live("server_check_delay", "30", Time, Same),
    live("server_check_query", "<empty>", Text, Same),
    live("server_connect_timeout", "15", Time, Same),
    live("server_fast_close", "0", Flag, Same),
    live("server_idle_timeout", "600", Time, Same),
    live("server_lifetime", "3600", Time, Same),
    live("server_login_retry", "15", Time, Same),
    live("server_reset_query", "DISCARD ALL", Text, Same),
    live("server_reset_query_always", "0", Flag, Same),
    live("server_round_robin", "0", Flag, Same),
    null("server_tls13_ciphers", Text, Same),
    live("server_tls_ca_file", "", Text, Same),
    live("server_tls_cert_file", "", Text, Same),
    live("server_tls_ciphers", "default", Text, Same),
    live("server_tls_key_file", "", Text, Same),
    live("server_tls_protocols", "secure", Text, Same),
    live("server_tls_sslmode", "prefer", Words, Same),
    fixed("so_reuseport", "0", Flag, Same),
    live("stats_period", "60", Int, Same),
    live("stats_users", "", Text, Same),
    live("suspend_timeout", "10", Time, Same),
    live("syslog", "0", Flag, Same),
    live("syslog_facility", "daemon", Words, Same),
    live("syslog_ident", "pgbouncer", Text, Same),
    live("tcp_defer_accept", "1", Int, Unused("connections are accepted as they come")),
    live("tcp_keepalive", "1", Flag, Same),
    live("tcp_keepcnt", "0", Int, Same),
    live("tcp_keepidle", "0", Int, Same),
    live("tcp_keepintvl", "0", Int, Same),
    live("tcp_socket_buffer", "0", Int, Unused("the kernel tunes it")),
    live("tcp_user_timeout", "0", Int, Own),
    fixed("track_extra_parameters", "", Text, Unused("every parameter follows its client")),
    live("transaction_timeout", "0", Time, Same),
    fixed("unix_socket_dir", "/tmp", Text, Same),
    fixed("unix_socket_group", "", Text, Same),
    fixed("unix_socket_mode", "0777", Mode, Same),
    Parameter { name: "user", default: None, form: Text, changeable: false, meaning: Same },
    Parameter { name: "verbose", default: None, form: Int, changeable: true, meaning: Own },
];

const AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid WHERE rolname=$1 AND rolcanlogin";

/// The setting of that name.
pub(super) fn parameter(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|parameter| parameter.name == name)
}

impl Form {
    /// The value in one spelling, as SHOW CONFIG prints it; `None`: it is not of this form.
    pub(super) fn normal(self, text: &str) -> Option<String> {
        match self {
            Self::Int | Self::Flag | Self::Mode => int(text).map(|number| number.to_string()),
            Self::Time => time(text).map(general),
            Self::Text => Some(text.to_owned()),
            Self::Words => Some(text.to_ascii_lowercase()),
        }
    }
}

/// strtol(3), base 0, the whole text.
pub(super) fn int(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (digits, radix) = match hex {
        Some(hex) => (hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (digits, 8),
        None => (digits, 10),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(digits, radix).ok().map(|number| sign * number)
}

/// Seconds, not negative.
pub(super) fn time(text: &str) -> Option<f64> {
    let hex = text.starts_with("0x").then(|| int(text)).flatten();
    let seconds = match hex {
        Some(number) => number.to_string().parse().ok()?,
        None => text.parse::<f64>().ok()?,
    };
    (seconds >= 0.0 && seconds.is_finite()).then_some(seconds)
}

/// `%g` of printf(3): six digits.
fn general(number: f64) -> String {
    let scientific = format!("{number:.5e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if (-4..6).contains(&exponent) {
        let decimals = usize::try_from(5 - exponent).unwrap_or(0);
        trim(&format!("{number:.decimals$}"))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trim(digits), exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_shown_as_in_pgbouncer() {
        for (form, text, shown) in [
            (Int, "16", Some("16")),
            (Int, "010", Some("8")),
            (Int, "0x10", Some("16")),
            (Int, "-1", Some("-1")),
            (Int, "+7", Some("7")),
            (Int, "0", Some("0")),
            (Int, "", None),
            (Int, "08", None),
            (Int, "+-1", None),
            (Int, "5 ; c", None),
            (Int, "1.5", None),
            (Flag, "yes", None),
            (Flag, "5", Some("5")),
            (Mode, "0777", Some("511")),
            (Time, "1.5", Some("1.5")),
            (Time, ".5", Some("0.5")),
            (Time, "1e2", Some("100")),
            (Time, "0x10", Some("16")),
            (Time, "86400", Some("86400")),
            (Time, "1234567", Some("1.23457e+06")),
            (Time, "1000000", Some("1e+06")),
            (Time, "0.00001", Some("1e-05")),
            (Time, "0", Some("0")),
            (Time, "-1", None),
            (Time, "10s", None),
            (Time, "", None),
            (Time, "nan", None),
            (Time, "1e400", None),
            (Words, "SCRAM-sha-256", Some("scram-sha-256")),
            (Text, "a  B", Some("a  B")),
        ] {
            assert_eq!(form.normal(text).as_deref(), shown, "{form:?} {text:?}");
        }
    }

    #[test]
    fn every_default_is_of_its_form_and_every_name_there_once() {
        for parameter in PARAMETERS {
            if let Some(default) = parameter.default {
                assert!(parameter.form.normal(default).is_some(), "{}", parameter.name);
            }
        }
        let names: std::collections::BTreeSet<_> =
            PARAMETERS.iter().map(|parameter| parameter.name).collect();
        assert_eq!(names.len(), PARAMETERS.len());
    }
}
