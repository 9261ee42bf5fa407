//! Rows of the queries as values. No meaning yet.

use super::{CatalogError, queries::SETS};

/// Result sets as the server sent them, every value as text.
pub type Results = [Vec<Vec<Option<String>>>];

#[derive(Debug)]
pub(super) struct Builtin<'r> {
    pub(super) name: &'r str,
    pub(super) volatile: bool,
    pub(super) callable: bool,
}

#[derive(Debug)]
pub(super) struct Function<'r> {
    pub(super) oid: u32,
    pub(super) name: &'r str,
    /// `f`, `p`, `a`, `w`.
    pub(super) kind: &'r str,
    /// `i`, `s`, `v`.
    pub(super) volatility: &'r str,
    pub(super) language: &'r str,
    pub(super) extension: Option<&'r str>,
    pub(super) source: Option<&'r str>,
    /// A body in SQL's own form (`RETURN …`, `BEGIN ATOMIC …`).
    pub(super) sql_body: Option<&'r str>,
    pub(super) defaults: Option<&'r str>,
    pub(super) settings: Option<&'r str>,
    pub(super) attribute: bool,
    pub(super) arguments: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Relation<'r> {
    pub(super) oid: u32,
    pub(super) name: &'r str,
    pub(super) kind: &'r str,
    pub(super) unlogged: bool,
    pub(super) builtin: bool,
    pub(super) shared: bool,
    pub(super) view: Option<&'r str>,
    pub(super) schema: &'r str,
}

#[derive(Debug)]
pub(super) struct Trigger<'r> {
    pub(super) relation: u32,
    pub(super) function: u32,
    pub(super) builtin: Option<&'r str>,
    pub(super) definition: Option<&'r str>,
}

/// Everything, in the order of the queries.
#[derive(Debug)]
pub(super) struct Rows<'r> {
    /// A setting of synchronous_commit; of the session if it has no `=`.
    pub(super) commits: Vec<&'r str>,
    pub(super) builtins: Vec<Builtin<'r>>,
    pub(super) types: Vec<(u32, &'r str)>,
    /// Name, function of a user's operator.
    pub(super) operators: Vec<(&'r str, Option<u32>)>,
    pub(super) functions: Vec<Function<'r>>,
    /// Aggregate, component, the component is good.
    pub(super) aggregates: Vec<(u32, u32, bool)>,
    /// Source, target, function.
    pub(super) casts: Vec<(u32, u32, u32)>,
    pub(super) relations: Vec<Relation<'r>>,
    pub(super) inherits: Vec<(u32, u32)>,
    pub(super) foreign_keys: Vec<(u32, u32)>,
    pub(super) triggers: Vec<Trigger<'r>>,
    pub(super) rules: Vec<(u32, &'r str)>,
    pub(super) policies: Vec<(u32, &'r str)>,
    pub(super) domains: Vec<(u32, &'r str)>,
    /// Relation, domain, function.
    pub(super) uses: Vec<(u32, u32, u32)>,
    pub(super) mentions: Vec<(u32, u32)>,
    pub(super) columns: Vec<(u32, u32)>,
}

/// One row of a set.
#[derive(Clone, Copy)]
struct Row<'r> {
    set: usize,
    values: &'r [Option<String>],
}

impl<'r> Row<'r> {
    fn get(&self, column: usize) -> Option<&'r str> {
        self.values.get(column)?.as_deref()
    }

    fn text(&self, column: usize) -> Result<&'r str, CatalogError> {
        self.get(column).ok_or(CatalogError::Value { set: self.set, column })
    }

    fn oid(&self, column: usize) -> Result<u32, CatalogError> {
        self.text(column)?.parse().map_err(|_| CatalogError::Value { set: self.set, column })
    }

    fn flag(&self, column: usize) -> Result<bool, CatalogError> {
        match self.text(column)? {
            "t" => Ok(true),
            "f" => Ok(false),
            _ => Err(CatalogError::Value { set: self.set, column }),
        }
    }

    fn pair(&self) -> Result<(u32, u32), CatalogError> {
        Ok((self.oid(0)?, self.oid(1)?))
    }

    fn triple(&self) -> Result<(u32, u32, u32), CatalogError> {
        Ok((self.oid(0)?, self.oid(1)?, self.oid(2)?))
    }

    fn builtin(&self) -> Result<Builtin<'r>, CatalogError> {
        Ok(Builtin { name: self.text(0)?, volatile: self.flag(1)?, callable: !self.flag(2)? })
    }

    fn function(&self) -> Result<Function<'r>, CatalogError> {
        let arguments = self.text(11)?.split_ascii_whitespace().map(str::parse);
        Ok(Function {
            oid: self.oid(0)?,
            name: self.text(1)?,
            kind: self.text(2)?,
            volatility: self.text(3)?,
            language: self.text(4)?,
            extension: self.get(5),
            source: self.get(6),
            sql_body: self.get(7),
            defaults: self.get(8),
            settings: self.get(9),
            attribute: self.flag(10)?,
            arguments: arguments
                .collect::<Result<_, _>>()
                .map_err(|_| CatalogError::Value { set: self.set, column: 11 })?,
        })
    }

    fn relation(&self) -> Result<Relation<'r>, CatalogError> {
        Ok(Relation {
            oid: self.oid(0)?,
            name: self.text(1)?,
            kind: self.text(2)?,
            unlogged: self.text(3)? != "p",
            builtin: self.flag(4)?,
            shared: self.flag(5)?,
            view: self.get(6),
            schema: self.text(7)?,
        })
    }

    fn trigger(&self) -> Result<Trigger<'r>, CatalogError> {
        Ok(Trigger {
            relation: self.oid(0)?,
            function: self.oid(1)?,
            builtin: self.get(2),
            definition: self.get(3),
        })
    }
}

