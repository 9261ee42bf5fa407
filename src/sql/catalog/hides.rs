//! What functions leave in a session without a word of it in the texts that call them: by themselves, by what they call,
//! by the triggers of tables that they write to.
//!
//! By name, as all here: a text that mentions a name of these is taken to run what bears it. What a function in C does
//! nobody can see; those of extensions that are known to be harmless are left out.

use super::{
    super::{
        bodies,
        traces::{Asks, Traces},
    },
    body,
    build::Builder,
    build::is_trusted,
    names::{ASKS, HIDES, HIDES_MORE, LASTS},
};

/// All of them.
const FLAGS: u16 = HIDES | HIDES_MORE | ASKS | LASTS;
/// Most settings that are asked for.
const MOST_SETTINGS: usize = 64;

/// What mentions or calls what: name by name.
type Edges = Vec<(u32, Vec<u32>)>;

pub(super) fn fill(builder: &mut Builder<'_>) {
    let mut settings: Vec<Box<str>> = Vec::new();
    for at in 0..builder.rows.functions.len() {
        let flags = own_flags(builder, at, &mut settings);
        if let Some(name) = builder.function_names.get(at) {
            builder.catalog.names.mark(*name, flags);
        }
    }
    for (name, flags) in of_relations(builder, &mut settings) {
        builder.catalog.names.mark(name, flags);
    }
    spread(builder);
    settings.sort_unstable();
    builder.catalog.hidden_settings = settings.into();
    builder.catalog.hides = builder.catalog.names.with(FLAGS).next().is_some();
}

/// What a function does by itself.
fn own_flags(builder: &Builder<'_>, at: usize, settings: &mut Vec<Box<str>>) -> u16 {
    let Some(row) = builder.rows.functions.get(at) else { return 0 };
    let sql_body = row.sql_body.map(body::statements);
    let source = sql_body.as_deref().or(row.source).unwrap_or_default();
    match row.language {
        // Its components count.
        _ if row.kind == "a" => 0,
        "plpgsql" => flags_of(&bodies::of_procedural(source.as_bytes()), settings),
        "sql" => flags_of(&bodies::of_statements(source.as_bytes()), settings),
        "c" | "internal" if is_trusted(row) => 0,
        "c" | "internal" => HIDES,
        // They have variables of their own that outlive the transaction (GD, %_SHARED).
        _ => HIDES | HIDES_MORE | LASTS,
    }
}

fn flags_of(traces: &Traces, settings: &mut Vec<Box<str>>) -> u16 {
    let mut flags = if traces.are_none() { 0 } else { HIDES };
    flags |= if traces.unclear { HIDES_MORE } else { 0 };
    flags |= if traces.lasts { LASTS } else { 0 };
    flags |= if traces.asks == Asks::Nothing { 0 } else { ASKS };
    for name in &traces.names {
        if settings.contains(name) {
            continue;
        }
        if settings.len() < MOST_SETTINGS {
            settings.push(name.clone());
        } else {
            flags |= HIDES_MORE;
        }
    }
    flags
}

/// What views and rules do by their own words.
fn of_relations(builder: &Builder<'_>, settings: &mut Vec<Box<str>>) -> Vec<(u32, u16)> {
    let views = builder.rows.relations.iter().filter_map(|row| Some((row.oid, row.view?)));
    let rules = builder.rows.rules.iter().copied();
    let mut found = Vec::new();
    for (relation, text) in views.chain(rules) {
        let flags = flags_of(&bodies::of_statements(text.as_bytes()), settings);
        found.extend(name_of(builder, relation).map(|name| (name, flags)));
    }
    found
}

fn name_of(builder: &Builder<'_>, relation: u32) -> Option<u32> {
    builder.relation_names.get(*builder.relations.get(&relation)?).copied()
}

fn function_of(builder: &Builder<'_>, function: u32) -> Option<u32> {
    builder.function_names.get(*builder.functions.get(&function)?).copied()
}

/// Who mentions one of these does what it does; as often as that is deep.
fn spread(builder: &mut Builder<'_>) {
    let edges = edges(builder);
    let names = &mut builder.catalog.names;
    loop {
        let mut changed = false;
        for (name, mentioned) in &edges {
            let flags = mentioned.iter().fold(0, |flags, id| flags | names.flags_of(*id)) & FLAGS;
            changed |= names.mark(*name, flags);
        }
        if !changed {
            return;
        }
    }
}

fn edges(builder: &Builder<'_>) -> Edges {
    let rows = &builder.rows;
    let mut edges: Edges = Vec::new();
    for (facts, name) in builder.facts.iter().zip(&builder.function_names) {
        edges.extend(facts.as_ref().map(|facts| (*name, facts.words.clone())));
    }
    let views = rows.relations.iter().filter_map(|row| Some((row.oid, row.view?)));
    for (relation, text) in views.chain(rows.rules.iter().copied()) {
        let words = body::facts(text.as_bytes(), &builder.catalog.names).words;
        edges.extend(name_of(builder, relation).map(|name| (name, words)));
    }
    for (aggregate, component, _) in &rows.aggregates {
        let pair = function_of(builder, *aggregate).zip(function_of(builder, *component));
        edges.extend(pair.map(|(aggregate, component)| (aggregate, vec![component])));
    }
    let triggers = rows.triggers.iter().map(|row| (row.relation, row.function));
    let uses = rows.uses.iter().map(|(relation, _, function)| (*relation, *function));
    for (relation, function) in triggers.chain(uses) {
        let pair = name_of(builder, relation).zip(function_of(builder, function));
        edges.extend(pair.map(|(relation, function)| (relation, vec![function])));
    }
    // Rows of a child are written by way of its parents, and by the foreign keys of others.
    let changed = rows.inherits.iter().map(|(child, parent)| (*parent, *child));
    for (by, changed) in changed.chain(rows.foreign_keys.iter().map(|(changed, by)| (*by, *changed))) {
        let pair = name_of(builder, by).zip(name_of(builder, changed));
        edges.extend(pair.map(|(by, changed)| (by, vec![changed])));
    }
    edges
}
