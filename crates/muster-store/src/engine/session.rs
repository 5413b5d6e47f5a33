//! Interface between the statements of a resource and a connection of an engine.
//!
//! The functions of the resources ([`super::agents`], [`super::actions`] …) are written once, over this trait. A session belongs
//! to one thread, and its methods block it.

use std::borrow::Cow;
use std::sync::Arc;

use super::error::EngineError;
use crate::port::{FencingToken, LeaseName, NodeStanding, StoreError};

/// Result of a statement.
pub(crate) type Result<T> = std::result::Result<T, EngineError>;

/// The type of a session in the functions of the resources.
pub(crate) type Connection = dyn Session;

/// Return value of the callback of a query.
pub(crate) enum Next {
    /// Continue with the next row.
    Row,
    /// Stop.
    Enough,
}

/// A rule that spans rows, which neither record versions nor constraints can enforce. On an engine with several
/// writers, a decision that depends on it takes its lock first and holds it until the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A policy is not deleted while agents are on it; at most one output of a space is the default.
    References,
    /// An agent's uploads stay within its quota.
    Uploads,
    /// An administrator remains, and what a binding refers to exists.
    Identity,
    /// An agent stays in the space for which a change was authorized. Exclusive for changes of an agent's space.
    Spaces,
    /// The programs of a host are bound to the same client certificate.
    Certificates,
    /// The index of software agrees with the lists of hosts.
    Software,
    /// The runs of a space stay within their limits, and an installer is not deleted while hosts need it. A rule of its own: these changes
    /// can take seconds, and enrollments need [`Self::References`].
    Runs,
}

/// The usual result of a change, by which an engine need not wait for the actual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usual {
    /// The number of affected rows does not matter to the caller.
    Anything,
    /// At least one row is affected.
    Affected,
    /// No row is affected.
    Unaffected,
}

impl Usual {
    /// Returns whether this number of affected rows is usual.
    pub(crate) fn is(self, rows: u64) -> bool {
        match self {
            Self::Anything => true,
            Self::Affected => rows > 0,
            Self::Unaffected => rows == 0,
        }
    }

    /// Returns a usual number of affected rows.
    pub(crate) fn rows(self) -> usize {
        usize::from(self == Self::Affected)
    }
}

/// How the changes of a job are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Each change is finished before the next one is sent.
    StepByStep,
    /// Changes may be sent before the results of earlier ones are known. Contains the index of the job.
    Ahead(usize),
}

/// Holder of a lease of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// This node, with the number of its token.
    ThisNode(i64),
    /// Another node that is alive.
    AnotherNode,
    /// Nobody, or a node that is lost.
    Nobody,
}

/// The leases of work among several nodes.
pub(crate) trait Leases {
    /// Returns who holds a lease now.
    fn holder(&self, lease: LeaseName) -> Result<Holder>;

    /// Takes a lease for this node, within a transaction. `None` if another live node holds it.
    fn take(&self, lease: LeaseName) -> Result<Option<i64>>;

    /// Returns true if this node holds the lease of the token, which no other node can take until the end of the transaction.
    fn holds(&self, token: &FencingToken) -> Result<bool>;

    /// Releases a lease, within a transaction.
    fn release(&self, token: &FencingToken) -> Result<()>;
}

