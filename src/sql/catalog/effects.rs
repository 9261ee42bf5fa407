//! What is read where a relation is mentioned, and what changes where it is written.
//!
//! Partitions and children: a write to a table counts for the table and its ancestors, and a read of a table is one of
//! the table and its ancestors. So whatever may share rows shares a slot (a write to the parent may hit the child that is
//! read; a write to the child is seen in the parent), and no list grows with the number of partitions.

use super::{
    super::slot,
    body,
    build::{Builder, Map, Set},
    builtin,
    names::{ANY, OWN},
    proof,
};

pub(super) fn fill(builder: &mut Builder<'_>) {
    let effects = Effects::new(builder);
    // By name: all its relations together. `None`: anything.
    let mut found: Map<u32, [Option<Vec<u16>>; 2]> = Map::default();
    for (row, name) in builder.rows.relations.iter().zip(&builder.relation_names) {
        // Nobody writes there, and its names are those of many a user's table (attributes, views, …).
        if row.builtin && row.schema == "information_schema" {
            continue;
        }
        let sides = [effects.reads(row.oid), effects.writes(row.oid)];
        let entry = found.entry(*name).or_insert_with(|| [const { Some(Vec::new()) }; 2]);
        for (all, side) in entry.iter_mut().zip(sides) {
            *all = all.take().zip(side).map(|(all, side)| [all, side].concat());
        }
    }
    let mut lists = Lists::default();
    for (name, [reads, writes]) in found {
        let own = builder.catalog.names.bytes_of(name).map_or(0, slot);
        let (reads, writes) = (lists.keep(own, reads), lists.keep(own, writes));
        builder.catalog.names.set_effects(name, reads, writes);
    }
    builder.catalog.lists = lists.places.into();
    builder.catalog.slots = lists.slots.into();
}

/// Lists of slots, each once.
#[derive(Default)]
struct Lists {
    known: Map<Vec<u16>, u32>,
    places: Vec<(u32, u32)>,
    slots: Vec<u16>,
}

impl Lists {
    fn keep(&mut self, own: u16, list: Option<Vec<u16>>) -> u32 {
        let Some(mut list) = list else { return ANY };
        list.sort_unstable();
        list.dedup();
        if list == [own] {
            return OWN;
        }
        if let Some(known) = self.known.get(&list) {
            return *known;
        }
        let (Ok(number), Ok(start), Ok(end)) = (
            u32::try_from(self.places.len()),
            u32::try_from(self.slots.len()),
            u32::try_from(self.slots.len() + list.len()),
        ) else {
            return ANY;
        };
        self.places.push((start, end));
        self.slots.extend_from_slice(&list);
        self.known.insert(list, number);
        number
    }
}

/// Tables that share rows through inheritance are one family, named by one of them.
struct Effects<'b, 'r> {
    builder: &'b Builder<'r>,
    families: Map<u32, u32>,
    /// Relations that the text of a view or the policies of a table mention.
    mentions: Map<u32, Vec<u32>>,
    /// By family: tables that foreign keys change along with one of it.
    cascades: Map<u32, Vec<u32>>,
    /// Families of which a member does what cannot be told.
    wild: Set<u32>,
}

impl<'b, 'r> Effects<'b, 'r> {
    fn new(builder: &'b Builder<'r>) -> Self {
        let mut effects = Self {
            builder,
            families: families(&builder.rows.inherits),
            mentions: Map::default(),
            cascades: Map::default(),
            wild: Set::default(),
        };
        for (relation, mentioned) in &builder.rows.mentions {
            effects.mentions.entry(*relation).or_default().push(*mentioned);
        }
        for (changed, by) in &builder.rows.foreign_keys {
            let family = effects.family(*by);
            effects.cascades.entry(family).or_default().push(*changed);
        }
        effects.wild = effects.wild_ones().into_iter().map(|relation| effects.family(relation)).collect();
        effects
    }

    fn family(&self, relation: u32) -> u32 {
        self.families.get(&relation).copied().unwrap_or(relation)
    }

