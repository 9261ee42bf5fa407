//! Transaction control and settings as text.

use super::*;
use crate::sql::{Dialect, catalog::Catalog, classify};

fn kind(text: &str) -> Kind {
    classify(text.as_bytes(), Dialect { standard_strings: true, ascii_safe: true }, &Catalog::default()).kind
}

fn mode(read_only: Option<bool>, serializable: Option<bool>) -> TransactionMode {
    TransactionMode { read_only, serializable }
}

#[test]
fn modes_of_begin() {
    let none = mode(None, None);
    for (text, expected) in [
        ("BEGIN", none),
        ("begin work;", none),
        (" BEGIN TRANSACTION ; ", none),
        ("START TRANSACTION", none),
        ("BEGIN READ ONLY", mode(Some(true), None)),
        ("START TRANSACTION READ WRITE", mode(Some(false), None)),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE", mode(Some(true), Some(true))),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY NOT DEFERRABLE", mode(Some(true), Some(false))),
        ("BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED", mode(None, Some(false))),
        ("BEGIN ISOLATION LEVEL READ UNCOMMITTED", mode(None, Some(false))),
        ("BEGIN READ ONLY READ WRITE", mode(Some(false), None)),
        ("/* x */ BEGIN -- y", none),
    ] {
        assert_eq!(kind(text), Kind::Begin(expected), "{text}");
    }
    for text in [
        "START",
        "START WORK",
        "BEGIN READ",
        "BEGIN READ ONLY,",
        "BEGIN ISOLATION",
        "BEGIN ISOLATION LEVEL x",
        "BEGIN x",
        "BEGIN NOT",
        "\"begin\"",
        "BEGIN 'a",
        "(BEGIN)",
        "BEGIN; BEGIN",
    ] {
        assert_eq!(kind(text), Kind::Primary, "{text}");
    }
}

#[test]
fn modes_that_are_set() {
    for (text, expected) in [
        ("SET TRANSACTION READ ONLY", Kind::SetTransaction(mode(Some(true), None))),
        ("SET LOCAL TRANSACTION READ WRITE", Kind::SetTransaction(mode(Some(false), None))),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", Kind::SetTransaction(mode(None, Some(true)))),
        ("SET TRANSACTION SNAPSHOT '00000003-1'", Kind::Primary),
        ("SET transaction_read_only = on", Kind::SetTransaction(mode(Some(true), None))),
        ("SET LOCAL transaction_read_only TO 'No'", Kind::SetTransaction(mode(Some(false), None))),
        ("SET transaction_isolation = 'repeatable read'", Kind::SetTransaction(mode(None, Some(false)))),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            Kind::SetCharacteristics(mode(Some(true), None)),
        ),
        ("SET LOCAL SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Kind::Primary),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION x", Kind::Primary),
        ("SET default_transaction_read_only = 'tr'", Kind::SetCharacteristics(mode(Some(true), None))),
        (
            "SET SESSION default_transaction_read_only TO of",
            Kind::SetCharacteristics(mode(Some(false), None)),
        ),
        ("SET default_transaction_read_only = 1", Kind::SetCharacteristics(mode(Some(true), None))),
        ("SET default_transaction_read_only = o", Kind::Primary),
        ("SET default_transaction_read_only TO DEFAULT", Kind::Primary),
        ("SET LOCAL default_transaction_read_only = on", Kind::Primary),
        (
            "SET default_transaction_isolation = SERIALIZABLE",
            Kind::SetCharacteristics(mode(None, Some(true))),
        ),
        ("SET default_transaction_isolation = 'x'", Kind::Primary),
        ("SET x = 1", Kind::Primary),
        ("SET SESSION AUTHORIZATION x", Kind::Primary),
        ("SET", Kind::Primary),
    ] {
        assert_eq!(kind(text), expected, "{text}");
    }
}

/// Only where a server would see them in its own settings.
#[test]
fn functions_of_settings_are_told_by_their_first_argument() {
    for (text, own) in [
        ("SELECT set_config('pooler.route', 'primary', false)", true),
        ("select 1, Pg_Catalog.Set_Config ( ( 'POOLER.route' ), $1, true) FROM t", true),
        ("SELECT \"current_setting\"(e'pooler.route'::text, true)", true),
        ("EXPLAIN SELECT current_setting('pooler.x')", true),
        ("UPDATE t SET x = current_setting('pooler.route')", true),
        ("SELECT 1; SELECT current_setting('pooler.route')", true),
        ("SELECT set_config(setting_name => 'pooler.route', new_value => 'x', is_local => true)", true),
        ("SELECT set_config(new_value => lower($1), Setting_Name := ('Pooler.x'), is_local => true)", true),
        ("PREPARE p AS SELECT set_config('pooler.route', $1, false)", true),
        ("PREPARE p (text) AS SELECT current_setting('pooler.route')", true),
        ("DECLARE c CURSOR FOR SELECT set_config('pooler.route', 'x', false)", true),
        ("CALL p(current_setting('pooler.route'))", true),
        ("PREPARE p AS SELECT set_config('search_path', 'pooler.x', false)", false),
        ("PREPARE p AS SELECT set_config($1, 'pooler.x', false)", false),
        ("DO 'BEGIN PERFORM set_config(''pooler.route'', ''x'', false); END'", false),
        ("SELECT set_config(new_value => 'pooler.x', setting_name => 'app.x', is_local => true)", false),
        ("SELECT set_config(f(setting_name => 'app.x'), 'pooler.x', true)", false),
        ("SELECT current_setting('search_path'), 'pooler.route'", false),
        ("SELECT set_config('app.x', 'pooler.route', false)", false),
        ("SELECT current_setting('poolers')", false),
        ("SELECT current_setting('pooler' || '.route')", false),
        ("SELECT set_config, 'pooler.route' FROM t", false),
        ("SELECT current_setting FROM t WHERE ('pooler.route') = x", false),
        ("SELECT x.set_config2('pooler.route')", false),
    ] {
        assert_eq!(kind(text) == Kind::Pooler(PoolerStatement::Unclear), own, "{text}");
        assert_eq!(super::names_pooler(text.as_bytes(), true), own, "{text}");
    }
}

#[test]
fn ends_and_savepoints() {
    for text in [
        "COMMIT",
        "commit work;",
        "END",
        "END TRANSACTION",
        "ROLLBACK",
        "ABORT",
        "ROLLBACK TRANSACTION AND NO CHAIN",
        "COMMIT AND NO CHAIN",
    ] {
        assert_eq!(kind(text), Kind::End, "{text}");
    }
    for text in [
        "SAVEPOINT a",
        "SAVEPOINT \"A\"",
        "RELEASE a",
        "RELEASE SAVEPOINT a",
        "RELEASE savepoint",
        "ROLLBACK TO a",
        "ROLLBACK WORK TO SAVEPOINT a",
        "ROLLBACK TO savepoint",
    ] {
        assert_eq!(kind(text), Kind::Savepoint, "{text}");
    }
    for text in [
        "COMMIT AND CHAIN",
        "ROLLBACK AND CHAIN",
        "COMMIT PREPARED 'a'",
        "ROLLBACK PREPARED 'a'",
        "COMMIT x",
        "COMMIT TO a",
        "SAVEPOINT",
        "SAVEPOINT a b",
        "RELEASE",
        "ROLLBACK TO",
        "COMMIT AND",
        "ABORT TO a",
    ] {
        assert_eq!(kind(text), Kind::Primary, "{text}");
    }
}
