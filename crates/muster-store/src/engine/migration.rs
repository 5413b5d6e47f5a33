//! Schema migrations: numbered and named files, applied in order.
//!
//! Applied migrations are recorded in the table `schema_migrations` with checksum and time. For rolling upgrades, each says which programs may
//! still use the store after it: an *expanding* migration adds what older programs do not notice, and the *contracting* one, which removes what only they need,
//! comes with a later version. A store whose migrations exclude this program is rejected without a change. So is a contracting migration while a node
//! that it excludes is alive.

use muster_core::audit;

use super::error::OpenError;

/// A migration: its text is in SQLite's dialect, which the other engine translates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Migration {
    pub(crate) number: i64,
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    /// Greatest migration that a program must know, at least, to use the store after this one.
    pub(crate) oldest: i64,
}

/// All migrations, in order. A released migration is never edited, because its checksum would no longer match.
pub(crate) const MIGRATIONS: &[Migration] =
    &[Migration { number: 1, name: "initial", text: include_str!("../../migrations/0001_initial.sql"), oldest: 1 }];

/// Migration recorded in a store.
pub(crate) struct Applied {
    pub(crate) number: i64,
    pub(crate) name: String,
    pub(crate) checksum: String,
    pub(crate) oldest: i64,
}

impl Migration {
    /// Returns the name of the operation, for errors.
    pub(crate) fn doing(&self) -> String {
        format!("migrate the store to {} {}", self.number, self.name)
    }

    /// SHA-256 of its text in hex.
    pub(crate) fn checksum(&self) -> String {
        muster_core::hex::encode(&audit::sha256(&[self.text.as_bytes()]))
    }
}

/// Returns the greatest migration of a list.
pub(crate) fn newest(known: &[Migration]) -> i64 {
    known.iter().map(|known| known.number).max().unwrap_or(0)
}

/// Returns the migrations that a store lacks, in order. Fails if the store has one that this program does not accept.
pub(crate) fn missing<'k>(applied: &[Applied], known: &'k [Migration]) -> Result<Vec<&'k Migration>, OpenError> {
    applied.iter().try_for_each(|found| check(found, known))?;
    let is_missing = |migration: &&Migration| !applied.iter().any(|found| found.number == migration.number);
    Ok(known.iter().filter(is_missing).collect())
}

/// Fails if a store lacks a migration, or has one that this program does not accept.
pub(crate) fn require_all(applied: &[Applied], known: &[Migration], place: &str) -> Result<(), OpenError> {
    match missing(applied, known)?.first() {
        Some(first) => Err(OpenError::Older { place: place.to_owned(), number: first.number, name: first.name }),
        None => Ok(()),
    }
}

/// Fails if a migration of the store is unknown, unless it is newer and admits this program.
fn check(found: &Applied, known: &[Migration]) -> Result<(), OpenError> {
    let Some(migration) = known.iter().find(|known| known.number == found.number) else {
        let newest = newest(known);
        // An expanding migration of a newer program: this one does not notice it, so a rolling upgrade can go on.
        if found.number > newest && found.oldest <= newest {
            return Ok(());
        }
        return Err(OpenError::Newer { found: found.number, known: newest });
    };
    let checksum = migration.checksum();
    // The checksum tells a store of another program, or a schema edited by hand, from one that only has the same
    // number.
    if found.name == migration.name && found.checksum == checksum {
        return Ok(());
    }
    Err(OpenError::Foreign {
        number: found.number,
        found: format!("{} {}", found.name, found.checksum),
        known: format!("{} {checksum}", migration.name),
    })
}
