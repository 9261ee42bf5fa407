//! Snapshots of real databases, PostgreSQL 15 and 18, taken by a user without privileges: every trap of
//! tests/catalog/traps.sql is seen, everyday things are safe, and every builtin function is judged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; clippy sees only #[test] functions as tests"
)]

mod catalog {
    pub(crate) mod builtins;
    pub(crate) mod server;
}

use std::time::Instant;

use catalog::{
    builtins::{DANGEROUS, EVERYDAY},
    server::{Server, VERSIONS},
};
use pooler::sql::{
    Names,
    catalog::{Catalog, signature_text},
    slot,
};

const TRAPS: &str = include_str!("catalog/traps.sql");
const EXTENSIONS: &str = include_str!("catalog/extensions.sql");

fn each(server: impl Fn(&Server, u32)) {
    for version in VERSIONS {
        server(&Server::of(version), version);
    }
}

fn check(what: &str, names: &str, expected: bool, judge: impl Fn(&[u8]) -> bool) {
    let wrong: Vec<&str> =
        names.split_whitespace().filter(|name| judge(name.as_bytes()) != expected).collect();
    assert!(wrong.is_empty(), "{what} should be {expected} for {wrong:?}");
}

/// Names of relations that a mention reads, sorted; `*`: anything. Of the candidates.
fn reads(catalog: &Catalog, name: &str, candidates: &str) -> String {
    let mut slots = Vec::new();
    if !catalog.add_reads(name.as_bytes(), &mut slots) {
        return "*".to_owned();
    }
    among(&slots, candidates)
}

fn writes(catalog: &Catalog, name: &str, candidates: &str) -> String {
    match catalog.writes_of(name.as_bytes()) {
        Names::Any => "*".to_owned(),
        Names::Known(slots) => among(&slots, candidates),
    }
}

fn among(slots: &[u16], candidates: &str) -> String {
    let mut left: Vec<u16> = slots.to_vec();
    left.sort_unstable();
    left.dedup();
    let found: Vec<&str> =
        candidates.split_whitespace().filter(|name| left.contains(&slot(name.as_bytes()))).collect();
    left.retain(|one| !found.iter().any(|name| slot(name.as_bytes()) == *one));
    assert!(left.is_empty(), "slots of others than {candidates}");
    found.join(" ")
}

#[test]
fn builtin_functions_are_judged() {
    each(|server, version| {
        let catalog = server.catalog("postgres");
        let known = |name: &str| catalog.is_function(name.as_bytes());
        let dangerous: Vec<&str> = DANGEROUS.split_whitespace().collect();
        check("safe", &dangerous.join(" "), false, |name| catalog.function_is_safe(name));
        check("safe", EVERYDAY, true, |name| catalog.function_is_safe(name));
        if version == 18 {
            // What is listed exists, or the list proves nothing.
            let unknown: Vec<&&str> = dangerous.iter().filter(|name| !known(name)).collect();
            assert!(unknown.is_empty(), "{unknown:?}");
        }
    });
}

#[test]
fn all_that_is_volatile_and_not_listed_is_dangerous() {
    each(|server, _| {
        let catalog = server.catalog("postgres");
        let volatile = server.column(
            "postgres",
            "SELECT DISTINCT proname FROM pg_proc WHERE provolatile = 'v' AND oid < 16384 ORDER BY 1",
        );
        let safe: Vec<&str> = volatile
            .iter()
            .map(String::as_str)
            .filter(|name| catalog.function_is_safe(name.as_bytes()))
            .collect();
        let listed = "array_sample array_shuffle bernoulli clock_timestamp current_query gen_random_uuid lo_get \
                      pg_partition_ancestors pg_partition_tree pg_sleep pg_sleep_for pg_sleep_until random \
                      random_normal system timeofday uuidv4 uuidv7";
        assert!(safe.iter().all(|name| listed.split_whitespace().any(|known| known == *name)), "{safe:?}");
        let operators = server.column(
            "postgres",
            "SELECT DISTINCT oprname FROM pg_operator o JOIN pg_proc p ON p.oid = oprcode WHERE provolatile = 'v'",
        );
        assert!(operators.is_empty(), "{operators:?}");
    });
}

