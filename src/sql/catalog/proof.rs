//! Which functions, views, policies, domains, operators and casts are harmless.
//!
//! All are taken for harmless at first; whatever mentions something harmful is struck, until a round strikes nothing. What
//! is left mentions only builtin things that are safe, and each other: no chain of calls leads to harm, not in recursion
//! either.

use super::{
    Catalog, IsRead, Names,
    body::{self, Facts},
    build::{Builder, Set, is_trusted},
    names::{ATTRIBUTE, FUNCTION_BAD, OPERATOR_BAD, TAINT_WRITES, TAINTED},
    rows::Function,
};

/// Longest chain of dependencies, against the order in which things were made, that is followed. Then all that is left
/// is struck.
const ROUNDS: usize = 100;

/// Operators that keywords stand for (LIKE, IN, BETWEEN, DISTINCT, ORDER BY, …).
const SILENT: [&str; 12] = ["!~", "!~~", "!~~*", "<", "<=", "<>", "=", ">", ">=", "~", "~~", "~~*"];

pub(super) fn prove(builder: &mut Builder<'_>, is_read: IsRead<'_>) {
    let mut proof = Proof { builder, is_read, domains: Set::default(), casts: Set::default() };
    for _ in 0..ROUNDS {
        if !proof.round() {
            return;
        }
    }
    proof.builder.catalog.poison = Some("views or functions nested too deep".into());
}

struct Proof<'b, 'r> {
    builder: &'b mut Builder<'r>,
    is_read: IsRead<'b>,
    /// Domains (oids of types) whose conditions are harmful.
    domains: Set<u32>,
    /// Casts (source, target) struck already.
    casts: Set<(u32, u32)>,
}

impl Proof<'_, '_> {
    /// Strikes what mentions harm; whether there was something.
    fn round(&mut self) -> bool {
        let mut changed = self.domains();
        changed |= self.functions();
        changed |= self.aggregates();
        changed |= self.operators();
        changed |= self.casts();
        changed |= self.views();
        changed |= self.policies();
        changed
    }

    fn read(&self, text: &str) -> Option<Names> {
        (self.is_read)(text.as_bytes(), &self.builder.catalog)
    }

    fn expression_is_read(&self, expression: &str) -> bool {
        self.read(&format!("SELECT {expression}")).is_some()
    }

    fn domains(&mut self) -> bool {
        let rows = self.builder.rows.domains.iter();
        let open = rows
            .filter(|(oid, condition)| !self.domains.contains(oid) && !self.expression_is_read(condition));
        let found: Vec<u32> = open.map(|(oid, _)| *oid).collect();
        for oid in &found {
            self.domains.insert(*oid);
            self.taint_type(*oid);
        }
        !found.is_empty()
    }

    fn taint_type(&mut self, oid: u32) {
        let catalog = &mut self.builder.catalog;
        if let Some(id) = self.builder.types.get(&oid).and_then(|name| catalog.names.find(name.as_bytes())) {
            catalog.names.mark(id, TAINTED | TAINT_WRITES);
        }
    }

    fn functions(&mut self) -> bool {
        let mut changed = false;
        for at in 0..self.builder.rows.functions.len() {
            let Some(row) = self.builder.rows.functions.get(at) else { continue };
            if row.kind == "a" || self.builder.bad.contains(&row.oid) {
                continue;
            }
            let facts = self.builder.facts.get(at).and_then(Option::as_ref);
            if !self.is_harmless(row, facts) {
                changed = true;
                self.strike(row.oid, at);
            }
        }
        changed
    }

    fn strike(&mut self, oid: u32, at: usize) {
        self.builder.bad.insert(oid);
        if let Some(name) = self.builder.function_names.get(at) {
            self.builder.catalog.names.mark(*name, FUNCTION_BAD);
        }
    }

    fn is_harmless(&self, row: &Function<'_>, facts: Option<&Facts>) -> bool {
        if row.arguments.iter().any(|argument| self.domains.contains(argument)) {
            return false;
        }
        match (row.language, facts) {
            ("plpgsql", Some(facts)) => is_proven(facts, &self.builder.catalog),
            // In a body that is kept as text a backslash means what the setting of the day says.
            ("sql", Some(facts)) if facts.unclear && row.sql_body.is_none() => false,
            ("sql", Some(_)) => {
                let body = row.sql_body.map(body::statements);
                let body = body.as_deref().or(row.source).unwrap_or_default();
                self.read(body).is_some()
                    && row.defaults.is_none_or(|defaults| self.expression_is_read(defaults))
            }
            _ => is_trusted(row),
        }
    }

    fn aggregates(&mut self) -> bool {
        let rows = self.builder.rows.aggregates.iter();
        let bad = &self.builder.bad;
        let harmed = rows.filter(|(_, component, good)| {
            bad.contains(component) || (!good && !self.builder.functions.contains_key(component))
        });
        let found: Vec<u32> = harmed.map(|(oid, ..)| *oid).filter(|oid| !bad.contains(oid)).collect();
        for oid in &found {
            if let Some(at) = self.builder.functions.get(oid) {
                self.strike(*oid, *at);
            }
        }
        // Only what was struck can be struck once; aggregates in schemas of others' temporary objects are not known.
        found.iter().any(|oid| self.builder.functions.contains_key(oid))
    }