/// A connection of an engine, used by one thread.
pub(crate) trait Session: Send {
    /// Runs a change, and returns the number of affected rows.
    fn run(&self, statement: &str, values: &[Value<'_>]) -> Result<usize>;

    /// Runs a change that usually has this result. In a job that runs ahead, an engine may send it later, and return the usual
    /// result. If the actual one differs, or the change fails, a later call of the transaction fails, and
    /// [`Self::suspect`] returns the job.
    fn run_usually(&self, statement: &str, values: &[Value<'_>], _usual: Usual) -> Result<usize> {
        self.run(statement, values)
    }

    /// Runs a query, and passes its rows to `each` until it returns [`Next::Enough`].
    fn query(
        &self,
        statement: &str,
        values: &[Value<'_>],
        each: &mut dyn FnMut(&Row<'_>) -> Result<Next>,
    ) -> Result<()>;

    /// Begins a transaction that writes. A transaction that an earlier failure left open is rolled back first.
    fn begin(&self) -> Result<()>;

    /// Begins a transaction in which all reads see the same state.
    fn begin_snapshot(&self) -> Result<()>;

    /// Begins a job of the transaction. Returns the pace of its changes, which an engine may reduce. A job that runs ahead has
    /// no savepoint: its failure is a failure of the transaction.
    fn set_pace(&self, _pace: Pace) -> Result<Pace> {
        Ok(Pace::StepByStep)
    }

    /// Waits for the changes that were sent ahead. Fails if one of them failed, or had an unusual result.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Returns the job whose change, sent ahead, made the transaction fail. The transaction may succeed if this job runs step by
    /// step.
    fn suspect(&self) -> Option<usize> {
        None
    }

    /// Sets a savepoint for [`Self::back_to_mark`] and [`Self::release_mark`].
    fn mark(&self) -> Result<()>;

    /// Rolls back to the savepoint.
    fn back_to_mark(&self) -> Result<()>;

    /// Releases the savepoint.
    fn release_mark(&self) -> Result<()>;

    /// Commits. The error shows whether the transaction was certainly not applied.
    fn commit(&self) -> std::result::Result<(), Uncommitted>;

    /// Rolls back, unless the engine has done so by itself.
    fn roll_back(&self) -> Result<()>;

    /// Takes the exclusive lock of a rule until the end of the transaction. Does nothing on an engine with one writer.
    fn lock(&self, _rule: Rule) -> Result<()> {
        Ok(())
    }

    /// Takes the shared lock of a rule until the end of the transaction, which excludes [`Self::lock`].
    fn lock_shared(&self, _rule: Rule) -> Result<()> {
        Ok(())
    }

    /// Returns the standing of the node that this session belongs to.
    fn standing(&self) -> NodeStanding {
        NodeStanding::alone()
    }

    /// Returns the leases of a store with several nodes; `None` if there is one node, which always holds all leases.
    fn leases(&self) -> Option<&dyn Leases> {
        None
    }

    /// Returns whether a failed statement leaves its transaction unchanged, so that a job of one statement needs no
    /// savepoint.
    fn is_statement_atomic(&self) -> bool {
        true
    }

    /// Returns whether a transaction that failed with this error, and was certainly not applied, may succeed if it is
    /// retried.
    fn may_retry(&self, _error: &EngineError) -> bool {
        false
    }

    /// Frees what is kept only to make later statements faster: cached pages and prepared statements. Works in a transaction as well.
    fn release_memory(&self) -> Result<()> {
        Ok(())
    }

    /// Called once, after the last write.
    fn finish(&self) -> Result<()> {
        Ok(())
    }

    /// The engine's own connection, for fault tests.
    #[cfg(test)]
    fn as_any(&self) -> &dyn std::any::Any;
}

/// Error of a commit.
#[derive(Debug)]
pub(crate) struct Uncommitted {
    /// The error, which shows whether the transaction was certainly not applied.
    pub(crate) error: StoreError,
    /// Whether the same transaction may succeed if it is retried. True only if it was certainly not applied.
    pub(crate) may_retry: bool,
}

impl Uncommitted {
    /// Creates the error of a commit that must not be retried.
    pub(crate) fn finally(error: StoreError) -> Self {
        Self { error, may_retry: false }
    }
}

/// A bound value, or the value of a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'v> {
    Null,
    Integer(i64),
    Text(Cow<'v, str>),
    Bytes(&'v [u8]),
    // SQLite receives it as JSON text, PostgreSQL as an array.
    /// Strings of a list, bound as one value so that their number does not change the statement. Never read.
    List(Vec<&'v str>),
    /// Numbers of a list, bound in the same way.
    Numbers(Cow<'v, [i64]>),
}

/// A row of a result, valid during a callback.
pub(crate) struct Row<'r>(&'r dyn Cells);

/// An engine's row.
pub(crate) trait Cells {
    /// Returns the value of a column.
    fn value(&self, column: usize) -> Result<Value<'_>>;
    /// Returns the name of a column, for error messages.
    fn name(&self, column: usize) -> String;
}

impl<'r> Row<'r> {
    pub(crate) fn of(cells: &'r dyn Cells) -> Self {
        Self(cells)
    }

    /// Returns a column.
    pub(crate) fn get<T: FromValue>(&self, column: usize) -> Result<T> {
        T::from_value(self.value(column)?).map_err(|found| self.unreadable(column, found))
    }

    /// Returns a column without conversion.
    // Not `get`: columns whose type is not known in advance, such as those of a copy.
    pub(crate) fn value(&self, column: usize) -> Result<Value<'r>> {
        self.0.value(column)
    }

    /// Creates the error for a column with an invalid value.
    pub(crate) fn unreadable(&self, column: usize, what: impl std::fmt::Display) -> EngineError {
        EngineError::row(format!("column {}: {what}", self.0.name(column)))
    }
}

impl Value<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Integer(_) => "an integer",
            Self::Text(_) => "a text",
            Self::Bytes(_) => "bytes",
            Self::List(_) | Self::Numbers(_) => "a list",
        }
    }
}

macro_rules! values_from_integers {
    ($($type:ty),+) => {
        $(impl From<$type> for Value<'_> {
            fn from(number: $type) -> Self {
                // Only types that fit into 64 bits are listed, so the conversion can't fail.
                Self::Integer(number.into())
            }
        })+
    };
}
values_from_integers!(i64, i32, u32, bool);

/// Borrows any value that can be bound.
impl<'v, T: ToValue + ?Sized> From<&'v T> for Value<'v> {
    fn from(value: &'v T) -> Self {
        value.to_value()
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl<'v, T: Into<Value<'v>>> From<Option<T>> for Value<'v> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A type as which a column can be read.
pub(crate) trait FromValue: Sized {
    /// Converts the value. The error is what was found instead.
    fn from_value(value: Value<'_>) -> std::result::Result<Self, &'static str>;
}

impl FromValue for i64 {
    fn from_value(value: Value<'_>) -> std::result::Result<Self, &'static str> {
        match value {
            Value::Integer(number) => Ok(number),
            other => Err(other.kind()),
        }
    }
}

macro_rules! narrower_integers {
    ($($type:ty),+) => {
        $(impl FromValue for $type {
            fn from_value(value: Value<'_>) -> std::result::Result<Self, &'static str> {
                // Checked: a negative number in a column of counts is a damaged row, not a huge count.
                Self::try_from(i64::from_value(value)?).map_err(|_| "an integer out of range")
            }
        })+
    };
}
narrower_integers!(i32, u32, u64, usize);

impl FromValue for bool {
    fn from_value(value: Value<'_>) -> std::result::Result<Self, &'static str> {
        // Both engines store booleans as integers; the schema has no other type for them.
        i64::from_value(value).map(|number| number != 0)
    }
}

impl FromValue for String {
    fn from_value(value: Value<'_>) -> std::result::Result<Self, &'static str> {
        match value {
            Value::Text(text) => Ok(text.into_owned()),
            other => Err(other.kind()),
        }
    }
}

impl FromValue for Arc<str> {
    fn from_value(value: Value<'_>) -> std::result::Result<Self, &'static str> {
        match value {
            Value::Text(text) => Ok(text.as_ref().into()),
            other => Err(other.kind()),
        }
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: Value<'_>) -> std::result::Result<Self, &'static str> {
        match value {
            Value::Bytes(bytes) => Ok(bytes.to_owned()),
            other => Err(other.kind()),
        }
    }
}

impl FromValue for [u8; 32] {
    fn from_value(value: Value<'_>) -> std::result::Result<Self, &'static str> {
        match value {
            Value::Bytes(bytes) => bytes.try_into().map_err(|_| "a byte string of another length than 32"),
            other => Err(other.kind()),
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value<'_>) -> std::result::Result<Self, &'static str> {
        match value {
            Value::Null => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }
}

/// A type that can be bound.
pub(crate) trait ToValue {
    fn to_value(&self) -> Value<'_>;
}

macro_rules! bound_integers {
    ($($type:ty),+) => {
        $(impl ToValue for $type {
            fn to_value(&self) -> Value<'_> {
                Value::Integer((*self).into())
            }
        })+
    };
}
// No `u64` and `usize`: neither engine can store all of their values.
bound_integers!(i64, i32, u32, bool);

impl ToValue for str {
    fn to_value(&self) -> Value<'_> {
        Value::Text(Cow::Borrowed(self))
    }
}

impl ToValue for String {
    fn to_value(&self) -> Value<'_> {
        self.as_str().to_value()
    }
}

impl ToValue for Arc<str> {
    fn to_value(&self) -> Value<'_> {
        self.as_ref().to_value()
    }
}

impl ToValue for [u8] {
    fn to_value(&self) -> Value<'_> {
        Value::Bytes(self)
    }
}

impl ToValue for Vec<&str> {
    fn to_value(&self) -> Value<'_> {
        Value::List(self.clone())
    }
}

impl ToValue for Vec<i64> {
    fn to_value(&self) -> Value<'_> {
        Value::Numbers(Cow::Borrowed(self))
    }
}

impl<const N: usize> ToValue for [u8; N] {
    fn to_value(&self) -> Value<'_> {
        Value::Bytes(self)
    }
}

impl ToValue for Vec<u8> {
    fn to_value(&self) -> Value<'_> {
        Value::Bytes(self)
    }
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn to_value(&self) -> Value<'_> {
        (**self).to_value()
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn to_value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, ToValue::to_value)
    }
}

/// The values of a statement.
pub(crate) trait Params {
    /// Passes the values to `take`.
    fn with<R>(self, take: impl FnOnce(&[Value<'_>]) -> R) -> R;
}

impl Params for &[&dyn ToValue] {
    fn with<R>(self, take: impl FnOnce(&[Value<'_>]) -> R) -> R {
        let values: Vec<Value<'_>> = self.iter().map(|value| value.to_value()).collect();
        take(&values)
    }
}

impl<const N: usize> Params for &[&dyn ToValue; N] {
    fn with<R>(self, take: impl FnOnce(&[Value<'_>]) -> R) -> R {
        // Without an allocation.
        take(&self.map(|value| value.to_value()))
    }
}

impl Params for Vec<Value<'_>> {
    fn with<R>(self, take: impl FnOnce(&[Value<'_>]) -> R) -> R {
        take(&self)
    }
}

impl<const N: usize> Params for [&str; N] {
    fn with<R>(self, take: impl FnOnce(&[Value<'_>]) -> R) -> R {
        take(&self.map(|text| Value::Text(Cow::Borrowed(text))))
    }
}

impl<const N: usize> Params for [i64; N] {
    fn with<R>(self, take: impl FnOnce(&[Value<'_>]) -> R) -> R {
        take(&self.map(Value::Integer))
    }
}

impl<const N: usize> Params for [u32; N] {
    fn with<R>(self, take: impl FnOnce(&[Value<'_>]) -> R) -> R {
        take(&self.map(|number| Value::Integer(number.into())))
    }
}

/// No value.
impl Params for () {
    fn with<R>(self, take: impl FnOnce(&[Value<'_>]) -> R) -> R {
        take(&[])
    }
}

/// The values of a statement, in order.
macro_rules! params {
    ($($value:expr),+ $(,)?) => {
        &[$(&$value as &dyn crate::engine::session::ToValue),+]
    };
}
pub(crate) use params;
