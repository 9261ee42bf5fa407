//! Protocol-level prepared statements, shared by text and parameter types.
//!
//! A client's name leads to an [`Arc<Statement>`]; a statement has one name on every server. The [`Registry`] makes
//! equal Parses meet; [`ServerStatements`] knows what one server has, least recently used first out.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use hashbrown::HashMap;
use lru::LruCache;

use super::interner::Interner;
use crate::protocol::{encode, frontend};

/// Bytes of statement texts that one server may hold before the oldest are closed.
const MAX_SERVER_BYTES: usize = 64 << 20;

/// A statement as the client wrote it.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    /// Unique in the process.
    pub id: u64,
    /// Name on servers.
    pub server_name: Box<[u8]>,
    /// Body of Parse behind the name: query, NUL, parameter types. Compared in full, never by hash alone.
    pub text_and_types: Box<[u8]>,
    /// The client's search_path when it was parsed, as far as it is known: the same text means something else
    /// under another one.
    search_path: Box<str>,
}

impl Statement {
    /// Appends a Parse under the server's name.
    pub fn write_parse(&self, out: &mut Vec<u8>) {
        write_parse(out, &self.server_name, &self.text_and_types);
    }

    /// Appends a Close of the server's name.
    pub fn write_close(&self, out: &mut Vec<u8>) {
        write_close(out, &self.server_name);
    }
}

/// Appends a Parse: statement name, then query, NUL and types as they are.
pub fn write_parse(out: &mut Vec<u8>, name: &[u8], text_and_types: &[u8]) {
    encode::message(out, frontend::PARSE, |b| {
        encode::cstr(b, name);
        b.extend_from_slice(text_and_types);
    });
}

/// Appends a Close of a statement.
pub fn write_close(out: &mut Vec<u8>, name: &[u8]) {
    encode::message(out, frontend::CLOSE, |b| {
        b.push(b'S');
        encode::cstr(b, name);
    });
}

/// All statements that any client or server of the process holds.
#[derive(Debug)]
pub struct Registry {
    statements: Interner<Statement>,
    next_id: AtomicU64,
    /// Makes server names that a client cannot meet by accident.
    prefix: String,
}

impl Registry {
    /// `token` makes the names of this process differ from those of another pooler on the same servers.
    pub fn new(token: u32) -> Self {
        let prefix = format!("pooler_{token:08x}_");
        Self { statements: Interner::default(), next_id: AtomicU64::new(1), prefix }
    }

    /// The statement with this text, these types and this search_path; made if nobody holds it.
    pub fn intern(&self, text_and_types: &[u8], search_path: &str) -> Arc<Statement> {
        self.statements.intern(
            &(text_and_types, search_path),
            |s| *s.text_and_types == *text_and_types && &*s.search_path == search_path,
            || {
                let id = self.next_id.fetch_add(1, Ordering::Relaxed);
                Statement {
                    id,
                    server_name: format!("{}{id}", self.prefix).into_bytes().into(),
                    text_and_types: text_and_types.into(),
                    search_path: search_path.into(),
                }
            },
        )
    }

    /// Whether a name is one of those that this process gives to servers.
    pub fn owns_name(&self, name: &[u8]) -> bool {
        name.starts_with(self.prefix.as_bytes())
    }
}

/// A client's own names.
#[derive(Debug, Default)]
pub struct ClientStatements {
    named: HashMap<Box<[u8]>, Arc<Statement>, foldhash::fast::RandomState>,
}

impl ClientStatements {
    /// The statement behind a name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.named.get(name)
    }

    /// Notes a Parse. The name must be free.
    pub fn insert(&mut self, name: &[u8], statement: Arc<Statement>) {
        self.named.insert(name.into(), statement);
    }

    /// Forgets a name.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        self.named.remove(name)
    }

    /// Forgets all (DEALLOCATE ALL, DISCARD ALL).
    pub fn clear(&mut self) {
        self.named = HashMap::default();
    }

    /// Names in use.
    pub fn len(&self) -> usize {
        self.named.len()
    }

    /// No name is in use.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }
}

/// What one server has prepared for the pooler.
#[derive(Debug)]
pub struct ServerStatements {
    lru: LruCache<u64, Arc<Statement>, foldhash::fast::RandomState>,
    bytes: usize,
    /// A statement may exist that is not in `lru`: prepare with a Close in front.
    doubtful: bool,
}

impl Default for ServerStatements {
    fn default() -> Self {
        Self {
            lru: LruCache::unbounded_with_hasher(foldhash::fast::RandomState::default()),
            bytes: 0,
            doubtful: false,
        }
    }
}

impl ServerStatements {
    /// Whether the server has it; counts as use.
    pub fn touch(&mut self, statement: &Statement) -> bool {
        self.lru.get(&statement.id).is_some()
    }

    /// Notes that the server has it (or will, when it gets there).
    pub fn insert(&mut self, statement: Arc<Statement>) {
        self.bytes += statement.text_and_types.len();
        self.lru.put(statement.id, statement);
    }

    /// Forgets one.
    pub fn remove(&mut self, statement: &Statement) {
        if let Some(gone) = self.lru.pop(&statement.id) {
            self.bytes -= gone.text_and_types.len();
        }
    }

    /// Forgets all (DEALLOCATE ALL, DISCARD ALL).
    pub fn clear(&mut self) {
        self.lru.clear();
        self.bytes = 0;
    }

    /// Takes out the least recently used one if there is no room for one more.
    pub fn evict(&mut self, limit: NonZeroUsize) -> Option<Arc<Statement>> {
        if self.lru.len() < limit.get() && self.bytes <= MAX_SERVER_BYTES {
            return None;
        }
        let (_, statement) = self.lru.pop_lru()?;
        self.bytes -= statement.text_and_types.len();
        Some(statement)
    }

    /// From now on a name may be taken that is not known here.
    pub fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// See [`Self::doubt`].
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Statements that the server has.
    pub fn len(&self) -> usize {
        self.lru.len()
    }

    /// The server has none.
    pub fn is_empty(&self) -> bool {
        self.lru.is_empty()
    }
}
