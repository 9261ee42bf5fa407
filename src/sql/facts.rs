//! What the rules ask of a database. The catalog answers; tests answer for themselves.
//!
//! Names come folded and without schema, as in [`Catalog`], where each question is explained.

use super::{Catalog, Names};

/// Answers about a database; whatever is not known has the dangerous answer.
pub trait Facts {
    fn is_unknown(&self) -> bool;
    fn function_is_safe(&self, name: &[u8]) -> bool;
    fn function_reads_anything(&self, name: &[u8]) -> bool;
    fn function_writes_nothing(&self, name: &[u8]) -> bool;
    fn function_touches_session(&self, name: &[u8]) -> bool;
    fn relation_touches_session(&self, name: &[u8]) -> bool;
    /// Of a database in which an operator that a keyword stands for (LIKE, IN, DISTINCT, …) or a cast that is not
    /// written is not safe: every identifier.
    fn is_tainted(&self, name: &[u8]) -> bool;
    fn tainted_may_write(&self, name: &[u8]) -> bool;
    fn operator_is_safe(&self, operator: &[u8]) -> bool;
    fn add_reads(&self, name: &[u8], slots: &mut Vec<u16>) -> bool;
    fn writes_of(&self, name: &[u8]) -> Names;
}

impl Facts for Catalog {
    fn is_unknown(&self) -> bool {
        self.is_unknown()
    }

    fn function_is_safe(&self, name: &[u8]) -> bool {
        self.function_is_safe(name)
    }

    fn function_reads_anything(&self, name: &[u8]) -> bool {
        self.function_reads_anything(name)
    }

    fn function_writes_nothing(&self, name: &[u8]) -> bool {
        self.function_writes_nothing(name)
    }

    fn function_touches_session(&self, name: &[u8]) -> bool {
        // What is no function in a text is syntax, or an error.
        (self.is_unknown() || self.is_function(name)) && self.function_touches_session(name)
    }

    fn relation_touches_session(&self, name: &[u8]) -> bool {
        self.relation_touches_session(name)
    }

    fn is_tainted(&self, name: &[u8]) -> bool {
        self.is_tainted(name)
    }

    fn tainted_may_write(&self, name: &[u8]) -> bool {
        self.tainted_may_write(name)
    }

    fn operator_is_safe(&self, operator: &[u8]) -> bool {
        self.operator_is_safe(operator)
    }

    fn add_reads(&self, name: &[u8], slots: &mut Vec<u16>) -> bool {
        self.add_reads(name, slots)
    }

    fn writes_of(&self, name: &[u8]) -> Names {
        self.writes_of(name)
    }
}
