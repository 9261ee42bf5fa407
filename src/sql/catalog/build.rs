//! From rows to a snapshot: every name first, then what bodies mention, then the proofs, then what reads and writes reach.

use hashbrown::{HashMap, HashSet};

use super::{
    Catalog, CatalogError, IsRead, body,
    body::Facts,
    builtin, effects, extensions, hides,
    names::{
        ATTRIBUTE, FUNCTION, FUNCTION_BAD, FUNCTION_READS, FUNCTION_SESSION, FUNCTION_WRITES, OPERATOR,
        RELATION, RELATION_SESSION, TAINT_WRITES, TAINTED,
    },
    proof,
    rows::{Function, Results, Rows},
    writes,
};

pub(super) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
pub(super) type Set<K> = HashSet<K, foldhash::fast::RandomState>;

/// What is known while a snapshot grows.
pub(super) struct Builder<'r> {
    pub(super) catalog: Catalog,
    pub(super) rows: Rows<'r>,
    /// By the order of `rows.functions`; `None` if the body cannot be looked into.
    pub(super) facts: Vec<Option<Facts>>,
    /// Numbers of names, by the order of the rows.
    pub(super) function_names: Vec<u32>,
    pub(super) relation_names: Vec<u32>,
    /// Places in `rows`, by oid.
    pub(super) functions: Map<u32, usize>,
    pub(super) relations: Map<u32, usize>,
    pub(super) types: Map<u32, &'r str>,
    /// Parents of a table that is a partition or a child.
    pub(super) parents: Map<u32, Vec<u32>>,
    /// User functions (oids) that are not proven harmless.
    pub(super) bad: Set<u32>,
    /// Views and tables with policies (oids) of which it cannot be told what they read.
    pub(super) opaque: Set<u32>,
}

pub(super) fn build(
    generation: u64,
    results: &Results,
    is_read: IsRead<'_>,
) -> Result<Catalog, CatalogError> {
    let rows = Rows::read(results)?;
    let mut builder = Builder {
        catalog: Catalog { generation: generation.max(1), ..Catalog::default() },
        facts: Vec::new(),
        function_names: Vec::new(),
        relation_names: Vec::new(),
        functions: index(rows.functions.iter().map(|function| function.oid)),
        relations: index(rows.relations.iter().map(|relation| relation.oid)),
        types: rows.types.iter().copied().collect(),
        parents: Map::default(),
        bad: Set::default(),
        opaque: Set::default(),
        rows,
    };
    builder.intern().ok_or(CatalogError::TooLarge)?;
    builder.taint_relations();
    builder.look_into_bodies();
    builder.spread_mentions();
    proof::prove(&mut builder, is_read);
    writes::spread(&mut builder);
    builder.sessions_of_relations();
    effects::fill(&mut builder);
    hides::fill(&mut builder);
    let mut catalog = builder.catalog;
    catalog.names.shrink();
    Ok(catalog)
}

fn index(oids: impl Iterator<Item = u32>) -> Map<u32, usize> {
    oids.zip(0..).collect()
}

/// A setting of synchronous_commit under which a commit is flushed before it is acknowledged.
fn is_flushed(setting: &str) -> bool {
    let value = setting.split_once('=').map_or(setting, |(_, value)| value);
    ["on", "local", "remote_write", "remote_apply", "true", "yes", "1"]
        .iter()
        .any(|v| v.eq_ignore_ascii_case(value))
}