    /// A function behind an operator or a cast is harmful. Those in C that are not volatile are trusted here, whatever
    /// their extension: an operator of a foreign type must not make `=` harmful for all.
    fn implements_harm(&self, oid: u32) -> bool {
        let Some(row) = self.builder.functions.get(&oid).and_then(|at| self.builder.rows.functions.get(*at))
        else {
            // A builtin function that a user made an operator of.
            return oid >= 16384;
        };
        let in_c = matches!(row.language, "c" | "internal") && row.volatility != "v";
        !in_c && self.builder.bad.contains(&oid)
    }

    fn operators(&mut self) -> bool {
        let rows = self.builder.rows.operators.iter();
        let harmed = rows.filter(|(_, function)| function.is_some_and(|oid| self.implements_harm(oid)));
        let names: Vec<&str> = harmed.map(|(name, _)| *name).collect();
        let mut changed = false;
        for name in names {
            let catalog = &mut self.builder.catalog;
            let id = catalog.names.find(name.as_bytes());
            if id.is_some_and(|id| catalog.names.mark(id, OPERATOR_BAD)) {
                changed = true;
                if SILENT.contains(&name) {
                    catalog.poison = Some(format!("operator {name}").into());
                }
            }
        }
        changed
    }

    /// A harmful cast taints the user's type that it is from or to, and tables with columns of that type.
    fn casts(&mut self) -> bool {
        let rows = self.builder.rows.casts.iter();
        let harmed = rows.filter(|(source, target, function)| {
            !self.casts.contains(&(*source, *target)) && self.implements_harm(*function)
        });
        let found: Vec<(u32, u32)> = harmed.map(|(source, target, _)| (*source, *target)).collect();
        for (source, target) in &found {
            self.casts.insert((*source, *target));
            let known = |oid: &u32| *oid >= 16384 && self.builder.types.contains_key(oid);
            let types: Vec<u32> = [*source, *target].into_iter().filter(known).collect();
            if types.is_empty() {
                self.builder.catalog.poison = Some(format!("cast from type {source} to {target}").into());
            }
            for oid in types {
                self.taint_type(oid);
                let columns = self.builder.rows.columns.iter().filter(|(_, column)| *column == oid);
                let relations: Vec<u32> = columns.map(|(relation, _)| *relation).collect();
                for relation in relations {
                    self.taint(relation);
                }
            }
        }
        !found.is_empty()
    }

    /// Whoever reads a parent reads its children.
    fn taint(&mut self, relation: u32) -> bool {
        let mut changed = self.builder.mark_relation(relation, TAINTED | TAINT_WRITES);
        for ancestor in self.builder.ancestors(relation) {
            changed |= self.builder.mark_relation(ancestor, TAINTED | TAINT_WRITES);
        }
        changed
    }

    fn views(&mut self) -> bool {
        let rows = self.builder.rows.relations.iter();
        let verdicts: Vec<(u32, Option<Names>)> =
            rows.filter_map(|row| Some((row.oid, self.read(row.view?)))).collect();
        self.note(verdicts)
    }

    /// Policies are part of every text that mentions their table. They may not ask for a setting (current_setting is not
    /// safe): what a client set is on its own connection, and a replica would show other rows without an error. Who
    /// asks (CURRENT_USER) is the same there.
    fn policies(&mut self) -> bool {
        let rows = self.builder.rows.policies.iter();
        let verdicts: Vec<(u32, Option<Names>)> =
            rows.map(|(oid, condition)| (*oid, self.read(&format!("SELECT {condition}")))).collect();
        self.note(verdicts)
    }

    /// What texts of relations read. One with a harmful text is tainted: by name, so with its namesakes.
    fn note(&mut self, verdicts: Vec<(u32, Option<Names>)>) -> bool {
        let mut changed = false;
        for (oid, verdict) in verdicts {
            match verdict {
                Some(Names::Known(_)) => {}
                Some(Names::Any) => _ = self.builder.opaque.insert(oid),
                None => {
                    self.builder.opaque.insert(oid);
                    changed |= self.builder.mark_relation(oid, TAINTED);
                }
            }
        }
        changed
    }
}

/// PL/pgSQL: nothing harmful of its own, and nothing among what it calls and mentions.
pub(super) fn is_proven(facts: &Facts, catalog: &Catalog) -> bool {
    let names = &catalog.names;
    let tainted = |id: &u32| {
        let flags = names.flags_of(*id);
        flags & TAINTED != 0 || flags & (ATTRIBUTE | FUNCTION_BAD) == ATTRIBUTE | FUNCTION_BAD
    };
    !catalog.is_unknown()
        && !facts.harmful
        && !facts.words.iter().any(tainted)
        && facts.calls.iter().all(|id| names.flags_of(*id) & FUNCTION_BAD == 0)
        && facts.operators.iter().all(|id| names.flags_of(*id) & OPERATOR_BAD == 0)
}