    /// Relations whose writes may do anything.
    fn wild_ones(&self) -> Vec<u32> {
        let rows = &self.builder.rows;
        let kinds = rows.relations.iter().filter(|row| row.builtin || !matches!(row.kind, "r" | "p"));
        let mut found: Vec<u32> = kinds.map(|row| row.oid).collect();
        found.extend(rows.rules.iter().map(|(relation, _)| *relation));
        for trigger in &rows.triggers {
            let harmless = match trigger.builtin {
                Some(name) => builtin::trigger_is_safe(name),
                None => !self.builder.bad.contains(&trigger.function),
            };
            if !harmless || trigger.definition.is_some_and(|text| !self.condition_is_harmless(text)) {
                found.push(trigger.relation);
            }
        }
        for (relation, domain, function) in &rows.uses {
            if self.builder.bad.contains(function) {
                found.push(*relation);
                let columns = rows.columns.iter().filter(|(_, column)| *domain != 0 && column == domain);
                found.extend(columns.map(|(relation, _)| *relation));
            }
        }
        found
    }

    /// The condition of `CREATE TRIGGER … WHEN (…) EXECUTE FUNCTION …`.
    fn condition_is_harmless(&self, definition: &str) -> bool {
        let condition = definition.split_once(" WHEN ").and_then(|(_, rest)| rest.rsplit_once(" EXECUTE "));
        condition.is_some_and(|(condition, _)| {
            let text = format!("SELECT {condition}");
            proof::is_proven(
                &body::facts(text.as_bytes(), &self.builder.catalog.names),
                &self.builder.catalog,
            )
        })
    }

    /// Slots of a relation and of its ancestors.
    fn add(&self, relation: u32, slots: &mut Vec<u16>) {
        for oid in [relation].into_iter().chain(self.builder.ancestors(relation)) {
            let row = self.builder.relations.get(&oid).and_then(|at| self.builder.rows.relations.get(*at));
            slots.extend(row.map(|row| slot(row.name.as_bytes())));
        }
    }

    /// `None`: it cannot be told.
    fn reads(&self, relation: u32) -> Option<Vec<u16>> {
        let mut slots = Vec::new();
        let mut seen: Set<u32> = [relation].into_iter().collect();
        let mut open = vec![relation];
        while let Some(next) = open.pop() {
            if self.builder.opaque.contains(&next) {
                return None;
            }
            self.add(next, &mut slots);
            let mentioned = self.mentions.get(&next).into_iter().flatten().copied();
            open.extend(mentioned.filter(|oid| seen.insert(*oid)));
        }
        Some(slots)
    }

    /// `None`: it may change anything.
    fn writes(&self, relation: u32) -> Option<Vec<u16>> {
        let mut slots = Vec::new();
        self.add(relation, &mut slots);
        let mut seen: Set<u32> = [self.family(relation)].into_iter().collect();
        let mut open = vec![self.family(relation)];
        while let Some(family) = open.pop() {
            if self.wild.contains(&family) {
                return None;
            }
            for changed in self.cascades.get(&family).into_iter().flatten() {
                self.add(*changed, &mut slots);
                let next = self.family(*changed);
                open.extend(seen.insert(next).then_some(next));
            }
        }
        Some(slots)
    }
}

/// Each member of a family, and the one that it is named by.
fn families(inherits: &[(u32, u32)]) -> Map<u32, u32> {
    let mut neighbours: Map<u32, Vec<u32>> = Map::default();
    for (child, parent) in inherits {
        neighbours.entry(*child).or_default().push(*parent);
        neighbours.entry(*parent).or_default().push(*child);
    }
    let mut families = Map::default();
    for first in neighbours.keys() {
        let mut open = vec![*first];
        while let Some(next) = open.pop() {
            if families.contains_key(&next) {
                continue;
            }
            families.insert(next, *first);
            open.extend(neighbours.get(&next).into_iter().flatten());
        }
    }
    families
}