impl<'r> Rows<'r> {
    pub(super) fn read(results: &'r Results) -> Result<Self, CatalogError> {
        if results.len() != SETS {
            return Err(CatalogError::Sets(results.len()));
        }
        let mut sets = results.iter().enumerate();
        let mut next = || {
            let (set, rows) = sets.next().map_or((SETS, &[][..]), |(set, rows)| (set, rows.as_slice()));
            rows.iter().map(move |values| Row { set, values })
        };
        Ok(Self {
            commits: next().map(|row| row.text(1)).collect::<Result<_, _>>()?,
            builtins: next().map(|row| row.builtin()).collect::<Result<_, _>>()?,
            types: next().map(|row| Ok((row.oid(0)?, row.text(1)?))).collect::<Result<_, _>>()?,
            operators: next().map(|row| operator(&row)).collect::<Result<_, _>>()?,
            functions: next().map(|row| row.function()).collect::<Result<_, _>>()?,
            aggregates: next()
                .map(|row| Ok((row.oid(0)?, row.oid(1)?, row.flag(2)?)))
                .collect::<Result<_, _>>()?,
            casts: next().map(|row| row.triple()).collect::<Result<_, _>>()?,
            relations: next().map(|row| row.relation()).collect::<Result<_, _>>()?,
            inherits: next().map(|row| row.pair()).collect::<Result<_, _>>()?,
            foreign_keys: next().map(|row| row.pair()).collect::<Result<_, _>>()?,
            triggers: next().map(|row| row.trigger()).collect::<Result<_, _>>()?,
            rules: next().map(|row| Ok((row.oid(0)?, row.text(1)?))).collect::<Result<_, _>>()?,
            policies: next().map(|row| Ok((row.oid(0)?, row.text(1)?))).collect::<Result<_, _>>()?,
            domains: next().map(|row| Ok((row.oid(0)?, row.text(1)?))).collect::<Result<_, _>>()?,
            uses: next().map(|row| row.triple()).collect::<Result<_, _>>()?,
            mentions: next().map(|row| row.pair()).collect::<Result<_, _>>()?,
            columns: next().map(|row| row.pair()).collect::<Result<_, _>>()?,
        })
    }
}

fn operator<'r>(row: &Row<'r>) -> Result<(&'r str, Option<u32>), CatalogError> {
    Ok((row.text(0)?, row.get(1).map(|_| row.oid(1)).transpose()?))
}