#[test]
fn system_views_that_tell_of_the_server_are_tainted() {
    let tainted = "pg_stat_activity pg_stat_user_tables pg_statio_all_tables pg_stat_replication pg_stat_wal pg_locks \
                   pg_settings pg_file_settings pg_hba_file_rules pg_prepared_xacts pg_prepared_statements pg_cursors \
                   pg_sequences pg_replication_slots pg_replication_origin_status pg_shmem_allocations pg_config \
                   pg_timezone_names pg_available_extensions pg_database pg_authid pg_roles pg_tablespace pg_temp \
                   pg_temp_3 pg_subscription pg_db_role_setting";
    let fine = "pg_class pg_attribute pg_index pg_proc pg_type pg_namespace pg_constraint pg_tables pg_views pg_indexes \
                pg_stats pg_matviews pg_policies tables columns schemata routines views sequences key_column_usage \
                information_schema pg_catalog relname id name value";
    each(|server, _| {
        let catalog = server.catalog("postgres");
        let roles = "pg_roles";
        check("tainted", &tainted.replace(roles, ""), true, |name| catalog.is_tainted(name));
        check("tainted", roles, true, |name| catalog.is_tainted(name));
        check("tainted", fine, false, |name| catalog.is_tainted(name));
    });
}

#[test]
fn functions_of_users_are_judged_by_what_they_do() {
    each(|server, _| {
        let catalog = server.trapped(TRAPS);
        let safe = "pure_sql pure_plpgsql volatile_reader calls_safe recursive_tree mutual_a mutual_b typed raises \
                    assigns new_sql_body atomic_body with_default sum_up positive small \"Mixed\" late_view_reader \
                    loops over_cursor hidden_in_comment float_span";
        let dangerous = "writes_sql writes_plpgsql liar_stable liar_immutable calls_liar swallows dynamic asks_role \
                         asks_setting asks_variable reads_unlogged reads_bad_view locks_rows sets_path notifies \
                         trigger_audit evil_default evil_aggregate lower_overload abs atomic_liar quoted_liar \
                         backslash backslash_sql reads_sequence row_liar uses_evil_domain \
                         takes_domain domain_evil no_such_function liar_via_operator mutual_c mutual_d";
        let bare = safe.replace('"', "");
        check("safe", &bare, true, |name| catalog.function_is_safe(name));
        check("safe", dangerous, false, |name| catalog.function_is_safe(name));
        check("safe", "lower now count", true, |name| catalog.function_is_safe(name));
        // H40: quoted names keep their case.
        check("safe", "mixed", false, |name| catalog.function_is_safe(name));

        let reading = "volatile_reader calls_reader recursive_tree over_cursor no_such_function query_to_xml";
        let pure = "pure_sql pure_plpgsql assigns lower now count typed sum_up";
        check("reads anything", reading, true, |name| catalog.function_reads_anything(name));
        check("reads anything", pure, false, |name| catalog.function_reads_anything(name));

        let writing =
            "writes_sql writes_plpgsql dynamic abs trigger_audit no_such_function lo_create query_to_xml";
        let harmless = "pure_sql liar_stable liar_immutable calls_liar evil_default evil_aggregate swallows asks_role \
                        asks_variable locks_rows sets_config nextval pg_advisory_lock atomic_liar lower_overload";
        check("writes nothing", writing, false, |name| catalog.function_writes_nothing(name));
        check("writes nothing", harmless, true, |name| catalog.function_writes_nothing(name));

        let session = "sets_path sets_config calls_sets_config takes_advisory makes_temp dynamic set_config setseed \
                       pg_advisory_lock currval session_in_string no_such_function";
        let quiet = "pure_sql volatile_reader writes_sql update_sets pg_advisory_xact_lock nextval lower trigger_audit";
        check("touches session", session, true, |name| catalog.function_touches_session(name));
        check("touches session", quiet, false, |name| catalog.function_touches_session(name));
    });
}

