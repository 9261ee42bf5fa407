//! A database in which PostgreSQL's own functions are safe unless some of that name are volatile, and a few names taint.

use std::{collections::HashSet, fs, path::Path};

use pooler::sql::{Facts, Names, slot};

/// Not volatile, and yet no reads that are the same everywhere.
const UNSAFE: &[&str] = &[
    "pg_current_xact_id",
    "txid_current",
    "query_to_xml",
    "cursor_to_xml",
    "table_to_xml",
    "schema_to_xml",
    "database_to_xml",
];
/// Volatile, and harmless.
const HARMLESS: &[&str] = &["random", "clock_timestamp", "gen_random_uuid", "pg_sleep"];
pub const TAINTED: &[&str] = &["tainted", "pg_locks", "pg_stat_activity", "pg_settings"];
pub const UNSAFE_OPERATOR: &str = "<->";

pub struct Database {
    safe: HashSet<String>,
}

impl Database {
    pub fn read(source: &Path) -> Self {
        let file = source.join("src/include/catalog/pg_proc.dat");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let (mut all, mut volatile) = (HashSet::new(), HashSet::new());
        for entry in text.split("\n{").skip(1) {
            let value = |key: &str| {
                entry.split_once(&format!("{key} => '")).and_then(|(_, rest)| rest.split('\'').next())
            };
            let name = value("proname").unwrap_or_default().to_owned();
            if value("provolatile") == Some("v") && !HARMLESS.contains(&&*name) {
                volatile.insert(name.clone());
            }
            all.insert(name);
        }
        all.retain(|name| !volatile.contains(name) && !UNSAFE.contains(&&**name));
        Self { safe: all }
    }

    pub fn safe(&self) -> usize {
        self.safe.len()
    }

    pub fn is_safe(&self, name: &str) -> bool {
        self.safe.contains(name)
    }
}

fn within(list: &[&str], name: &[u8]) -> bool {
    list.iter().any(|known| known.as_bytes() == name)
}

impl Facts for Database {
    fn is_unknown(&self) -> bool {
        false
    }

    fn function_is_safe(&self, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|name| self.is_safe(name))
    }

    fn function_reads_anything(&self, _: &[u8]) -> bool {
        false
    }

    fn function_writes_nothing(&self, name: &[u8]) -> bool {
        self.function_is_safe(name) || name == b"nextval"
    }

    fn function_touches_session(&self, _: &[u8]) -> bool {
        false
    }

    fn relation_touches_session(&self, _: &[u8]) -> bool {
        false
    }

    fn is_tainted(&self, name: &[u8]) -> bool {
        within(TAINTED, name)
    }

    fn tainted_may_write(&self, _: &[u8]) -> bool {
        true
    }

    fn operator_is_safe(&self, operator: &[u8]) -> bool {
        operator != UNSAFE_OPERATOR.as_bytes()
    }

    fn add_reads(&self, name: &[u8], slots: &mut Vec<u16>) -> bool {
        slots.push(slot(name));
        true
    }

    fn writes_of(&self, name: &[u8]) -> Names {
        Names::Known([slot(name)].into())
    }
}
