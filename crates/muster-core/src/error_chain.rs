//! Chains of errors: keeping the cause of an error, and printing both.
//!
//! An error keeps its cause as its `source`. It is converted to text only where it is printed (in a log line or a
//! command's message), with [`chain`].

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::certificate_names;

/// Prints `error` and all its causes, outermost first: `cannot open the store: disk I/O error`.
pub const fn chain<'a>(error: &'a (dyn Error + 'static)) -> Chain<'a> {
    Chain(error)
}

/// Prints an error and its causes.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Collected first, because each cause is compared with all the text before it.
        let mut text = self.0.to_string();
        let mut next = self.0.source();
        while let Some(error) = next {
            let cause = error.to_string();
            next = error.source();
            // Many libraries already quote the cause in the message of the outer error.
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        f.write_str(&certificate_names::plain(&text))
    }
}

/// The cause of an error. Shared, so that errors can be cloned: one failed transaction is reported to many callers.
///
/// Its text is that of the whole chain. Two causes are equal if their texts are.
#[derive(Clone)]
pub struct SharedError(Arc<dyn Error + Send + Sync>);

impl SharedError {
    /// Adds the operation that failed because of `source`: `sealing a token: the key is too short`.
    pub fn during(what: impl Into<String>, source: impl Into<Self>) -> Self {
        During { what: what.into(), source: source.into() }.into()
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for SharedError {
    fn from(error: E) -> Self {
        Self(Arc::from(error.into()))
    }
}

impl Deref for SharedError {
    type Target = dyn Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        chain(&*self.0).fmt(f)
    }
}

impl fmt::Debug for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl PartialEq for SharedError {
    fn eq(&self, other: &Self) -> bool {
        // The types of the causes are erased, so their texts are all that can be compared.
        self.to_string() == other.to_string()
    }
}

impl Eq for SharedError {}

#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct During {
    what: String,
    source: SharedError,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, thiserror::Error)]
    #[error("the store is closed")]
    struct Closed(#[source] SharedError);

    #[test]
    fn whole_chain_is_printed_and_a_quoted_cause_only_once() {
        let disk = std::io::Error::other("disk full");
        let outer = SharedError::during("starting", Closed(disk.into()));
        assert_eq!(chain(&*outer).to_string(), "starting: the store is closed: disk full");
        assert_eq!(outer.to_string(), chain(&*outer).to_string());
        let quoting = SharedError::during("failed: disk full", std::io::Error::other("disk full"));
        assert_eq!(quoting.to_string(), "failed: disk full");
    }

    #[test]
    fn cause_can_be_found_by_its_type_in_a_clone() {
        let cause = SharedError::during("starting", Closed("why".into())).clone();
        assert!(cause.source().unwrap().is::<Closed>());
    }
}
