//! The query language of lists and bulk requests: a subset of KQL (MG §1.14).
//!
//! [`parse`] makes a tree; [`agents`] compiles it into what the store can ask; [`rows`] holds it against rows in memory.

pub mod agents;
mod lexer;
mod parser;
pub mod rows;

use muster_core::{Error, ErrorKind};

pub use parser::parse;

/// A parsed query.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// All of these.
    And(Vec<Expr>),
    /// Any of these.
    Or(Vec<Expr>),
    /// Not this.
    Not(Box<Expr>),
    /// The field has this value.
    Is(String, Term),
    /// The field compares so with this value.
    Compare(String, Comparison, String),
    /// Free text.
    Text(Term),
}

/// What a field is held against.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The text; in a pattern, `*` stands for anything.
    pub text: String,
    /// Whether `*` in it is a wildcard: it was not quoted.
    pub pattern: bool,
}

impl Term {
    /// Whether it is `*` alone: the field is there.
    pub fn is_any(&self) -> bool {
        self.pattern && self.text == "*"
    }
}

/// `<`, `<=`, `>`, `>=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

/// A query that is none, or that can't be answered.
pub fn syntax_error(reason: impl std::fmt::Display) -> Error {
    let mut error = Error::new(ErrorKind::Invalid, "kql_syntax", format!("KQLSyntaxError: {reason}"));
    error.field = Some("kuery".into());
    error
}

/// The field's own name: without the list's prefix and without `attributes`.
pub fn plain_field(field: &str, prefixes: &[&str]) -> String {
    let bare = prefixes.iter().find_map(|prefix| field.strip_prefix(prefix)?.strip_prefix('.')).unwrap_or(field);
    bare.strip_prefix("attributes.").unwrap_or(bare).to_owned()
}