#[test]
fn names_taint_what_mentions_them() {
    each(|server, _| {
        let catalog = server.trapped(TRAPS);
        let tainted = "unlogged_table unlogged_child unlogged_parent unlogged_grand a_sequence view_of_unlogged \
                       view_nextval view_of_view_nextval view_of_liar view_unqualified_setting rls_setting rls_liar \
                       view_of_rls_setting evil_domain row_liar Unlogged_Mixed view_stat items_id_seq";
        let fine = "items parts parts_1 parts_2 good_view good_view_2 mat rls_user rls_off log_table typed_table \
                    permanent_child good_domain mood unlogged_mixed late_view id name other_schema public";
        check("tainted", tainted, true, |name| catalog.is_tainted(name));
        check("tainted", fine, false, |name| catalog.is_tainted(name));
        let writing = "view_writing view_of_view_writing evil_domain pg_temp";
        let harmless = "view_nextval unlogged_table a_sequence view_of_rls_setting rls_liar pg_stat_activity";
        check("may write", writing, true, |name| catalog.tainted_may_write(name));
        check("may write", harmless, false, |name| catalog.tainted_may_write(name));
        check("touches session", "view_of_session session_triggered", true, |name| {
            catalog.relation_touches_session(name)
        });
        check("touches session", "items good_view audited stamped", false, |name| {
            catalog.relation_touches_session(name)
        });
        check("safe", "+ = ->> @> ~~ <->  ||", true, |name| catalog.operator_is_safe(name));
        check("safe", "<~~> ???", false, |name| catalog.operator_is_safe(name));
        check("safe", "<+>", true, |name| catalog.operator_is_safe(name));
        assert_eq!(catalog.poison(), None);
        assert!(!catalog.has_async_commits());
    });
}

#[test]
fn reads_follow_views_and_ancestors() {
    let all = "items parts parts_1 parts_1a good_view good_view_2 mat child_of_items rls_user rls_members orders lines \
               view_of_parts";
    each(|server, _| {
        let catalog = server.trapped(TRAPS);
        for (name, expected) in [
            ("items", "items"),
            ("no_relation", ""),
            ("good_view", "items good_view"),
            ("good_view_2", "items good_view good_view_2 orders"),
            ("mat", "mat"),
            ("parts", "parts"),
            ("parts_1a", "parts parts_1 parts_1a"),
            ("view_of_parts", "parts view_of_parts"),
            ("rls_user", "rls_user rls_members"),
            ("reading_view", "*"),
            ("view_of_reading_view", "*"),
            ("row_reader", "*"),
        ] {
            let known = format!("{all} no_relation");
            let expected = if name == "no_relation" { "no_relation" } else { expected };
            assert_eq!(reads(&catalog, name, &known), expected, "{name}");
        }
    });
}

#[test]
fn writes_follow_triggers_foreign_keys_and_ancestors() {
    let all = "items parts parts_1 parts_1a parts_2 child_of_items orders lines notes deep stamped orphans";
    each(|server, _| {
        let catalog = server.trapped(TRAPS);
        for (name, expected) in [
            ("orphans", "orphans"),
            ("orders", "orders lines notes deep"),
            ("lines", "lines deep"),
            ("notes", "notes"),
            ("restricted", "*"),
            ("parts_1a", "parts parts_1 parts_1a"),
            ("parts", "parts"),
            ("child_of_items", "items child_of_items"),
            ("stamped", "stamped"),
            ("audited", "*"),
            ("audited_target", "*"),
            ("ruled", "*"),
            ("good_view", "*"),
            ("mat", "*"),
            ("pg_class", "*"),
            ("columns", "*"),
            ("attributes", "attributes"),
            ("evil_defaulted", "*"),
            ("when_triggered", "*"),
            ("disabled_trigger", "disabled_trigger"),
            ("not_there", "*"),
        ] {
            let all = format!("{all} disabled_trigger attributes");
            assert_eq!(writes(&catalog, name, &all), expected, "{name}");
        }
        // A read of a partition sees a write to its parent, and the other way round.
        let mut slots = Vec::new();
        assert!(catalog.add_reads(b"parts_1a", &mut slots));
        let Names::Known(written) = catalog.writes_of(b"parts") else { panic!() };
        assert!(written.iter().any(|one| slots.contains(one)));
    });
}

