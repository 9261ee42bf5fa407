//! Protocol-level prepared statements, shared by text and parameter types.
//!
//! A client's name leads to an [`Arc<Statement>`]; a statement has one name on every server. The [`Registry`] makes
//! equal Parses meet; [`ServerStatements`] knows what one server has, least recently used first out.
//!
//! A server that prepared a text before a table was altered goes on with what it understood then, and refuses to run
//! it once its columns are others (plancache.c: "cached plan must not change result type"). A client that prepares
//! after the change must not be told so because of a copy that is shared. Hence a client's Parse reaches the server, in
//! place of the copy that is there, unless that copy is younger than a second and no statement that may alter a table
//! has passed since (only such a change by others, within that time, can still show). Behind every Parse the pooler
//! asks for parameters and columns: when they differ from what was last understood, the copies on other servers are
//! outdated, and are prepared anew before their next use. A client that prepared before the change gets PostgreSQL's
//! error, as it would without a pooler, also where the copy is a new one: it would take rows, and send values, for
//! what they were. Hence its Bind waits until a copy that is new on this server is known to mean what the client was
//! told. (Running its batch once more instead would need a copy of every batch.)

use std::{
    hash::{BuildHasher as _, Hash},
    num::{NonZeroU64, NonZeroUsize},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use hashbrown::HashMap;
use lru::LruCache;

use super::{
    interner::Interner,
    luggage::{PackedStatement, packed, unpacked},
    text::{TextEffect, effect_of},
};
use crate::{
    protocol::{encode, frame::split_cstr, frontend},
    sql::{Catalog, Class, traces::Traces},
};

/// So long (microseconds) a copy serves clients that prepare the same text, without asking the server.
const RECENT: u64 = 1_000_000;

/// Bytes of statement texts that one server may hold before the oldest are closed.
const MAX_SERVER_BYTES: usize = 64 << 20;

/// A statement as the client wrote it.
#[derive(Debug)]
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
    pub effect: Option<Box<TextEffect>>,
    /// Goes up whenever servers are found to understand the text in another way.
    generation: AtomicU32,
    understood: Mutex<Understood>,
    /// What it does, by the catalog of this generation.
    class: RwLock<Option<(u64, Arc<Class>)>>,
    /// What functions leave when it is executed, by the catalog of this generation.
    hidden: RwLock<Option<(u64, Option<Arc<Traces>>)>>,
}

/// What a server made of a text.
#[derive(Debug, Default)]
struct Understood {
    /// Body of ParameterDescription: number and types, as Parse has them.
    parameters: Option<Box<[u8]>>,
    /// Hash of RowDescription; of nothing for a statement without rows.
    row: Option<u64>,
}

