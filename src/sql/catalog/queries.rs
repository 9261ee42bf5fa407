//! What is asked of a database for its snapshot, and the cheap question whether the snapshot is still right.
//!
//! Plain SQL for the simple protocol, run by a user without privileges. Every name is qualified and the search path holds
//! pg_catalog alone, so that nothing a user made can take part. Objects below 16384 (FirstNormalObjectId) came with
//! initdb and count as builtin. Temporary objects are left out: only their session sees them, and it stays where it is.

/// Number of result sets that [`load_text`] gives, in the order of [`super::rows::Rows`].
pub(super) const SETS: usize = 17;

/// What comes first in the text: one view of the catalogs for all, and names that mean what they say.
const PREAMBLE: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;\
    SET LOCAL search_path TO pg_catalog, pg_temp;SET LOCAL quote_all_identifiers TO off;\
    SET LOCAL client_min_messages TO error;SET LOCAL jit TO off;\
    SET LOCAL lock_timeout TO '5s';SET LOCAL statement_timeout TO '60s'";

/// The queries, each with one result set.
fn queries(server_version: u32) -> Vec<String> {
    let body = if server_version < 140_000 { "NULL" } else { "pg_catalog.pg_get_function_sqlbody(p.oid)" };
    let functions = FUNCTIONS.replace("{body}", body);
    let mut queries: Vec<String> = [SETTINGS, BUILTINS, TYPES, OPERATORS].map(str::to_owned).into();
    queries.push(functions);
    let rest = [
        AGGREGATES,
        CASTS,
        RELATIONS,
        INHERITS,
        FOREIGN_KEYS,
        TRIGGERS,
        RULES,
        POLICIES,
        DOMAINS,
        USES,
        MENTIONS,
        COLUMNS,
    ];
    queries.extend(rest.map(str::to_owned));
    queries
}

/// All queries as one Query message, for a server of that version (`server_version_num`) and a session whose client_encoding is UTF8: one implicit transaction, result sets among
/// commands without any. Printing a view takes a share lock for a moment: who waits longer for it than that tries again.
pub fn load_text(server_version: u32) -> String {
    let mut text = PREAMBLE.to_owned();
    for query in queries(server_version) {
        text.push(';');
        text.push_str(&query);
    }
    text
}

/// A Query message with one row of one column; while that stays the same the snapshot is right. Updates of rows give them a
/// new xmin; VACUUM and ANALYZE change pg_class in place, which does not.
pub fn signature_text() -> String {
    let sums = SIGNED.map(|(catalog, condition)| {
        format!(
            "(SELECT pg_catalog.concat(pg_catalog.count(*), ',', \
            pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.{catalog} x WHERE {condition})"
        )
    });
    format!(
        "SET LOCAL search_path TO pg_catalog, pg_temp;SELECT pg_catalog.concat_ws(' ', {})",
        sums.join(", ")
    )
}

/// Catalogs that a snapshot depends on, and which of their rows.
const SIGNED: [(&str, &str); 12] = [
    ("pg_proc", "x.oid >= 16384"),
    ("pg_class", "x.oid >= 16384 AND x.relkind IN ('r','p','v','m','f','S') AND x.relpersistence <> 't'"),
    ("pg_rewrite", "x.oid >= 16384"),
    ("pg_trigger", "true"),
    ("pg_constraint", "x.oid >= 16384"),
    ("pg_policy", "true"),
    ("pg_operator", "x.oid >= 16384"),
    ("pg_cast", "x.oid >= 16384"),
    ("pg_type", "x.oid >= 16384 AND x.typtype IN ('b','d','e','r','m') AND x.typcategory <> 'A'"),
    ("pg_inherits", "true"),
    ("pg_attrdef", "true"),
    ("pg_db_role_setting", "true"),
];