#[test]
fn extensions_are_known_by_name() {
    each(|server, _| {
        let catalog = server.made("extensions", EXTENSIONS);
        let safe =
            "uuid_generate_v4 similarity unaccent digest gen_salt crypt hstore akeys levenshtein cube nlevel";
        let dangerous = "dblink dblink_exec pg_stat_statements get_raw_page crosstab set_limit";
        check("safe", safe, true, |name| catalog.function_is_safe(name));
        check("safe", dangerous, false, |name| catalog.function_is_safe(name));
        check("safe", "% <% -> ? = < ~~ <->", true, |name| catalog.operator_is_safe(name));
        check("tainted", "remote parent_of_remote view_of_remote pg_stat_statements", true, |name| {
            catalog.is_tainted(name)
        });
        check("may write", "remote parent_of_remote view_of_remote", true, |name| {
            catalog.tainted_may_write(name)
        });
        check("tainted", "citext words", false, |name| catalog.is_tainted(name));
        assert!(catalog.function_touches_session(b"dblink_connect"));
        assert_eq!(catalog.poison(), None);
    });
}

#[test]
fn silent_operators_and_casts_poison_everything() {
    each(|server, _| {
        let operator = "CREATE TABLE t (x int); CREATE SEQUENCE s;
            CREATE FUNCTION evil_eq(text, int) RETURNS bool LANGUAGE sql AS 'SELECT nextval(''s'') > 0';
            CREATE OPERATOR = (leftarg = text, rightarg = int, function = evil_eq)";
        let catalog = server.made("poison_operator", operator);
        assert!(catalog.is_tainted(b"t") && !catalog.operator_is_safe(b"="), "{:?}", catalog.poison());
        let cast = "CREATE SEQUENCE s; CREATE TABLE t (x int);
            CREATE FUNCTION evil_cast(bool) RETURNS money LANGUAGE sql AS 'SELECT nextval(''s'')::int::money';
            CREATE CAST (bool AS money) WITH FUNCTION evil_cast(bool) AS IMPLICIT";
        let catalog = server.made("poison_cast", cast);
        assert!(catalog.is_tainted(b"t") && catalog.is_unknown(), "{:?}", catalog.poison());
        let harmless = "CREATE FUNCTION same(text, int) RETURNS bool LANGUAGE sql AS 'SELECT $1 = $2::text';
            CREATE OPERATOR = (leftarg = text, rightarg = int, function = same)";
        let catalog = server.made("harmless_operator", harmless);
        assert!(catalog.operator_is_safe(b"=") && catalog.poison().is_none());
    });
}

/// H40, S44: what a user puts in front of pg_catalog takes no part.
#[test]
fn hostile_search_path_changes_nothing() {
    let sql = "CREATE TABLE t (x int); CREATE VIEW v AS SELECT lower(x::text) FROM t; CREATE SCHEMA evil;
        CREATE FUNCTION evil.boom(oid, oid) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''boom''; END';
        CREATE OPERATOR evil.= (leftarg = oid, rightarg = oid, function = evil.boom);
        CREATE OPERATOR evil.>= (leftarg = oid, rightarg = oid, function = evil.boom);
        CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE plpgsql AS
            'BEGIN RAISE EXCEPTION ''boom''; END';
        CREATE VIEW evil.pg_class AS SELECT 1 AS oid; CREATE VIEW evil.pg_proc AS SELECT 1 AS oid;
        CREATE DOMAIN evil.regclass AS int CHECK (value < 0); CREATE DOMAIN evil.text AS int;
        GRANT USAGE ON SCHEMA evil TO plain;
        ALTER ROLE plain IN DATABASE hostile SET search_path = evil, pg_catalog, public";
    each(|server, _| {
        let catalog = server.made("hostile", sql);
        assert!(catalog.is_relation(b"t") && !catalog.is_tainted(b"v") && catalog.function_is_safe(b"lower"));
        assert_eq!(reads(&catalog, "v", "t v x"), "t v");
        assert_eq!(server.column("hostile", &signature_text()).len(), 1);
    });
}

