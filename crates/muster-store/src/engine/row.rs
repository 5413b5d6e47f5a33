//! Conversion of rows to fields.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use muster_core::credential::{LiveCredential, LiveCredentials, SecretHash};
use muster_core::id::{
    ActionId, AgentId, BindingId, ClusterId, EnrollmentKeyId, FileId, HostCheckId, HostId, HostRunId, InstallerId,
    KeyId, LabelId, LiveQueryId, NetworkObjectId, NodeId, OutputId, PolicyId, ProviderId, RoleId, SavedScriptId,
    SecretId, SpaceId, TokenId, UninstallTokenId, UserId,
};
use muster_core::identity::UserCode;
use muster_core::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Cause, EngineError};
use super::session::{Connection, FromValue, Next, Params, Row, ToValue, Usual, Value};
use super::unreadable;
use super::words::Word;
use crate::query::{Page, Readable};
use crate::sql::filter::{Bound, Composed};

/// Result of a statement.
pub(super) use super::session::Result;

/// Reads the columns of a row from left to right, in the order of the statement.
pub(super) struct Columns<'r, 'cells> {
    row: &'r Row<'cells>,
    next: usize,
}

/// Id that can be read from a column.
pub(super) trait StoredId {
    /// Parses the id.
    fn stored(text: Arc<str>) -> Self;
}

macro_rules! stored_ids {
    ($($id:ident),+) => {
        $(impl StoredId for $id {
            fn stored(text: Arc<str>) -> Self {
                // Trusted: every id was validated before it was stored, and a rule that became stricter must not hide
                // old rows.
                Self::trusted(text)
            }
        })+
    };
}
stored_ids!(
    ActionId,
    AgentId,
    BindingId,
    ClusterId,
    EnrollmentKeyId,
    FileId,
    HostCheckId,
    HostId,
    HostRunId,
    KeyId,
    LabelId,
    LiveQueryId,
    NetworkObjectId,
    NodeId,
    OutputId,
    PolicyId,
    ProviderId,
    RoleId,
    SavedScriptId,
    InstallerId,
    SecretId,
    SpaceId,
    TokenId,
    UninstallTokenId,
    UserId
);

impl<'r, 'cells> Columns<'r, 'cells> {
    /// Starts at the first column.
    // Columns are read by position. Each reader lists its fields in the order of its statement.
    pub(super) fn of(row: &'r Row<'cells>) -> Self {
        Self { row, next: 0 }
    }

    /// Returns the next column.
    pub(super) fn take<T: FromValue>(&mut self) -> Result<T> {
        let value = self.row.get(self.next)?;
        self.next += 1;
        Ok(value)
    }

    fn unreadable(&self, what: impl fmt::Display) -> EngineError {
        self.row.unreadable(self.next.saturating_sub(1), what)
    }

    /// Returns an id.
    pub(super) fn id<T: StoredId>(&mut self) -> Result<T> {
        Ok(T::stored(self.take()?))
    }

    /// Returns an optional id.
    pub(super) fn id_option<T: StoredId>(&mut self) -> Result<Option<T>> {
        Ok(self.take::<Option<Arc<str>>>()?.map(T::stored))
    }

    /// Returns a time.
    pub(super) fn time(&mut self) -> Result<Timestamp> {
        Ok(Timestamp::from_micros(self.take()?))
    }

    /// Returns an optional time.
    pub(super) fn time_option(&mut self) -> Result<Option<Timestamp>> {
        Ok(self.take::<Option<i64>>()?.map(Timestamp::from_micros))
    }

    /// Returns a boolean.
    pub(super) fn flag(&mut self) -> Result<bool> {
        Ok(self.take::<i64>()? != 0)
    }

    /// Returns a count.
    pub(super) fn count(&mut self) -> Result<u64> {
        // Counts are never negative; a damaged one must not make a page unreadable.
        Ok(self.take::<i64>()?.unsigned_abs())
    }

    /// Returns a SHA-256.
    pub(super) fn sha256(&mut self) -> Result<[u8; 32]> {
        self.take()
    }

    /// Returns the code of a device.
    pub(super) fn user_code(&mut self) -> Result<UserCode> {
        let text: String = self.take()?;
        UserCode::parse(&text).ok_or_else(|| self.unreadable("no code"))
    }

    /// Returns a hash that is stored as text.
    pub(super) fn secret_hash(&mut self) -> Result<SecretHash> {
        let text: String = self.take()?;
        SecretHash::decode(&text).ok_or_else(|| self.unreadable("no hash"))
    }

