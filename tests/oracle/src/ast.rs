//! What the server's own parser says that a text does.

use serde_json::{Map, Value};

use crate::database::{Database, TAINTED, UNSAFE_OPERATOR};

/// DECLARE … WITH HOLD (nodes/parsenodes.h).
const CURSOR_OPT_HOLD: u64 = 0x20;

#[derive(Default)]
pub struct Ast {
    /// Kinds of the statements.
    pub kinds: Vec<String>,
    /// Why it is no read.
    pub unsafe_because: Option<String>,
    pub relations: Vec<String>,
    pub targets: Vec<String>,
    /// It may change more than its targets.
    pub writes_any: bool,
    /// It leaves something in the session.
    pub session: bool,
    /// Of a TransactionStmt.
    pub transaction: Option<(u64, bool, Vec<(String, String)>)>,
}

/// Statements that change nothing, but are no reads.
const QUIET: &[&str] = &[
    "VariableSetStmt",
    "VariableShowStmt",
    "TransactionStmt",
    "LockStmt",
    "ListenStmt",
    "UnlistenStmt",
    "NotifyStmt",
    "DeallocateStmt",
    "DiscardStmt",
    "ClosePortalStmt",
];
const ROWS: &[&str] =
    &["SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "CopyStmt", "ExplainStmt"];
/// Settings that end with their transaction.
const PASSING: &[&str] =
    &["transaction", "transaction snapshot", "transaction_read_only", "transaction_isolation"];
const STATEFUL: &[&str] = &[
    "PrepareStmt",
    "ListenStmt",
    "UnlistenStmt",
    "LoadStmt",
    "DiscardStmt",
    "DoStmt",
    "CallStmt",
    "ExecuteStmt",
];

impl Ast {
    pub fn of(text: &str, standard_strings: bool, database: &Database) -> Option<Self> {
        let off = pg_query::ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS;
        let options = if standard_strings { pg_query::ParserOptions::DEFAULT } else { off };
        let parsed = pg_query::parse(text, options);
        if !standard_strings {
            // The option outlives errors.
            let _ = pg_query::parse("SELECT 1", pg_query::ParserOptions::DEFAULT);
        }
        let parsed = parsed.ok()?;
        let tree = serde_json::to_value(&parsed.protobuf).ok()?;
        let mut ast = Self::default();
        for statement in tree["stmts"].as_array()? {
            let Some((kind, node)) =
                statement["stmt"]["node"].as_object().and_then(|node| node.iter().next())
            else {
                continue;
            };
            ast.statement(kind, node);
            ast.walk(&statement["stmt"], "", database);
        }
        Some(ast)
    }

    fn unsafe_because(&mut self, why: impl Into<String>) {
        self.unsafe_because.get_or_insert(why.into());
    }

    fn statement(&mut self, kind: &str, node: &Value) {
        self.kinds.push(kind.to_owned());
        let quiet = QUIET.contains(&kind);
        if quiet || !ROWS.contains(&kind) {
            self.unsafe_because(kind);
        }
        self.writes_any |= !quiet && !ROWS.contains(&kind);
        self.session |= STATEFUL.contains(&kind);
        match kind {
            "TransactionStmt" => {
                let options = node["options"].as_array().into_iter().flatten();
                let options = options.map(|option| {
                    let option = &option["node"]["DefElem"];
                    (option["defname"].as_str().unwrap_or_default().to_owned(), option["arg"].to_string())
                });
                let number = node["kind"].as_u64().unwrap_or(0);
                self.writes_any |= number >= 8;
                self.transaction =
                    Some((number, node["chain"].as_bool().unwrap_or(false), options.collect()));
            }
            "VariableSetStmt" => {
                let name = node["name"].as_str().unwrap_or_default().to_lowercase();
                let passing = PASSING.contains(&&*name);
                let ours = name.starts_with("pooler.");
                self.session |= !node["is_local"].as_bool().unwrap_or(false) && !passing && !ours;
            }
            "DeclareCursorStmt" => {
                self.session |= node["options"].as_u64().unwrap_or(0) & CURSOR_OPT_HOLD != 0
            }
            _ => {}
        }
    }

    fn walk(&mut self, value: &Value, key: &str, database: &Database) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.walk(value, key, database)),
            Value::Object(object) => {
                self.object(object, key, database);
                object.iter().for_each(|(key, value)| self.walk(value, key, database));
            }
            _ => {}
        }
    }

    fn object(&mut self, object: &Map<String, Value>, key: &str, database: &Database) {
        let is_set = |name: &str| object.get(name).is_some_and(|value| !value.is_null());
        match key {
            "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" => self.target(object, key),
            "CopyStmt" => {
                if object["is_from"] == true {
                    self.target(object, key);
                }
                self.unsafe_because(key);
                self.writes_any |= object["is_program"] == true;
            }
            "ExplainStmt" => self.explain(object),
            "IntoClause" | "into" | "into_clause" => {
                self.unsafe_because("INTO");
                self.writes_any = true;
            }
            "RangeTableSample" => self.function(&object["method"], database),
            "String" => self.name(object["sval"].as_str().unwrap_or_default(), "name"),
            _ => {}
        }
        if object.get("locking_clause").and_then(Value::as_array).is_some_and(|locks| !locks.is_empty()) {
            self.unsafe_because("FOR UPDATE");
        }
        if object.contains_key("funcname") && object.contains_key("agg_within_group") {
            self.function(&object["funcname"], database);
        }
        for operators in ["name", "oper_name", "use_op"] {
            let spelled =
                object.get(operators).is_some_and(|names| last(names).as_deref() == Some(UNSAFE_OPERATOR));
            if spelled && !is_set("relname") {
                self.unsafe_because("operator");
                self.writes_any = true;
            }
        }
        if is_set("relname") && object.contains_key("relpersistence") {
            let part = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
            let explained = self.kinds.last().is_some_and(|kind| kind == "ExplainStmt");
            self.session |=
                (part("relpersistence") == "t" && !explained) || part("schemaname").starts_with("pg_temp");
            self.name(&part("relname"), "relation");
            self.name(&part("schemaname"), "schema");
            self.relations.push(part("relname"));
        }
    }

    fn target(&mut self, object: &Map<String, Value>, kind: &str) {
        self.unsafe_because(kind);
        self.targets.extend(object["relation"]["relname"].as_str().map(str::to_owned));
    }

    fn explain(&mut self, object: &Map<String, Value>) {
        let mut options = object["options"].as_array().into_iter().flatten();
        let name =
            |option: &Value| option["node"]["DefElem"]["defname"].as_str().unwrap_or_default().to_owned();
        if options.any(|option| ["analyze", "analyse"].contains(&&*name(option))) {
            self.unsafe_because("EXPLAIN ANALYZE");
        }
        let kind = object["query"]["node"]
            .as_object()
            .and_then(|node| node.keys().next().cloned())
            .unwrap_or_default();
        if !ROWS.contains(&&*kind) {
            self.unsafe_because(format!("EXPLAIN {kind}"));
            self.writes_any = true;
        }
    }

    fn function(&mut self, names: &Value, database: &Database) {
        let name = last(names).unwrap_or_default();
        if !database.is_safe(&name) {
            self.writes_any |= name != "nextval" && name != "system_user";
            self.unsafe_because(format!("function {name}"));
        }
        // In the definition of something else it is not called.
        let called = self.kinds.last().is_some_and(|kind| ROWS.contains(&&**kind));
        self.session |= called && ["currval", "lastval", "setseed", "pg_advisory_lock"].contains(&&*name);
    }

    fn name(&mut self, name: &str, what: &str) {
        if TAINTED.contains(&name) {
            self.unsafe_because(format!("tainted {what}"));
        }
    }
}

/// The last of a list of String nodes.
fn last(names: &Value) -> Option<String> {
    names.as_array()?.last()?["node"]["String"]["sval"].as_str().map(str::to_owned)
}
