//! Classification of PostgreSQL's errors.

use tokio_postgres::error::SqlState;

use crate::engine::error::{Cause, EngineError};
use crate::port::Precondition;

impl From<tokio_postgres::Error> for EngineError {
    fn from(error: tokio_postgres::Error) -> Self {
        let cause = cause(&error);
        // The driver's own text is "db error"; the message of the server is its source.
        match error.as_db_error() {
            Some(told) => {
                let hint = match cause {
                    Cause::Pooler => "; for a pooler in transaction mode, add prepared=none to the address",
                    _ => "",
                };
                let text = format!("{} (SQLSTATE {}){hint}", told.message(), told.code().code());
                Self::new(cause, text)
            }
            None => Self::new(cause, error),
        }
    }
}

fn cause(error: &tokio_postgres::Error) -> Cause {
    let Some(told) = error.as_db_error() else {
        // On this side, only the connection can fail, or a value can have the wrong type, which is a mistake in a
        // statement.
        return if error.is_closed() || is_of_connection(error) { Cause::Connection } else { Cause::Other };
    };
    let code = told.code();
    match code.code() {
        "23505" | "23P01" => Cause::Constraint(Precondition::Exists(told.message().to_owned())),
        // `MARK_COMMIT` inserts NULL if the node's lease is lost.
        "23502" if told.table() == Some("commits") => Cause::Fenced,
        "23503" => Cause::Constraint(Precondition::Missing(format!("what it refers to ({})", told.message()))),
        // Deadlock, serialization failure, a lock that was not given in time.
        "40001" | "40P01" | "55P03" => Cause::Busy,
        "53100" => Cause::ServerRoom,
        "25006" => Cause::ReadOnly,
        "53300" => Cause::TooManyConnections,
        // A name that is unknown, or in use already.
        "26000" | "42P05" => Cause::Pooler,
        _ if *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED => Cause::File,
        // The server ends this session: shutdown, start-up, recovery, or a timeout of a transaction that sat idle.
        // A restart of the server sends 57P01: connecting again is enough.
        "57P01" | "57P02" | "57P03" | "25P03" | "25P04" => Cause::Connection,
        class if class.starts_with("08") => Cause::Connection,
        _ => Cause::Other,
    }
}

fn is_of_connection(error: &tokio_postgres::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.is::<std::io::Error>() {
            return true;
        }
        source = error.source();
    }
    false
}