    /// Returns live credentials: key id, kind, hash, time and, if it is bound, certificate of each with spaces between, and
    /// commas between two.
    pub(super) fn credentials(&mut self) -> Result<LiveCredentials> {
        let text: Option<String> = self.take()?;
        // Aggregated by the statement, so that reading an agent is one row and one query.
        let all = text.iter().flat_map(|text| text.split(','));
        all.map(|text| live_credential(text).ok_or_else(|| self.unreadable("no credential"))).collect()
    }

    /// Returns a value that is stored as JSON.
    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        match self.json_option()? {
            Some(value) => Ok(value),
            None => Err(self.unreadable("NULL")),
        }
    }

    /// Returns an optional value that is stored as JSON.
    pub(super) fn json_option<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let Some(text) = self.text()? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| self.unreadable(error))
    }

    /// Returns a string without copying it, where the engine allows it.
    fn text(&mut self) -> Result<Option<Cow<'r, str>>> {
        let column = self.next;
        self.next += 1;
        match self.row.value(column)? {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            _ => Err(self.unreadable("not a text")),
        }
    }

    /// Returns a value that is stored as a word.
    pub(super) fn word<T: Word>(&mut self) -> Result<T> {
        match self.word_option()? {
            Some(value) => Ok(value),
            None => Err(self.unreadable("no word")),
        }
    }

    /// Returns an optional value that is stored as a word.
    pub(super) fn word_option<T: Word>(&mut self) -> Result<Option<T>> {
        // Borrowed from the row where the engine allows it: words are compared, never kept.
        let Some(word) = self.text()? else { return Ok(None) };
        T::from_word(&word).map(Some).ok_or_else(|| self.unreadable(format_args!("unknown word {word:?}")))
    }
}

fn live_credential(text: &str) -> Option<LiveCredential> {
    let mut parts = text.split(' ');
    let mut next = || parts.next();
    Some(LiveCredential {
        key_id: KeyId::trusted(next()?),
        kind: Word::from_word(next()?)?,
        hash: SecretHash::decode(next()?)?,
        issued_at: Timestamp::from_micros(next()?.parse().ok()?),
        certificate: match next() {
            Some(names) => Some(SecretHash::decode(names)?),
            None => None,
        },
    })
}

/// Serializes a value to the JSON of its column.
///
/// For strings, ids and JSON values only, whose serialization cannot fail.
pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| EngineError::new(Cause::Other, error))
}

/// Returns the first row, if any.
pub(super) fn first<T>(
    connection: &Connection,
    statement: &'static str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> Result<T>,
) -> Result<Option<T>> {
    // The statement may return more rows; only the first is decoded.
    let (mut read, mut found) = (Some(read), None);
    params.with(|values| {
        connection.query(statement, values, &mut |row| {
            if let Some(read) = read.take() {
                found = Some(read(row)?);
            }
            Ok(Next::Enough)
        })
    })?;
    Ok(found)
}

/// Returns all rows.
pub(super) fn all<T>(
    connection: &Connection,
    statement: &'static str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    params.with(|values| collect(connection, statement, values, read))
}

