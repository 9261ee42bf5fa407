//! The statements that give a session its settings: as short as can be, and so that their answers are.

use std::sync::Arc;

use super::params::{Label, Params};
use crate::sql;

/// Bytes of the CommandComplete of SET, of RESET, and of the three messages of set_config whose value is empty.
const SET: usize = 9;
const RESET: usize = 11;
const SET_CONFIG: usize = 61;

/// Lists of names, which are one string to set_config and several to SET.
const LISTS: [&str; 4] =
    ["search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"];

/// What a server takes from whoever has had it on another one: any user may set it, and its value names nothing that could be
/// gone. Sorted, in lower case.
#[rustfmt::skip]
const CERTAIN: &[&str] = &[
    "application_name", "array_nulls", "backslash_quote", "bytea_output", "check_function_bodies",
    "client_connection_check_interval", "client_encoding", "client_min_messages", "constraint_exclusion",
    "cpu_index_tuple_cost", "cpu_operator_cost", "cpu_tuple_cost", "cursor_tuple_fraction", "datestyle",
    "default_statistics_target", "default_toast_compression", "default_transaction_deferrable",
    "default_transaction_isolation", "default_transaction_read_only", "effective_cache_size", "effective_io_concurrency",
    "enable_async_append", "enable_bitmapscan", "enable_gathermerge", "enable_hashagg", "enable_hashjoin",
    "enable_incremental_sort", "enable_indexonlyscan", "enable_indexscan", "enable_material", "enable_memoize",
    "enable_mergejoin", "enable_nestloop", "enable_parallel_append", "enable_parallel_hash", "enable_partition_pruning",
    "enable_partitionwise_aggregate", "enable_partitionwise_join", "enable_seqscan", "enable_sort", "enable_tidscan",
    "escape_string_warning", "extra_float_digits", "from_collapse_limit", "geqo", "geqo_threshold",
    "hash_mem_multiplier", "idle_in_transaction_session_timeout", "idle_session_timeout", "intervalstyle", "jit",
    "join_collapse_limit", "lock_timeout", "maintenance_work_mem", "max_parallel_maintenance_workers",
    "max_parallel_workers", "max_parallel_workers_per_gather", "parallel_leader_participation", "parallel_setup_cost",
    "parallel_tuple_cost", "password_encryption", "plan_cache_mode", "quote_all_identifiers", "random_page_cost",
    "row_security", "search_path", "seq_page_cost", "standard_conforming_strings", "statement_timeout",
    "synchronous_commit", "tcp_keepalives_count", "tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_user_timeout",
    "timezone", "transaction_timeout", "transform_null_equals", "work_mem", "xmlbinary", "xmloption",
];

/// Whether a setting is among these, or of an application's own.
fn is_certain(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    name.contains('.') || CERTAIN.binary_search(&&*lower).is_ok()
}

/// What a server may refuse: a role that is gone, what a user has no right to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Risk {
    /// Something of its client's.
    Sets,
    /// Something that another client has left, too.
    Resets,
}

/// Settings that have been sent, and nothing behind them.
#[derive(Debug)]
pub struct Trial {
    pub risk: Risk,
    /// The client's label when it began.
    pub wanted: Label,
}

/// What makes a server's settings those of a client.
#[derive(Debug)]
pub struct Changes {
    from: Label,
    to: Label,
    pub(super) sql: Box<str>,
    /// How many bytes the answer has at least.
    pub(super) answer: usize,
    pub(super) risk: Option<Risk>,
}

impl Changes {
    pub(super) fn between(from: &Label, to: &Label) -> Self {
        let mut sql = String::new();
        let answer = from.write_changes(to, &mut sql);
        // Anybody may go back to the role of the login.
        let role = |name: &str| {
            name.eq_ignore_ascii_case("role") || name.eq_ignore_ascii_case("session_authorization")
        };
        let resets = |name: &str| to.get(name).is_none() && !is_certain(name) && !role(name);
        let sets = |(name, value): (&str, &str)| from.get(name) != Some(value) && !is_certain(name);
        let risk = match from.iter().any(|(name, _)| resets(name)) {
            true => Some(Risk::Resets),
            false => to.iter().any(sets).then_some(Risk::Sets),
        };
        Self { from: Arc::clone(from), to: Arc::clone(to), sql: sql.into(), answer, risk }
    }