#[test]
fn asynchronous_commits_are_seen() {
    each(|server, _| {
        for (name, sql, expected) in [
            ("async_none", "ALTER DATABASE async_none SET synchronous_commit = local", false),
            ("async_database", "ALTER DATABASE async_database SET synchronous_commit = off", true),
            (
                "async_function",
                "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET synchronous_commit = off AS 'SELECT 1'",
                true,
            ),
            (
                "async_body",
                "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS
                 'BEGIN EXECUTE ''SET LOCAL synchronous_commit TO off''; END'",
                true,
            ),
        ] {
            assert_eq!(server.made(name, sql).has_async_commits(), expected, "{name}");
        }
    });
}

#[test]
fn signature_changes_with_definitions_only() {
    each(|server, _| {
        server.made("signed", "CREATE TABLE t (x int)");
        let sign = || server.column("signed", &signature_text());
        let mut last = sign();
        let mut run = |sql: &str, changes: bool| {
            server.admin("signed", sql);
            let now = sign();
            assert_eq!(now != last, changes, "{sql}: {now:?}");
            last = now;
        };
        run("INSERT INTO t VALUES (1)", false);
        run("VACUUM ANALYZE t", false);
        for sql in [
            "CREATE TABLE u (x int REFERENCES v ON DELETE CASCADE)"
                .replace(" REFERENCES v ON DELETE CASCADE", ""),
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'".to_owned(),
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'".to_owned(),
            "ALTER FUNCTION f() STABLE".to_owned(),
            "CREATE VIEW v AS SELECT * FROM t".to_owned(),
            "CREATE OR REPLACE VIEW v AS SELECT * FROM t WHERE x > 1".to_owned(),
            "ALTER TABLE t SET UNLOGGED".to_owned(),
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY".to_owned(),
            "CREATE POLICY p ON t USING (x > 1)".to_owned(),
            "ALTER POLICY p ON t USING (x > 2)".to_owned(),
            "ALTER TABLE t ALTER x SET DEFAULT 3".to_owned(),
            "ALTER TABLE u INHERIT t".to_owned(),
            "ALTER TABLE t RENAME TO w".to_owned(),
            "CREATE DOMAIN d AS int".to_owned(),
            "ALTER DOMAIN d ADD CHECK (value > 0)".to_owned(),
            "ALTER DATABASE signed SET synchronous_commit = off".to_owned(),
        ] {
            run(&sql, true);
        }
        run("CREATE TEMP TABLE x (y int)", false);
    });
}

/// Prints; fails only where something is far off.
#[test]
fn snapshot_is_small_and_quick() {
    each(|server, version| {
        for (name, sql) in [
            ("postgres", String::new()),
            (
                "large",
                "DO $$ BEGIN FOR i IN 1..1000 LOOP
                    EXECUTE format('CREATE TABLE table_%s (id serial PRIMARY KEY, name text)', i);
                    EXECUTE format('CREATE VIEW view_%s AS SELECT lower(name) AS n FROM table_%s WHERE id > 3', i, i);
                    EXECUTE format('CREATE FUNCTION fn_%s(x int) RETURNS int LANGUAGE sql AS
                        ''SELECT count(*)::int FROM table_%s WHERE id = x''', i, i);
                 END LOOP; END $$"
                    .to_owned(),
            ),
        ] {
            let catalog = if sql.is_empty() { server.catalog(name) } else { server.made(name, &sql) };
            let started = Instant::now();
            let results = server.results(name);
            let loaded = started.elapsed();
            let started = Instant::now();
            let again = Catalog::of(2, &results).unwrap();
            let built = started.elapsed();
            server.column(name, &signature_text());
            let started = Instant::now();
            server.column(name, &signature_text());
            let signed = started.elapsed();
            println!("{version} {name}: {} KiB, load {loaded:?}, build {built:?}, signature {signed:?}", again.size() / 1024);
            assert!(catalog.size() < if sql.is_empty() { 1 << 20 } else { 4 << 20 });
        }
    });
}