/// server_version_num, the session's synchronous_commit; then a row (NULL, setting) for each that roles and databases
/// have of it.
const SETTINGS: &str = "\
SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.current_setting('synchronous_commit') \
UNION ALL SELECT NULL, c.c FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) AS c(c) \
WHERE c.c LIKE 'synchronous\\_commit=%' AND s.setdatabase IN \
(0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))";

/// Names; some overload is volatile; some is not meant to be called: what takes or gives cstring or internal, handlers
/// and trigger functions.
const BUILTINS: &str = "\
SELECT p.proname, pg_catalog.bool_or(p.provolatile = 'v'), \
pg_catalog.bool_or(p.prorettype IN (269,325,2275,2279,2280,2281,3115,3310,3838) \
OR p.proargtypes::pg_catalog.oid[] && '{2275,2281}') \
FROM pg_catalog.pg_proc p WHERE p.oid < 16384 AND p.prokind <> 'p' GROUP BY 1";

/// Types that a name and arguments may stand for a cast to: oid, name.
const TYPES: &str = "\
SELECT t.oid, t.typname FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
WHERE (t.typtype IN ('b','d','e','r','m') OR t.typtype = 'c' AND EXISTS (SELECT FROM pg_catalog.pg_cast c \
 WHERE t.oid IN (c.castsource, c.casttarget))) AND t.typcategory <> 'A' AND n.nspname NOT LIKE 'pg\\_temp\\_%'";

/// Name, function; once with NULL for each builtin name.
const OPERATORS: &str = "\
SELECT DISTINCT o.oprname, NULL::pg_catalog.oid FROM pg_catalog.pg_operator o WHERE o.oid < 16384 \
UNION ALL SELECT o.oprname, o.oprcode::pg_catalog.oid FROM pg_catalog.pg_operator o \
WHERE o.oid >= 16384 AND o.oprcode <> 0";

/// oid, name, kind, volatility, language, extension, source, body in SQL's own form, defaults of arguments, settings,
/// whether it can be meant by `row.name`, types of arguments.
const FUNCTIONS: &str = "\
SELECT p.oid, p.proname, p.prokind, p.provolatile, l.lanname, \
(SELECT e.extname FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid \
 WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e' \
 AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass LIMIT 1), \
CASE WHEN l.lanname IN ('sql','plpgsql','internal') THEN p.prosrc END, {body}, \
CASE WHEN p.pronargdefaults > 0 THEN pg_catalog.pg_get_expr(p.proargdefaults, 0) END, \
pg_catalog.array_to_string(p.proconfig, ';'), \
p.pronargs >= 1 AND p.pronargs - p.pronargdefaults <= 1 AND EXISTS (SELECT FROM pg_catalog.pg_type t \
 WHERE t.oid = p.proargtypes[0] AND (t.typtype = 'c' OR t.typtype = 'p' OR t.typtype = 'd')), \
p.proargtypes FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
WHERE p.oid >= 16384 AND n.nspname NOT LIKE 'pg\\_temp\\_%' ORDER BY p.oid";

/// Aggregate, one of its functions, whether that one is builtin and not volatile.
const AGGREGATES: &str = "\
SELECT a.aggfnoid::pg_catalog.oid, p.oid, p.oid < 16384 AND p.provolatile <> 'v' \
FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc p ON p.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, \
a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn) \
WHERE a.aggfnoid::pg_catalog.oid >= 16384";

/// Source, target, function.
const CASTS: &str = "\
SELECT c.castsource, c.casttarget, c.castfunc FROM pg_catalog.pg_cast c \
WHERE c.oid >= 16384 AND c.castfunc >= 16384";

/// oid, name, kind, persistence, builtin, shared, text of a view, schema.
const RELATIONS: &str = "\
SELECT c.oid, c.relname, c.relkind, c.relpersistence, c.oid < 16384, c.relisshared, \
CASE WHEN c.relkind = 'v' AND c.oid >= 16384 THEN pg_catalog.pg_get_viewdef(c.oid) END, n.nspname \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relkind IN ('r','p','v','m','f','S') AND c.relpersistence <> 't' AND n.nspname <> 'pg_toast' ORDER BY c.oid";