    pub(super) fn are(&self, from: &Label, to: &Label) -> bool {
        Arc::ptr_eq(&self.from, from) && Arc::ptr_eq(&self.to, to)
    }
}

impl Params {
    /// Appends the statements that turn a server with `self` into one with `wanted`; nothing if they are equal. Returns how
    /// many bytes their answers have at least.
    pub fn write_changes(&self, wanted: &Self, sql: &mut String) -> usize {
        let mut answer = 0;
        let is_role = |name: &str| name.eq_ignore_ascii_case("role");
        let (role, wanted_role) = (self.get("role"), wanted.get("role"));
        // Settings are not those of a role: it might not be let.
        if role.is_some() && role != wanted_role {
            answer += write_reset(sql, "role");
        }
        for (name, value) in wanted.iter().filter(|(name, _)| !is_role(name)) {
            if self.get(name) != Some(value) {
                answer += write_set(sql, name, value, false);
            }
        }
        for (name, _) in self.iter().filter(|(name, _)| !is_role(name)) {
            if wanted.get(name).is_none() {
                answer += write_reset(sql, name);
            }
        }
        if let Some(wanted) = wanted_role.filter(|_| role != wanted_role) {
            answer += write_set(sql, "role", wanted, false);
        }
        answer
    }
}

fn write_reset(sql: &mut String, name: &str) -> usize {
    sql.push_str("RESET ");
    quote_identifier(sql, name);
    sql.push(';');
    RESET
}

/// SET, or set_config where SET could not say it. `local`: up to the end of the transaction. Returns how many bytes the
/// answer has at least.
pub fn write_set(sql: &mut String, name: &str, value: &str, local: bool) -> usize {
    let items = match LISTS.iter().any(|list| list.eq_ignore_ascii_case(name)) {
        true => items(value),
        false => (!name.contains('.') || parts_are_plain(name)).then(|| vec![value]),
    };
    let Some(items) = items else {
        sql.push_str("SELECT pg_catalog.set_config(");
        quote_literal(sql, name);
        sql.push(',');
        quote_literal(sql, value);
        sql.push_str(if local { ",true);" } else { ",false);" });
        return SET_CONFIG;
    };
    sql.push_str(if local { "SET LOCAL " } else { "SET " });
    for (number, part) in name.split('.').enumerate() {
        if number > 0 {
            sql.push('.');
        }
        quote_identifier(sql, part);
    }
    sql.push_str(" TO ");
    for (number, item) in items.into_iter().enumerate() {
        if number > 0 {
            sql.push(',');
        }
        quote_literal(sql, item);
    }
    sql.push(';');
    SET
}

/// Names of custom parameters that SET takes, quoted (guc.c, valid_custom_variable_name).
fn parts_are_plain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    name.split('.').all(|part| {
        part.bytes().all(plain) && !part.starts_with(|c: char| c.is_ascii_digit()) && !part.is_empty()
    })
}

/// The items of a list of names, if SET of these gives the very same text: it quotes as quote_identifier (ruleutils.c).
fn items(value: &str) -> Option<Vec<&str>> {
    value.split(", ").map(item).collect()
}

fn item(text: &str) -> Option<&str> {
    if sql::is_plain_name(text) {
        return Some(text);
    }
    let inner = text.strip_prefix('"')?.strip_suffix('"').filter(|inner| !inner.is_empty())?;
    let simple = |b: u8| b.is_ascii_alphanumeric() || b"_$- .".contains(&b);
    (inner.bytes().all(simple) && !sql::is_plain_name(inner)).then_some(inner)
}

/// Parameter names are matched without case by the server, but a quoted identifier keeps it: that is fine.
fn quote_identifier(sql: &mut String, name: &str) {
    sql.push('"');
    sql.push_str(&name.replace('"', "\"\""));
    sql.push('"');
}