impl Statement {
    /// What it does, as far as the catalog of this generation can tell; found out once for each.
    pub fn class(&self, generation: u64, classify: impl FnOnce(&[u8]) -> Class) -> Arc<Class> {
        let known = self.class.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, class)) = known.as_ref().filter(|(of, _)| *of == generation) {
            return Arc::clone(class);
        }
        drop(known);
        let text = split_cstr(&self.text_and_types).map_or(&*self.text_and_types, |(text, _)| text);
        let class = Arc::new(classify(text));
        *self.class.write().unwrap_or_else(PoisonError::into_inner) = Some((generation, Arc::clone(&class)));
        class
    }

    /// What functions leave in the session when it is executed; found out once for each catalog.
    pub fn hidden(&self, catalog: &Catalog) -> Option<Arc<Traces>> {
        let known = self.hidden.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, hidden)) = known.as_ref().filter(|(of, _)| *of == catalog.generation) {
            return hidden.clone();
        }
        drop(known);
        let text = split_cstr(&self.text_and_types).map_or(&*self.text_and_types, |(text, _)| text);
        let hidden = catalog.hidden_in(text).map(Arc::from);
        // What is unknown may be known at any time.
        if catalog.generation != 0 {
            *self.hidden.write().unwrap_or_else(PoisonError::into_inner) =
                Some((catalog.generation, hidden.clone()));
        }
        hidden
    }

    /// Appends a Parse under the server's name, as the client wrote it.
    pub fn write_parse(&self, out: &mut Vec<u8>) {
        write_parse(out, &self.server_name, &self.text_and_types);
    }

    /// Appends a Parse for a client that has prepared on another server: with the types that it was told there.
    pub fn write_parse_again(&self, out: &mut Vec<u8>) {
        let understood = self.understood.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(types), Some((text, _))) = (&understood.parameters, split_cstr(&self.text_and_types))
        else {
            return self.write_parse(out);
        };
        encode::message(out, frontend::PARSE, |b| {
            encode::cstr(b, &self.server_name);
            encode::cstr(b, text);
            b.extend_from_slice(types);
        });
    }

    /// Appends a Describe of the server's name.
    pub fn write_describe(&self, out: &mut Vec<u8>) {
        encode::message(out, frontend::DESCRIBE, |b| {
            b.push(b'S');
            encode::cstr(b, &self.server_name);
        });
    }

    /// Takes the body of a ParameterDescription.
    fn learn_parameters(&self, types: &[u8]) {
        let mut understood = self.understood.lock().unwrap_or_else(PoisonError::into_inner);
        if understood.parameters.as_deref() == Some(types) {
            return;
        }
        if understood.parameters.replace(types.into()).is_some() {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Elsewhere, that is: what servers say to this process counts for more.
    fn was_understood(&self, types: &[u8]) {
        let mut understood = self.understood.lock().unwrap_or_else(PoisonError::into_inner);
        understood.parameters.get_or_insert_with(|| types.into());
    }

    /// Takes the body of a RowDescription; empty for NoData.
    fn learn_row(&self, row: &[u8]) {
        let row = hash(row);
        let mut understood = self.understood.lock().unwrap_or_else(PoisonError::into_inner);
        if understood.row.replace(row).is_some_and(|known| known != row) {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Appends a Close of the server's name.
    pub fn write_close(&self, out: &mut Vec<u8>) {
        write_close(out, &self.server_name);
    }
}

/// Name, type and modifier of the columns in the body of a RowDescription; not of which table they are: as PostgreSQL compares
/// them (equalTupleDescs).
fn columns(row: &[u8]) -> Option<Vec<(&[u8], u32, u32)>> {
    let Some((_, mut rest)) = row.split_first_chunk::<2>() else { return row.is_empty().then(Vec::new) };
    let mut columns = Vec::new();
    while !rest.is_empty() {
        let (name, behind) = split_cstr(rest)?;
        // Table, number, type, length, modifier, format.
        let (&[_, _, _, _, _, _, t1, t2, t3, t4, _, _, m1, m2, m3, m4, _, _], behind) =
            behind.split_first_chunk()?;
        columns.push((name, u32::from_be_bytes([t1, t2, t3, t4]), u32::from_be_bytes([m1, m2, m3, m4])));
        rest = behind;
    }
    Some(columns)
}

fn hash(described: impl Hash) -> u64 {
    foldhash::quality::FixedState::default().hash_one(described)
}

/// Differs where hashes do.
pub(super) fn scheme() -> u64 {
    hash("pooler")
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
    /// Goes up with every statement that may alter what a text means.
    schema: AtomicU64,
    /// Makes server names that a client cannot meet by accident.
    prefix: String,
}

impl Registry {
    /// `token` makes the names of this process differ from those of another pooler on the same servers.
    pub fn new(token: u32) -> Self {
        let prefix = format!("pooler_{token:08x}_");
        Self {
            statements: Interner::default(),
            next_id: AtomicU64::new(1),
            schema: AtomicU64::new(0),
            prefix,
        }
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
                    effect: effect_of(text_and_types).map(Box::new),
                    generation: AtomicU32::new(0),
                    understood: Mutex::default(),
                    class: RwLock::default(),
                    hidden: RwLock::default(),
                }
            },
        )
    }

    /// How many there are, those included that nobody holds any more and that have not been swept out.
    pub fn len(&self) -> usize {
        self.statements.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// A table, type or function has been altered, or is about to be.
    pub fn schema_changed(&self) {
        self.schema.fetch_add(1, Ordering::AcqRel);
    }

    /// For copies that are prepared at `now` (microseconds).
    pub fn moment(&self, now: u64) -> Moment {
        Moment { now, schema: self.schema.load(Ordering::Acquire) }
    }

    /// How names begin that this process gives to servers.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether a name is one of those that this process gives to servers.
    pub fn owns_name(&self, name: &[u8]) -> bool {
        name.starts_with(self.prefix.as_bytes())
    }
}

/// Parameters and columns of a statement, as a server has described them.
pub type Meaning = NonZeroU64;

/// A client's own names.
#[derive(Debug, Default)]
pub struct ClientStatements {
    named: HashMap<Box<[u8]>, Named, foldhash::fast::RandomState>,
}

#[derive(Debug)]
struct Named {
    statement: Arc<Statement>,
    /// What it meant when the client prepared it, once the server has said so.
    told: Option<Meaning>,
}

impl ClientStatements {
    /// The statement behind a name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.named.get(name).map(|named| &named.statement)
    }

    /// Notes a Parse. The name must be free.
    pub fn insert(&mut self, name: &[u8], statement: Arc<Statement>) {
        self.named.insert(name.into(), Named { statement, told: None });
    }

    /// Notes what the client's Parse has come to mean.
    pub fn tell(&mut self, name: &[u8], statement: &Statement, meaning: Option<Meaning>) {
        if let Some(named) = self.named.get_mut(name).filter(|named| named.statement.id == statement.id) {
            named.told = meaning;
        }
    }

    /// All names, for another process.
    pub(super) fn pack(&self) -> Vec<PackedStatement> {
        let pack = |name: &[u8], named: &Named| {
            let statement = &named.statement;
            let understood = statement.understood.lock().unwrap_or_else(PoisonError::into_inner);
            PackedStatement {
                name: packed(name),
                text_and_types: packed(&statement.text_and_types),
                search_path: statement.search_path.to_string(),
                told: named.told.map(Meaning::get),
                parameters: understood.parameters.as_deref().map(packed),
            }
        };
        self.named.iter().map(|(name, named)| pack(name, named)).collect()
    }

    /// The names of a client of another process. `meanings`: that one makes them as this one does.
    pub(super) fn unpack(all: &[PackedStatement], registry: &Registry, meanings: bool) -> Option<Self> {
        let mut statements = Self::default();
        for one in all {
            let statement = registry.intern(&unpacked(&one.text_and_types)?, &one.search_path);
            if let Some(parameters) = &one.parameters {
                statement.was_understood(&unpacked(parameters)?);
            }
            let told = one.told.filter(|_| meanings).and_then(Meaning::new);
            statements.named.insert(unpacked(&one.name)?.into(), Named { statement, told });
        }
        Some(statements)
    }

    /// The statement behind a name, and what it meant when it was prepared.
    pub fn told(&self, name: &[u8]) -> Option<(&Arc<Statement>, Meaning)> {
        self.named.get(name).and_then(|named| Some((&named.statement, named.told?)))
    }

    /// Forgets a name.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        self.named.remove(name).map(|named| named.statement)
    }

    /// Forgets all (DEALLOCATE ALL, DISCARD ALL).
    pub fn clear(&mut self) {
        self.named = HashMap::default();
    }

    /// A name for the statement that has this one on servers. Looks at all.
    pub fn name_of(&self, server_name: &[u8]) -> Option<&[u8]> {
        self.named.iter().find(|(_, n)| *n.statement.server_name == *server_name).map(|(name, _)| &**name)
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

/// Whether a server has a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// It can be used.
    Fresh,
    /// Its name is taken, but it has to be prepared anew.
    Outdated,
    Missing,
}