/// Child, parent; indexes are not asked for.
const INHERITS: &str = "\
SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid \
WHERE c.relkind IN ('r','p','f')";

/// Table that changes, table whose change makes it.
const FOREIGN_KEYS: &str = "\
SELECT DISTINCT c.conrelid, c.confrelid FROM pg_catalog.pg_constraint c WHERE c.contype = 'f' \
AND (c.confdeltype IN ('c','n','d') OR c.confupdtype IN ('c','n','d'))";

/// Table, function, its name if it is builtin, the definition if it has a condition.
const TRIGGERS: &str = "\
SELECT t.tgrelid, t.tgfoid, CASE WHEN p.oid < 16384 THEN p.proname END, \
CASE WHEN t.tgqual IS NOT NULL THEN pg_catalog.pg_get_triggerdef(t.oid) END \
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid \
WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'";

/// Relations with rules for INSERT, UPDATE or DELETE, and the rule's text.
const RULES: &str = "\
SELECT r.ev_class, pg_catalog.pg_get_ruledef(r.oid) FROM pg_catalog.pg_rewrite r \
WHERE r.oid >= 16384 AND r.ev_type <> '1'";

/// Relation, condition for reading.
const POLICIES: &str = "\
SELECT p.polrelid, pg_catalog.pg_get_expr(p.polqual, p.polrelid) FROM pg_catalog.pg_policy p \
JOIN pg_catalog.pg_class c ON c.oid = p.polrelid \
WHERE p.polcmd IN ('r','*') AND p.polqual IS NOT NULL AND c.relrowsecurity";

/// Domain (oid of its type), condition.
const DOMAINS: &str = "\
SELECT c.contypid, pg_catalog.pg_get_expr(c.conbin, 0) FROM pg_catalog.pg_constraint c \
WHERE c.contypid >= 16384 AND c.contype = 'c'";

/// Relation (or 0), domain (or 0), user function that its defaults, checks, policies or indexes call when it is written.
/// Builtin functions are pinned: they leave no trace here.
const USES: &str = "\
SELECT a.adrelid, 0, d.refobjid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef a ON a.oid = d.objid \
WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass \
AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass \
UNION SELECT c.conrelid, c.contypid, d.refobjid FROM pg_catalog.pg_depend d \
JOIN pg_catalog.pg_constraint c ON c.oid = d.objid \
WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND c.contype = 'c' \
AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass \
UNION SELECT p.polrelid, 0, d.refobjid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_policy p ON p.oid = d.objid \
WHERE d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass \
AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass \
UNION SELECT i.indrelid, 0, d.refobjid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_index i ON i.indexrelid = d.objid \
WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass";

/// View or table with policies, relation that its text or a policy mentions.
const MENTIONS: &str = "\
SELECT DISTINCT r.ev_class, d.refobjid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid \
JOIN pg_catalog.pg_class c ON c.oid = r.ev_class AND c.relkind = 'v' \
WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.ev_type = '1' \
AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> r.ev_class \
UNION SELECT p.polrelid, d.refobjid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_policy p ON p.oid = d.objid \
WHERE d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass \
AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> p.polrelid";

/// Relation, type of a column: types with casts by user functions, and domains with conditions that call some.
const COLUMNS: &str = "\
SELECT DISTINCT a.attrelid, a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attnum > 0 AND a.atttypid IN \
(SELECT c.castsource FROM pg_catalog.pg_cast c WHERE c.castfunc >= 16384 AND c.castsource >= 16384 \
UNION SELECT c.casttarget FROM pg_catalog.pg_cast c WHERE c.castfunc >= 16384 AND c.casttarget >= 16384 \
UNION SELECT c.contypid FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_depend d ON d.objid = c.oid \
 WHERE c.contypid >= 16384 AND d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass \
 AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass)";
