//! Statements with their values, in the form in which they are sent.

use std::borrow::Cow;
use std::future::poll_fn;
use std::task::Poll;

use futures_util::future::maybe_done;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type};
use tokio_postgres::{Client, Statement};

use crate::engine::error::{Cause, EngineError};
use crate::engine::session::{Cells, Result, Usual, Value};

/// A statement in the form in which it is sent.
pub(super) enum Prepared {
    /// Prepared on this connection.
    Named(Statement),
    /// Sent as text each time, with the types of its values, so that no additional round trip is needed.
    Unnamed(String),
}

impl Prepared {
    pub(super) async fn execute(
        &self,
        client: &Client,
        values: &[Value<'_>],
    ) -> std::result::Result<u64, tokio_postgres::Error> {
        match self {
            Self::Named(statement) => client.execute(statement, &bound(values)).await,
            Self::Unnamed(text) => client.execute_typed(text, &typed(values)).await,
        }
    }

    pub(super) async fn query(
        &self,
        client: &Client,
        values: &[Value<'_>],
    ) -> std::result::Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
        match self {
            Self::Named(statement) => client.query(statement, &bound(values)).await,
            Self::Unnamed(text) => client.query_typed(text, &typed(values)).await,
        }
    }
}

fn bound<'v>(values: &'v [Value<'_>]) -> Vec<&'v (dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

fn typed<'v>(values: &'v [Value<'_>]) -> Vec<(&'v (dyn ToSql + Sync), Type)> {
    values.iter().map(|value| (value as &(dyn ToSql + Sync), kind(value))).collect()
}

fn kind(value: &Value<'_>) -> Type {
    match value {
        // The server infers the type, as for a literal.
        Value::Null => Type::UNKNOWN,
        Value::Integer(_) => Type::INT8,
        Value::Text(_) => Type::TEXT,
        Value::Bytes(_) => Type::BYTEA,
        Value::List(_) => Type::TEXT_ARRAY,
        Value::Numbers(_) => Type::INT8_ARRAY,
    }
}

/// A change that is sent with a later statement.
pub(super) struct Deferred {
    statement: Prepared,
    values: Packed,
    usual: Usual,
    /// The job that it belongs to.
    pub(super) job: usize,
}

/// Values as they are sent.
struct Packed {
    bytes: BytesMut,
    /// Type and end of each value; NULL has no end.
    ends: Vec<(Type, Option<usize>)>,
}

/// A value as it is sent.
#[derive(Debug)]
struct Sent<'p>(Option<&'p [u8]>);

impl Deferred {
    pub(super) fn new(statement: Prepared, values: &[Value<'_>], usual: Usual, job: usize) -> Result<Self> {
        let values = match &statement {
            // The types that the server inferred when it prepared the statement, not those of the values.
            Prepared::Named(named) => Packed::of(values, named.params().iter().cloned()),
            Prepared::Unnamed(_) => Packed::of(values, values.iter().map(kind)),
        };
        Ok(Self { statement, values: values?, usual, job })
    }

    /// Returns the size of the values in bytes.
    pub(super) fn len(&self) -> usize {
        self.values.bytes.len()
    }

    async fn execute(&self, client: &Client) -> std::result::Result<u64, tokio_postgres::Error> {
        let values = self.values.iter();
        match &self.statement {
            // The values are in wire form already, so they outlive the borrowed ones of the caller.
            Prepared::Named(statement) => client.execute_raw(statement, values.map(|(value, _)| value)).await,
            Prepared::Unnamed(text) => {
                let values: Vec<_> = values.collect();
                let values: Vec<(&(dyn ToSql + Sync), Type)> =
                    values.iter().map(|(value, kind)| (value as &(dyn ToSql + Sync), (*kind).clone())).collect();
                client.execute_typed(text, &values).await
            }
        }
    }

    /// Returns an error if the change failed, or its result is not the usual one.
    pub(super) fn check(&self, rows: std::result::Result<u64, tokio_postgres::Error>) -> Result<()> {
        let rows = rows?;
        if self.usual.is(rows) {
            return Ok(());
        }
        Err(EngineError::new(Cause::Other, format!("a change that was sent ahead affected {rows} rows")))
    }
}

impl Packed {
    fn of(values: &[Value<'_>], types: impl ExactSizeIterator<Item = Type>) -> Result<Self> {
        if types.len() != values.len() {
            return Err(EngineError::new(Cause::Other, format!("{} values for {}", values.len(), types.len())));
        }
        let mut packed = Self { bytes: BytesMut::new(), ends: Vec::with_capacity(values.len()) };
        // One buffer for all values of a change: thousands of changes may be waiting.
        for (value, kind) in values.iter().zip(types) {
            let sent = value.to_sql(&kind, &mut packed.bytes).map_err(|error| EngineError::new(Cause::Other, error))?;
            let end = matches!(sent, IsNull::No).then_some(packed.bytes.len());
            packed.ends.push((kind, end));
        }
        Ok(packed)
    }

    fn iter(&self) -> impl ExactSizeIterator<Item = (Sent<'_>, &Type)> {
        let mut start = 0;
        self.ends.iter().map(move |(kind, end)| {
            // `start` is moved to the end of each value. NULL takes no bytes.
            let bytes = end.map(|end| &self.bytes[std::mem::replace(&mut start, end)..end]);
            (Sent(bytes), kind)
        })
    }
}

/// Sends all changes in this order before the first reply is read. Returns the results in the same order.
pub(super) async fn send(
    client: &Client,
    changes: &[Deferred],
) -> Vec<std::result::Result<u64, tokio_postgres::Error>> {
    let mut running: Vec<_> = changes.iter().map(|change| Box::pin(maybe_done(change.execute(client)))).collect();
    // The first poll of each queues its message.
    poll_fn(|context| {
        for change in &mut running {
            let _ = change.as_mut().poll(context);
        }
        Poll::Ready(())
    })
    .await;
    let mut results = Vec::with_capacity(running.len());
    // In order, although all run at the same time: the caller pairs results with changes.
    for mut change in running {
        change.as_mut().await;
        results.extend(change.as_mut().take_output());
    }
    results
}

impl ToSql for Sent<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(bytes) = self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        type_: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.to_sql(type_, out)
    }
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        type_: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            // If a placeholder is combined with literals only, the server infers a smaller integer type.
            Self::Integer(number) if *type_ == Type::INT4 => i32::try_from(*number)?.to_sql(type_, out),
            Self::Integer(number) if *type_ == Type::INT8 => number.to_sql(type_, out),
            Self::Text(text) if <&str as ToSql>::accepts(type_) => without_nul(text).as_ref().to_sql(type_, out),
            Self::List(words) if *type_ == Type::TEXT_ARRAY => {
                words.iter().map(|word| without_nul(word)).collect::<Vec<_>>().to_sql(type_, out)
            }
            Self::Numbers(numbers) if *type_ == Type::INT8_ARRAY => (&**numbers).to_sql(type_, out),
            Self::Bytes(bytes) if *type_ == Type::BYTEA => bytes.to_sql(type_, out),
            // An error instead of a cast: the server would compare or store something else.
            other => Err(format!("cannot convert {other:?} to a column of type {type_}").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        type_: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.to_sql(type_, out)
    }
}

/// PostgreSQL strings can't contain NUL, which a host can put into a name. Ids and keys never contain one, so that no look-up
/// matches a wrong row.
fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

impl Cells for tokio_postgres::Row {
    fn value(&self, column: usize) -> Result<Value<'_>> {
        let Some(found) = self.columns().get(column) else {
            return Err(EngineError::row(format!("there is no column {column}")));
        };
        let value = match *found.type_() {
            Type::INT8 => self.try_get::<_, Option<i64>>(column)?.map(Value::Integer),
            Type::INT4 => self.try_get::<_, Option<i32>>(column)?.map(|number| Value::Integer(number.into())),
            Type::BYTEA => self.try_get::<_, Option<&[u8]>>(column)?.map(Value::Bytes),
            // Names and other texts have several types in PostgreSQL, all of which read as strings.
            _ => self.try_get::<_, Option<&str>>(column)?.map(|text| Value::Text(Cow::Borrowed(text))),
        };
        Ok(value.unwrap_or(Value::Null))
    }

    fn name(&self, column: usize) -> String {
        self.columns().get(column).map_or("?", tokio_postgres::Column::name).to_owned()
    }
}