impl Copy {
    fn of(prepared: Option<&Prepared>) -> Self {
        match prepared {
            Some(copy) if copy.generation == copy.statement.generation.load(Ordering::Acquire) => Self::Fresh,
            Some(_) => Self::Outdated,
            None => Self::Missing,
        }
    }
}

/// A message of the reply to Describe of a statement, by its body.
#[derive(Clone, Copy, Debug)]
pub enum Description<'a> {
    Parameters(&'a [u8]),
    /// Empty if there are no rows.
    Row(&'a [u8]),
}

/// When a copy was prepared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    now: u64,
    schema: u64,
}

/// A server's copy of a statement.
#[derive(Debug)]
struct Prepared {
    statement: Arc<Statement>,
    /// The statement's generation when it was prepared.
    generation: u32,
    since: Moment,
    /// What the server has said on it.
    meaning: Option<Meaning>,
}

/// What one server has prepared for the pooler.
#[derive(Debug)]
pub struct ServerStatements {
    lru: LruCache<u64, Prepared, foldhash::fast::RandomState>,
    bytes: usize,
    /// Hash of the parameters of the statement that the server is describing.
    parameters: u64,
    /// A statement may exist that is not in `lru`: prepare with a Close in front.
    doubtful: bool,
}

impl Default for ServerStatements {
    fn default() -> Self {
        Self {
            lru: LruCache::unbounded_with_hasher(foldhash::fast::RandomState::default()),
            bytes: 0,
            parameters: 0,
            doubtful: false,
        }
    }
}

