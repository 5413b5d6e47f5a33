//! Rows of any table: read and inserted in batches of bounded size, and encoded for digests.

use super::error::engine;
use super::{CopyError, Side};
use crate::engine::error::EngineError;
use crate::engine::session::{Next, Row, Value};
use crate::sql::copy::Layout;

/// Rows per statement that inserts. With the columns of the widest table, this is far less than the 32,766 parameters of SQLite.
const INSERTED_TOGETHER: usize = 64;

/// Maximum size of a batch. A row that is larger is a batch of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Rows.
    pub(super) rows: u32,
    /// Bytes of strings and blobs.
    pub(super) bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 1024, bytes: 4 * 1024 * 1024 }
    }
}

/// Value of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A row: the values of all columns, in the order of the layout.
pub(super) type Cells = Vec<Cell>;

impl Cell {
    fn of(value: Value<'_>) -> Self {
        match value {
            // A list is only bound: no column has one.
            Value::Null | Value::List(_) | Value::Numbers(_) => Self::Null,
            Value::Integer(number) => Self::Integer(number),
            Value::Text(text) => Self::Text(text.into_owned()),
            Value::Bytes(bytes) => Self::Bytes(bytes.to_owned()),
        }
    }

    fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Integer(number) => Value::Integer(*number),
            Self::Text(text) => Value::Text(text.as_str().into()),
            Self::Bytes(bytes) => Value::Bytes(bytes),
        }
    }

    /// Returns whether PostgreSQL can't store the string.
    pub(super) fn has_nul(&self) -> bool {
        matches!(self, Self::Text(text) if text.contains('\0'))
    }

    /// Replaces what PostgreSQL can't store, as its session does.
    fn without_nul(&mut self) {
        if let Self::Text(text) = self
            && text.contains('\0')
        {
            *text = text.replace('\0', "\u{fffd}");
        }
    }

    /// Appends the encoding: a letter for the type, and the number or the length and the bytes.
    fn encode(&self, out: &mut Vec<u8>) {
        let (letter, number, bytes): (u8, i64, &[u8]) = match self {
            Self::Null => (b'n', 0, &[]),
            Self::Integer(number) => (b'i', *number, &[]),
            Self::Text(text) => (b't', i64::try_from(text.len()).unwrap_or(i64::MAX), text.as_bytes()),
            Self::Bytes(bytes) => (b'b', i64::try_from(bytes.len()).unwrap_or(i64::MAX), bytes),
        };
        // The letter keeps values of different types apart: the number 0, an empty string and NULL differ.
        out.push(letter);
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(bytes);
    }
}

/// Encodes a row. `for_postgres`: as PostgreSQL can store it.
pub(super) fn encode(row: &[Cell], for_postgres: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for cell in row {
        if for_postgres && cell.has_nul() {
            let mut cell = cell.clone();
            cell.without_nul();
            cell.encode(&mut out);
        } else {
            cell.encode(&mut out);
        }
    }
    out
}

/// Returns the key of a row.
pub(super) fn key(table: &Layout, row: &[Cell]) -> Vec<Cell> {
    table.key.iter().map(|at| row[*at].clone()).collect()
}

/// Formats a key for messages.
pub(super) fn describe(key: &[Cell]) -> String {
    let part = |cell: &Cell| match cell {
        Cell::Integer(number) => number.to_string(),
        Cell::Text(text) => text.clone(),
        Cell::Null | Cell::Bytes(_) => "?".to_owned(),
    };
    key.iter().map(part).collect::<Vec<_>>().join("/")
}

/// Returns the number of rows of a table.
pub(super) fn count(side: &dyn Side, table: &Layout) -> Result<u64, CopyError> {
    let mut rows = 0;
    let counted = side.session().query(&table.count(), &[], &mut |row| {
        rows = row.get(0)?;
        Ok(Next::Enough)
    });
    counted.map_err(engine(side.place(), format!("count the rows of {}", table.name)))?;
    Ok(rows)
}