impl Builder<'_> {
    /// Every name, with what is known of it at once. `None`: too many.
    fn intern(&mut self) -> Option<()> {
        let names = &mut self.catalog.names;
        for row in &self.rows.builtins {
            let mut flags = FUNCTION;
            let mut add = |condition, flag| flags |= if condition { flag } else { 0 };
            add(!builtin::is_safe(row.name, row.volatile, row.callable), FUNCTION_BAD);
            let safe = flags & FUNCTION_BAD == 0;
            let mut add = |condition, flag| flags |= if condition { flag } else { 0 };
            add(!safe && !builtin::writes_nothing(row.name), FUNCTION_WRITES);
            add(builtin::reads_anything(row.name), FUNCTION_READS);
            add(builtin::touches_session(row.name), FUNCTION_SESSION);
            names.add(row.name, flags)?;
        }
        for (_, name) in &self.rows.types {
            names.add(name, FUNCTION)?;
        }
        for (name, _) in &self.rows.operators {
            names.add(name, OPERATOR)?;
        }
        for row in &self.rows.functions {
            let attribute = if row.attribute { ATTRIBUTE } else { 0 };
            self.function_names.push(names.add(row.name, FUNCTION | attribute)?);
        }
        for row in &self.rows.relations {
            self.relation_names.push(names.add(row.name, RELATION)?);
        }
        for (child, parent) in &self.rows.inherits {
            self.parents.entry(*child).or_default().push(*parent);
        }
        Some(())
    }

    /// A table's ancestors.
    pub(super) fn ancestors(&self, relation: u32) -> Vec<u32> {
        let mut found = Vec::new();
        let mut open = vec![relation];
        while let Some(next) = open.pop() {
            for parent in self.parents.get(&next).into_iter().flatten() {
                if !found.contains(parent) {
                    found.push(*parent);
                    open.push(*parent);
                }
            }
        }
        found
    }

    /// Adds flags to the name of a relation; whether they are new.
    pub(super) fn mark_relation(&mut self, relation: u32, flags: u16) -> bool {
        let name = self.relations.get(&relation).and_then(|at| self.relation_names.get(*at));
        name.is_some_and(|name| self.catalog.names.mark(*name, flags))
    }

    /// Relations that are not the same on a standby. Whoever reads a parent reads its children.
    fn taint_relations(&mut self) {
        let mut tainted = Vec::new();
        for row in &self.rows.relations {
            let own = match row.kind {
                _ if row.builtin && row.schema != "pg_catalog" => false,
                kind if row.builtin => !builtin::relation_is_safe(row.name, kind == "v", row.shared),
                "f" | "S" => true,
                _ => row.unlogged,
            };
            if own {
                // A foreign table may be a view over there, which calls anything.
                let flags = if row.kind == "f" { TAINTED | TAINT_WRITES } else { TAINTED };
                tainted.push((row.oid, flags));
                tainted.extend(self.ancestors(row.oid).into_iter().map(|oid| (oid, flags)));
            }
        }
        for (oid, flags) in tainted {
            self.mark_relation(oid, flags);
        }
    }

    fn look_into_bodies(&mut self) {
        let names = &self.catalog.names;
        let all = self.rows.functions.iter().map(|row| {
            let body = row.sql_body.map(body::statements);
            let text = [body.as_deref().or(row.source), row.defaults]
                .map(Option::unwrap_or_default)
                .join(";SELECT ");
            matches!(row.language, "sql" | "plpgsql").then(|| body::facts(text.as_bytes(), names))
        });
        self.facts = all.collect();
        let settings = self.rows.functions.iter().filter_map(|row| row.settings);
        let mentioned = self.facts.iter().flatten().any(|facts| facts.async_commit)
            || settings.into_iter().any(|text| text.contains("synchronous_commit"));
        let set = !self.rows.commits.iter().all(|setting| is_flushed(setting));
        self.catalog.async_commits = mentioned || set || self.rows.commits.is_empty();
    }

    /// Which functions read, and touch the session, by themselves or by what they call.
    fn spread_mentions(&mut self) {
        for at in 0..self.rows.functions.len() {
            let (Some(row), Some(name)) = (self.rows.functions.get(at), self.function_names.get(at)) else {
                continue;
            };
            let mut flags = 0;
            let mut add = |condition, flag| flags |= if condition { flag } else { 0 };
            match self.facts.get(at).and_then(Option::as_ref) {
                Some(facts) => {
                    add(facts.reads, FUNCTION_READS);
                    add(facts.session, FUNCTION_SESSION);
                }
                None if row.kind == "a" => {}
                None => {
                    let safe = is_trusted(row);
                    let immutable = row.volatility == "i";
                    add(
                        !safe || extensions::c_reads(row.extension.unwrap_or(""), row.name, immutable),
                        FUNCTION_READS,
                    );
                    add(!safe, FUNCTION_SESSION);
                }
            }
            self.catalog.names.mark(*name, flags);
        }
        // As often as a call is deep; each round adds something.
        while self.spread_once() {}
    }

    fn spread_once(&mut self) -> bool {
        let names = &mut self.catalog.names;
        let mut changed = false;
        for (facts, name) in self.facts.iter().zip(&self.function_names) {
            let Some(facts) = facts else { continue };
            let attribute = |id: &&u32| names.flags_of(**id) & ATTRIBUTE != 0;
            let called = facts.calls.iter().chain(facts.words.iter().filter(attribute));
            let reads = called.fold(0, |flags, id| flags | names.flags_of(*id)) & FUNCTION_READS;
            let session =
                facts.words.iter().fold(0, |flags, id| flags | names.flags_of(*id)) & FUNCTION_SESSION;
            changed |= names.mark(*name, reads | session);
        }
        for (aggregate, component, _) in &self.rows.aggregates {
            let name_of = |oid| self.functions.get(oid).and_then(|at| self.function_names.get(*at)).copied();
            let (Some(name), Some(component)) = (name_of(aggregate), name_of(component)) else { continue };
            let flags = names.flags_of(component) & (FUNCTION_READS | FUNCTION_SESSION);
            changed |= names.mark(name, flags);
        }
        changed
    }

    /// Views whose functions touch the session, tables whose triggers and rules do.
    fn sessions_of_relations(&mut self) {
        let mut found: Vec<u32> = Vec::new();
        let names = &self.catalog.names;
        let touches = |text: &str| {
            let facts = body::facts(text.as_bytes(), names);
            facts.session || facts.words.iter().any(|id| names.flags_of(*id) & FUNCTION_SESSION != 0)
        };
        for row in &self.rows.relations {
            found.extend(row.view.is_some_and(touches).then_some(row.oid));
        }
        found.extend(self.rows.rules.iter().filter(|(_, text)| touches(text)).map(|(oid, _)| *oid));
        for row in &self.rows.triggers {
            let at = self.functions.get(&row.function);
            let name = at.and_then(|at| self.function_names.get(*at));
            let session = name.is_some_and(|name| names.flags_of(*name) & FUNCTION_SESSION != 0);
            found.extend(session.then_some(row.relation));
        }
        for oid in found {
            self.mark_relation(oid, RELATION_SESSION);
        }
    }
}

/// A function in C (or one of the server's own under another name) that is safe.
pub(super) fn is_trusted(row: &Function<'_>) -> bool {
    let constructor = row.language == "internal" && row.source.is_some_and(extensions::is_constructor);
    let in_c = matches!(row.language, "c" | "internal");
    constructor || (in_c && extensions::c_is_safe(row.extension, row.name, row.volatility == "v"))
}
