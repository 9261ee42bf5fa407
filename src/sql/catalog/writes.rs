//! Which of the harmful functions and views may change relations. The others (nextval, locks, settings) need the primary,
//! but no read has to wait for them.

use super::{
    body::{self, Facts},
    build::{Builder, is_trusted},
    names::{FUNCTION_WRITES, OPERATOR_BAD, TAINT_WRITES},
};

/// Marks names, as often as a call is deep; each round adds something.
pub(super) fn spread(builder: &mut Builder<'_>) {
    let names = &builder.catalog.names;
    let views = builder.rows.relations.iter().filter_map(|row| Some((row.oid, row.view?)));
    let policies = builder.rows.policies.iter().copied();
    let texts: Vec<(u32, Facts)> = views
        .map(|(oid, text)| (oid, body::facts(text.as_bytes(), names)))
        .chain(policies.map(|(oid, text)| (oid, body::facts(format!("SELECT {text}").as_bytes(), names))))
        .collect();
    while functions(builder) | aggregates(builder) | relations(builder, &texts) {}
}

fn functions(builder: &mut Builder<'_>) -> bool {
    let mut changed = false;
    for (at, row) in builder.rows.functions.iter().enumerate() {
        let facts = builder.facts.get(at).and_then(Option::as_ref);
        let writes = match facts {
            Some(facts) => builder.bad.contains(&row.oid) && may_write(builder, facts),
            None => row.kind != "a" && !is_trusted(row),
        };
        if let (true, Some(name)) = (writes, builder.function_names.get(at)) {
            changed |= builder.catalog.names.mark(*name, FUNCTION_WRITES);
        }
    }
    changed
}

fn aggregates(builder: &mut Builder<'_>) -> bool {
    let mut changed = false;
    for (aggregate, component, good) in &builder.rows.aggregates {
        let name_of =
            |oid| builder.functions.get(oid).and_then(|at| builder.function_names.get(*at)).copied();
        let writes = match name_of(component) {
            Some(name) => builder.catalog.names.flags_of(name) & FUNCTION_WRITES != 0,
            None => !good,
        };
        if let (true, Some(name)) = (writes, name_of(aggregate)) {
            changed |= builder.catalog.names.mark(name, FUNCTION_WRITES);
        }
    }
    changed
}

/// Views, and tables with policies, that are tainted by what they call.
fn relations(builder: &mut Builder<'_>, texts: &[(u32, Facts)]) -> bool {
    let mut changed = false;
    for (oid, facts) in texts {
        if may_write(builder, facts) {
            changed |= builder.mark_relation(*oid, TAINT_WRITES);
        }
    }
    changed
}

/// Any function that is mentioned counts: it may be called as `row.name`.
fn may_write(builder: &Builder<'_>, facts: &Facts) -> bool {
    let names = &builder.catalog.names;
    facts.writes
        || facts.words.iter().any(|id| names.flags_of(*id) & (FUNCTION_WRITES | TAINT_WRITES) != 0)
        || facts.operators.iter().any(|id| names.flags_of(*id) & OPERATOR_BAD != 0)
}
