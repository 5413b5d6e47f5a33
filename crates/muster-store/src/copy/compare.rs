//! Digests of tables, and the first row that differs.
//!
//! The digest of a table is the sum, modulo 2^256, of the SHA-256 of each row. It therefore does not depend on the order of the rows,
//! which differs between engines if NUL in a key was replaced.

use muster_core::audit::sha256;
use muster_core::hex;

use super::rows::{Cell, Cells, Limits, describe, encode, find, key, next};
use super::{CopyError, Side};
use crate::sql::copy::Layout;

/// What is done with a batch of rows.
type Work<'w> = dyn FnMut(&[Cells]) -> Result<(), CopyError> + 'w;

/// Two stores to compare.
pub(super) struct Comparison<'c> {
    pub(super) from: &'c dyn Side,
    pub(super) to: &'c dyn Side,
    pub(super) limits: Limits,
}

/// Digest of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest {
    rows: u64,
    sum: [u8; 32],
}

impl Digest {
    fn add(&mut self, hash: &[u8; 32]) {
        self.rows += 1;
        // Addition, not XOR: with XOR, two equal rows would cancel out.
        let mut carry = false;
        for (byte, other) in self.sum.iter_mut().zip(hash).rev() {
            let (sum, first) = byte.overflowing_add(*other);
            let (sum, second) = sum.overflowing_add(carry.into());
            (*byte, carry) = (sum, first || second);
        }
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn hex(&self) -> String {
        hex::encode(&self.sum)
    }
}

impl Comparison<'_> {
    /// Returns the digest of a table, which is the same on both sides. Fails with the first row that differs.
    pub(super) fn table(
        &self,
        table: &Layout,
        report: &mut dyn FnMut(usize) -> Result<(), CopyError>,
    ) -> Result<Digest, CopyError> {
        // Both sides are read completely before they are compared: the digest of the source is part of the report.
        let source = self.digest(self.from, table, report)?;
        let target = self.digest(self.to, table, &mut |_| Ok(()))?;
        if source == target { Ok(source) } else { Err(self.difference(table)?) }
    }

    fn digest(
        &self,
        side: &dyn Side,
        table: &Layout,
        report: &mut dyn FnMut(usize) -> Result<(), CopyError>,
    ) -> Result<Digest, CopyError> {
        let mut digest = Digest::default();
        self.each(side, table, &mut |batch| {
            // Each row is encoded with lengths, so that moving a byte from one column to the next changes its hash.
            batch.iter().for_each(|row| digest.add(&sha256(&[&self.encode(row)])));
            report(batch.len())
        })?;
        Ok(digest)
    }

    fn encode(&self, row: &[Cell]) -> Vec<u8> {
        encode(row, self.from.replaces_nul() || self.to.replaces_nul())
    }

    fn each(&self, side: &dyn Side, table: &Layout, work: &mut Work<'_>) -> Result<(), CopyError> {
        let mut after = Vec::new();
        loop {
            // By key, not by offset: a row that is added meanwhile must not shift all later ones.
            let batch = next(side, table, &after, self.limits)?;
            let Some(last) = batch.last() else { return Ok(()) };
            after = key(table, last);
            work(&batch)?;
        }
    }

    /// Finds the first row that differs.
    fn difference(&self, table: &Layout) -> Result<CopyError, CopyError> {
        let differs =
            |row: &[Cell], found| CopyError::Differs { table: table.name, key: describe(&key(table, row)), found };
        let found = self.each(self.from, table, &mut |batch| {
            batch.iter().try_for_each(|row| match find(self.to, table, &key(table, row))? {
                None => Err(differs(row, "it is missing in the target")),
                Some(copy) if self.encode(&copy) != self.encode(row) => Err(differs(row, "its values differ")),
                Some(_) => Ok(()),
            })
        });
        // Only rows that the first pass could not see are left: those that exist in the target alone.
        let found = found.and_then(|()| {
            self.each(self.to, table, &mut |batch| {
                batch.iter().try_for_each(|row| match find(self.from, table, &key(table, row))? {
                    None => Err(differs(row, "it is missing in the source")),
                    Some(_) => Ok(()),
                })
            })
        });
        match found {
            Err(found) => Ok(found),
            // Each row has its copy, but the sums differ: a store was changed while they were read.
            Ok(()) => Err(CopyError::Changed(self.to.place().to_string())),
        }
    }
}