impl ServerStatements {
    /// Whether the server has it; counts as use.
    pub fn touch(&mut self, statement: &Statement) -> Copy {
        Copy::of(self.lru.get(&statement.id))
    }

    /// Whether the server has it.
    pub fn copy_of(&self, statement: &Statement) -> Copy {
        Copy::of(self.lru.peek(&statement.id))
    }

    /// Whether a client that prepares now would get just this copy.
    pub fn is_recent(&self, statement: &Statement, at: Moment) -> bool {
        self.lru.peek(&statement.id).is_some_and(|copy| {
            copy.since.schema == at.schema && at.now.saturating_sub(copy.since.now) < RECENT
        })
    }

    /// Notes that the server has it (or will, when it gets there).
    pub fn insert(&mut self, statement: Arc<Statement>, since: Moment) {
        let generation = statement.generation.load(Ordering::Acquire);
        self.put(Prepared { statement, generation, since, meaning: None });
    }

    /// Notes that the server has kept a copy of which nothing more is known.
    pub fn insert_outdated(&mut self, statement: Arc<Statement>) {
        let generation = statement.generation.load(Ordering::Acquire).wrapping_sub(1);
        let since = Moment::default();
        self.put(Prepared { statement, generation, since, meaning: None });
    }

    fn put(&mut self, copy: Prepared) {
        let (id, bytes) = (copy.statement.id, copy.statement.text_and_types.len());
        if self.lru.put(id, copy).is_none() {
            self.bytes += bytes;
        }
    }

    /// What the server says on the statement that it has just prepared (a part of the reply to Describe). Returns what all of
    /// it means.
    pub fn learn(&mut self, statement: &Statement, description: Description<'_>) -> Option<Meaning> {
        let meaning = match description {
            Description::Parameters(types) => {
                statement.learn_parameters(types);
                self.parameters = hash(types);
                None
            }
            Description::Row(row) => {
                statement.learn_row(row);
                let columns = columns(row).unwrap_or_else(|| vec![(row, 0, 0)]);
                Meaning::new(hash((self.parameters, columns)) | 1)
            }
        };
        if let Some(copy) = self.lru.peek_mut(&statement.id) {
            copy.generation = statement.generation.load(Ordering::Acquire);
            copy.meaning = meaning;
        }
        meaning
    }

    /// What the server has said on its copy.
    pub fn meaning_of(&self, statement: &Statement) -> Option<Meaning> {
        self.lru.peek(&statement.id)?.meaning
    }

    /// One of the copies is outdated, and so may be the others, here and on other servers.
    pub fn outdate(&mut self) {
        for (_, copy) in &self.lru {
            let next = copy.generation.wrapping_add(1);
            // If it has changed meanwhile, the copy is outdated as it is.
            let _ = copy.statement.generation.compare_exchange(
                copy.generation,
                next,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
        }
    }

    /// Forgets one.
    pub fn remove(&mut self, statement: &Statement) {
        if let Some(gone) = self.lru.pop(&statement.id) {
            self.bytes -= gone.statement.text_and_types.len();
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
        let (_, evicted) = self.lru.pop_lru()?;
        self.bytes -= evicted.statement.text_and_types.len();
        Some(evicted.statement)
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