fn collect<T>(
    connection: &Connection,
    statement: &str,
    values: &[Value<'_>],
    mut read: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut found = Vec::new();
    connection.query(statement, values, &mut |row| {
        found.push(read(row)?);
        Ok(Next::Row)
    })?;
    Ok(found)
}

/// Returns all rows that can be read, for lists of `what`. Others are logged and omitted: one unreadable row must not
/// make the whole list unavailable.
pub(super) fn readable<T>(
    connection: &Connection,
    what: &'static str,
    statement: &'static str,
    params: impl Params,
    mut read: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let found = all(connection, statement, params, |row| unless_unreadable(what, || row_name(row), read(row)))?;
    Ok(found.into_iter().flatten().collect())
}

/// Returns the first `limit` rows that can be read. A page has fewer rows only at the end of its list, so that a reader
/// does not mistake unreadable rows for the end.
pub(super) fn readable_page<T>(
    connection: &Connection,
    what: &'static str,
    statement: &'static str,
    params: impl Params,
    limit: u32,
    mut read: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Readable<T>> {
    params.with(|values| {
        let mut window = i64::from(limit);
        loop {
            let bound: Vec<Value<'_>> = values
                .iter()
                // The limit is bound, so its place in the list differs from statement to statement. The marker finds
                // it.
                .map(|value| if *value == Value::Integer(UNLIMITED) { Value::Integer(window) } else { value.clone() })
                .collect();
            let (mut found, mut rows) = (Vec::new(), 0);
            connection.query(statement, &bound, &mut |row| {
                rows += 1;
                found.extend(unless_unreadable(what, || row_name(row), read(row))?);
                Ok(if found.len() < limit as usize { Next::Row } else { Next::Enough })
            })?;
            // Fewer rows than asked for: the end of the table, not a gap.
            if found.len() >= limit as usize || rows < window {
                let unreadable = rows - i64::try_from(found.len()).unwrap_or(rows);
                return Ok(Readable { items: found, unreadable: u64::try_from(unreadable).unwrap_or(0) });
            }
            // Reads from the beginning again: unreadable rows are rare, and doubling keeps the number of attempts
            // small.
            window = window.saturating_mul(2);
        }
    })
}

/// Placeholder for the limit of a statement of [`readable_page`], which replaces it by the number of rows that fill the
/// page.
pub(super) const UNLIMITED: i64 = i64::MAX;
/// Minimum number of keys that are read at once after unreadable rows.
const LOOK_ON: u32 = 100;

/// Returns a page of the results of `read` for the keys of a list. Keys without a result are replaced by the ones after
/// the page.
pub(super) fn filled<K, T>(
    page: Page,
    keys: impl Fn(Page) -> Result<Vec<K>>,
    mut read: impl FnMut(K) -> Result<Option<T>>,
) -> Result<Readable<T>> {
    let (mut next, mut found, mut unreadable) = (page, Vec::new(), 0);
    loop {
        let keys = keys(next)?;
        let looked_at = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        for key in keys {
            if found.len() < page.limit as usize {
                match read(key)? {
                    Some(row) => found.push(row),
                    None => unreadable += 1,
                }
            }
        }
        let missing = page.limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        // Fewer keys than asked for means that the list ends here.
        if missing == 0 || looked_at < next.limit {
            return Ok(Readable { items: found, unreadable });
        }
        next = Page { offset: next.offset.saturating_add(looked_at), limit: missing.max(LOOK_ON) };
    }
}

/// Returns the value; `None` for an unreadable row, which is logged.
pub(super) fn unless_unreadable<T>(
    what: &'static str,
    name: impl FnOnce() -> String,
    read: Result<T>,
) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_of_the_row() => {
            unreadable::log(what, &name(), &error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Returns the first column, which is the id in every list.
fn row_name(row: &Row<'_>) -> String {
    row.get(0).unwrap_or_default()
}

/// Returns whether there is a row.
pub(super) fn any(connection: &Connection, statement: &'static str, params: impl Params) -> Result<bool> {
    Ok(first(connection, statement, params, |_| Ok(()))?.is_some())
}

/// Returns the count of a statement.
pub(super) fn count(connection: &Connection, statement: &'static str, params: impl Params) -> Result<u64> {
    Ok(first(connection, statement, params, |row| Columns::of(row).count())?.unwrap_or(0))
}

/// Runs a change, and returns the number of affected rows.
pub(super) fn run(connection: &Connection, statement: &'static str, params: impl Params) -> Result<usize> {
    params.with(|values| connection.run(statement, values))
}

/// Runs a change whose number of affected rows does not matter.
pub(super) fn send(connection: &Connection, statement: &'static str, params: impl Params) -> Result<()> {
    params.with(|values| connection.run_usually(statement, values, Usual::Anything)).map(drop)
}

/// Runs a change that usually affects a row. Returns whether it did.
pub(super) fn affects(connection: &Connection, statement: &'static str, params: impl Params) -> Result<bool> {
    params.with(|values| connection.run_usually(statement, values, Usual::Affected)).map(|rows| rows > 0)
}

impl ToValue for Bound {
    fn to_value(&self) -> Value<'_> {
        match self {
            Self::Integer(number) => Value::Integer(*number),
            Self::Text(text) => Value::Text(Cow::Borrowed(text)),
            Self::List(words) => Value::List(words.iter().map(String::as_str).collect()),
        }
    }
}

/// Returns all rows of a composed statement.
pub(super) fn all_composed<T>(
    connection: &Connection,
    composed: &Composed,
    read: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let values: Vec<Value<'_>> = composed.values.iter().map(ToValue::to_value).collect();
    collect(connection, &composed.text, &values, read)
}

/// Returns the count of a composed statement.
pub(super) fn count_composed(connection: &Connection, composed: &Composed) -> Result<u64> {
    let counts = all_composed(connection, composed, |row| Columns::of(row).count())?;
    // A count always has a row; without one, nothing matches.
    Ok(counts.into_iter().next().unwrap_or(0))
}
