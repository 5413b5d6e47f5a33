//! The query language of lists and bulk requests: a subset of KQL (MG §1.14).
//!
//! [`parse`] builds a tree. [`agents`] compiles it into a filter for the store; [`rows`] evaluates it on rows in memory.

pub mod agents;
mod lexer;
mod parser;
pub mod place;
pub mod rows;

use muster_core::{Error, ErrorKind};

pub use parser::parse;

/// A parsed query.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// All of these hold.
    And(Vec<Expr>),
    /// Any of these holds.
    Or(Vec<Expr>),
    /// This does not hold.
    Not(Box<Expr>),
    /// The field has this value.
    Is(String, Term),
    /// The field compares to this value.
    Compare(String, Comparison, String),
    /// Free text.
    Text(Term),
}

/// A value in a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The text. In a pattern, `*` matches any characters.
    pub text: String,
    /// Whether `*` is a wildcard, because the text was neither quoted nor escaped.
    pub pattern: bool,
}

impl Term {
    /// Returns whether the term is `*` alone, which matches if the field exists.
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

/// Creates the error for an invalid or unsupported query.
pub fn syntax_error(reason: impl std::fmt::Display) -> Error {
    // Clients of Kibana recognize the error by this word in the message (MG23).
    let mut error = Error::new(ErrorKind::Invalid, "kql_syntax", format!("KQLSyntaxError: {reason}"));
    error.field = Some("kuery".into());
    error
}

/// Returns the name of a field without the prefix of the saved object type and without `attributes`, which Kibana's
/// clients write.
pub fn plain_field(field: &str, prefixes: &[&str]) -> String {
    let bare = prefixes.iter().find_map(|prefix| field.strip_prefix(prefix)?.strip_prefix('.')).unwrap_or(field);
    bare.strip_prefix("attributes.").unwrap_or(bare).to_owned()
}