/// Reads the next rows after a key, or the first ones if the key is empty.
pub(super) fn next(side: &dyn Side, table: &Layout, after: &[Cell], limits: Limits) -> Result<Vec<Cells>, CopyError> {
    // Two statements: a batch must be bounded before its rows are in memory, and a row can have megabytes.
    let rows = rows_within(side, table, after, limits)?;
    let values: Vec<_> = after.iter().map(Cell::value).chain([Value::Integer(rows)]).collect();
    read(side, table, &table.rows(!after.is_empty()), &values, after)
}

/// Reads the row with a key. PostgreSQL has keys without NUL.
pub(super) fn find(side: &dyn Side, table: &Layout, key: &[Cell]) -> Result<Option<Cells>, CopyError> {
    let mut key = key.to_vec();
    // The row was stored with the replaced key, so it is found by that key only.
    if side.replaces_nul() {
        key.iter_mut().for_each(Cell::without_nul);
    }
    let values: Vec<_> = key.iter().map(Cell::value).collect();
    Ok(read(side, table, &table.row(), &values, &key)?.pop())
}

/// Returns how many of the next rows fit into a batch, which is at least one: their bytes are counted before they are read.
fn rows_within(side: &dyn Side, table: &Layout, after: &[Cell], limits: Limits) -> Result<i64, CopyError> {
    let values: Vec<_> = after.iter().map(Cell::value).chain([Value::Integer(limits.rows.into())]).collect();
    let (mut rows, mut bytes) = (0, 0_u64);
    let measured = side.session().query(&table.lengths(!after.is_empty()), &values, &mut |row| {
        bytes = bytes.saturating_add(row.get(0)?);
        if rows > 0 && bytes > limits.bytes {
            return Ok(Next::Enough);
        }
        rows += 1;
        Ok(Next::Row)
    });
    measured.map_err(engine(side.place(), format!("measure the rows of {}", table.name)))?;
    // A single row may exceed the limit; a batch of none would be taken for the end of the table.
    Ok(rows.max(1))
}

fn read(
    side: &dyn Side,
    table: &Layout,
    statement: &str,
    values: &[Value<'_>],
    after: &[Cell],
) -> Result<Vec<Cells>, CopyError> {
    let mut rows: Vec<Cells> = Vec::new();
    let mut damaged = None;
    let done = side.session().query(statement, values, &mut |row| {
        let cells = |columns: &mut dyn Iterator<Item = usize>| -> Result<Cells, EngineError> {
            columns.map(|column| cell(row, column)).collect()
        };
        match cells(&mut (0..table.columns.len())) {
            Ok(cells) => {
                rows.push(cells);
                Ok(Next::Row)
            }
            Err(error) => {
                // The key is read again on its own: it tells which row is damaged, unless the damage is in the key.
                damaged = cells(&mut table.key.iter().copied()).ok();
                Err(error)
            }
        }
    });
    match done {
        Ok(()) => Ok(rows),
        Err(source) if source.is_of_the_row() => {
            let last = rows.last().map_or_else(|| after.to_vec(), |row| key(table, row));
            let key = damaged.map_or_else(|| format!("after {}", describe(&last)), |key| describe(&key));
            Err(CopyError::Row { place: side.place().to_string(), table: table.name, key, source })
        }
        Err(source) => Err(engine(side.place(), format!("read {}", table.name))(source)),
    }
}

fn cell(row: &Row<'_>, column: usize) -> Result<Cell, EngineError> {
    row.value(column).map(Cell::of)
}

/// Inserts rows.
pub(super) fn insert(side: &dyn Side, table: &Layout, rows: &[Cells]) -> Result<(), CopyError> {
    for together in rows.chunks(INSERTED_TOGETHER) {
        let values: Vec<_> = together.iter().flatten().map(Cell::value).collect();
        let inserted = side.session().run(&table.insert(together.len()), &values);
        let rows = || {
            let ends = [together.first(), together.last()].map(|row| row.map(|row| describe(&key(table, row))));
            let [first, last] = ends.map(Option::unwrap_or_default);
            format!("insert into {} rows {first} to {last}", table.name)
        };
        inserted.map_err(|error| engine(side.place(), rows())(error))?;
    }
    Ok(())
}