/// A literal that means the same whatever standard_conforming_strings is.
pub(super) fn quote_literal(sql: &mut String, value: &str) {
    if !value.is_ascii() || value.contains('\\') {
        sql.push_str(" E");
    }
    sql.push('\'');
    for c in value.chars() {
        match c {
            '\\' => sql.push_str("\\\\"),
            '\'' => sql.push_str("\'\'"),
            c if c.is_ascii() => sql.push(c),
            // The server may still have another client's client_encoding.
            c => sql.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    sql.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_set_by_their_items_where_that_gives_the_same_text() {
        for (value, expected) in [
            ("public", Some(vec!["public"])),
            ("tenant_1, public", Some(vec!["tenant_1", "public"])),
            ("\"$user\", public", Some(vec!["$user", "public"])),
            ("\"Odd name\", \"user\"", Some(vec!["Odd name", "user"])),
            // They would come back quoted, without quotes, or with a space.
            ("user", None),
            ("\"public\"", None),
            ("a,b", None),
            ("", None),
            ("\"\"", None),
            ("\"a\"\"b\"", None),
            ("\"a, b\"", None),
            ("sch\u{f6}n", None),
            ("a'b", None),
        ] {
            assert_eq!(items(value), expected, "{value}");
        }
    }

    #[test]
    fn only_what_may_be_refused_is_a_risk() {
        assert!(CERTAIN.is_sorted());
        let risk = |from: &[(&str, &str)], to: &[(&str, &str)]| {
            let label = |pairs: &[(&str, &str)]| Arc::new(Params::from_pairs(pairs.iter().copied()));
            Changes::between(&label(from), &label(to)).risk
        };
        let plain = [("DateStyle", "ISO"), ("app.tenant", "a"), ("search_path", "x")];
        assert_eq!(risk(&[], &plain), None);
        assert_eq!(risk(&plain, &[]), None);
        assert_eq!(risk(&[], &[("role", "r")]), Some(Risk::Sets));
        assert_eq!(risk(&[("role", "")], &[("role", "r")]), Some(Risk::Sets));
        assert_eq!(risk(&[("role", "r")], &[("role", "r")]), None);
        assert_eq!(risk(&[("role", "r")], &[]), None);
        let tablespace = [("default_tablespace", "t")];
        assert_eq!(risk(&[], &tablespace), Some(Risk::Sets));
        assert_eq!(risk(&tablespace, &[("role", "r")]), Some(Risk::Resets));
    }

    #[test]
    fn nothing_is_set_under_another_role() {
        let params = |pairs: &[(&str, &str)]| Params::from_pairs(pairs.iter().copied());
        let (one, other) =
            (params(&[("role", "a"), ("jit", "off")]), params(&[("role", "b"), ("work_mem", "1MB")]));
        let mut sql = String::new();
        one.write_changes(&other, &mut sql);
        assert_eq!(sql, "RESET \"role\";SET \"work_mem\" TO '1MB';RESET \"jit\";SET \"role\" TO 'b';");
        sql.clear();
        one.write_changes(&params(&[("jit", "on")]), &mut sql);
        assert_eq!(sql, "RESET \"role\";SET \"jit\" TO 'on';");
    }

    #[test]
    fn set_says_what_it_can() {
        let text = |name, value, local| {
            let mut sql = String::new();
            let answer = write_set(&mut sql, name, value, local);
            (sql, answer)
        };
        assert_eq!(text("search_path", "a, b", false), ("SET \"search_path\" TO 'a','b';".into(), SET));
        assert_eq!(text("App.Tenant", "x'y", true), ("SET LOCAL \"App\".\"Tenant\" TO 'x''y';".into(), SET));
        assert_eq!(text("work_mem", "4MB", false), ("SET \"work_mem\" TO '4MB';".into(), SET));
        for (name, value) in [("search_path", ""), ("a b.c", "x"), ("a.1b", "x"), ("a..b", "x")] {
            let (sql, answer) = text(name, value, false);
            assert!(sql.starts_with("SELECT pg_catalog.set_config('") && answer == SET_CONFIG, "{sql}");
        }
    }
}
