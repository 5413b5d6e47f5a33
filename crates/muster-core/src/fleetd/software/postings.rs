//! The index from software to hosts: for each software, the numbers of the hosts that have it, in chunks of 4,096.
//!
//! A host that changes one package changes two chunks, whatever the size of the fleet.

use std::collections::BTreeMap;

use super::{SoftwareId, unpacked};
use crate::id::SpaceId;

/// Hosts in a chunk.
pub const CHUNK: u32 = 4_096;
const WORDS: usize = CHUNK as usize / 64;
/// Bytes of a bitmap. A list of places, two bytes each, is always shorter.
const BITMAP: usize = CHUNK as usize / 8;

/// Places of hosts in a chunk: a set of numbers below [`CHUNK`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places([u64; WORDS]);

impl Default for Places {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl Places {
    /// Adds or removes a place.
    pub fn set(&mut self, place: u16, is_there: bool) {
        let (word, bit) = (usize::from(place) / 64 % WORDS, 1 << (place % 64));
        if is_there { self.0[word] |= bit } else { self.0[word] &= !bit }
    }

    /// Returns the number of places.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Iterates over the places in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        (0..CHUNK as u16).filter(|place| self.0[usize::from(*place) / 64] >> (place % 64) & 1 == 1)
    }

    /// Returns the stored form: a bitmap, or the list of places if that is shorter.
    pub fn encoded(&self) -> Vec<u8> {
        if self.len() * 2 >= BITMAP as u64 {
            return self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        }
        self.iter().flat_map(u16::to_le_bytes).collect()
    }

    /// Reads the stored form.
    pub fn decoded(bytes: &[u8]) -> Self {
        let mut places = Self::default();
        if bytes.len() == BITMAP {
            let words =
                bytes.chunks_exact(8).map(|word| word.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)));
            places.0.iter_mut().zip(words).for_each(|(place, word)| *place = word);
        } else {
            let all = bytes.chunks_exact(2).map(|place| u16::from_le_bytes([place[0], place[1]]));
            all.for_each(|place| places.set(place, true));
        }
        places
    }
}

/// The list of a host in a space, packed.
pub type Placed<'a> = Option<(&'a SpaceId, &'a [u8])>;

/// A chunk of the index: the space and the number of the chunk.
pub type ChunkKey = (SpaceId, u32);
/// Changes of a chunk: for each software, the places that are added or removed.
pub type ChunkChanges = BTreeMap<SoftwareId, Vec<(u16, bool)>>;

/// Changes of the index.
#[derive(Debug, Default)]
pub struct Changes {
    /// By chunk.
    pub chunks: BTreeMap<ChunkKey, ChunkChanges>,
    /// Number of pairs of a host and software.
    pub pairs: usize,
}

impl Changes {
    /// Adds what changes for a host between the list that the index has and the one that it must have.
    pub fn add(&mut self, number: u32, before: Placed<'_>, after: Placed<'_>) {
        let is_moved = before.map(|(space, _)| space) != after.map(|(space, _)| space);
        let list = |placed: Placed<'_>| placed.map(|(_, list)| list.to_vec()).unwrap_or_default();
        let (old, new) = (list(before), list(after));
        let (kept_old, kept_new): (&[u8], &[u8]) = if is_moved { (&[], &[]) } else { (&old, &new) };
        self.add_all(number, before, only_in(&old, kept_new), false);
        self.add_all(number, after, only_in(&new, kept_old), true);
    }

    fn add_all(&mut self, number: u32, placed: Placed<'_>, ids: Vec<SoftwareId>, is_there: bool) {
        let Some((space, _)) = placed.filter(|_| !ids.is_empty()) else { return };
        self.pairs += ids.len();
        let chunk = self.chunks.entry((space.clone(), number / CHUNK)).or_default();
        let place = (number % CHUNK) as u16;
        for id in ids {
            chunk.entry(id).or_default().push((place, is_there));
        }
    }
}

/// Returns the ids of a list that another list does not have. Both are sorted.
fn only_in(list: &[u8], other: &[u8]) -> Vec<SoftwareId> {
    let mut others = unpacked(other).peekable();
    let is_missing = |id: &SoftwareId| {
        while others.next_if(|other| other < id).is_some() {}
        others.peek() != Some(id)
    };
    unpacked(list).filter(is_missing).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::packed;
    use super::*;

    fn id(number: i64) -> SoftwareId {
        SoftwareId::from_number(number).unwrap()
    }

    fn list(numbers: &[i64]) -> Vec<u8> {
        packed(numbers.iter().map(|number| id(*number)))
    }

    #[test]
    fn only_what_changed_is_touched() {
        let (blue, red) = (SpaceId::trusted("blue"), SpaceId::trusted("red"));
        let (old, new) = (list(&[1, 2, 3]), list(&[2, 3, 5]));
        let mut changes = Changes::default();
        changes.add(CHUNK + 7, Some((&blue, &old)), Some((&blue, &new)));
        let expected: ChunkChanges = [(id(1), vec![(7, false)]), (id(5), vec![(7, true)])].into();
        assert_eq!((changes.chunks.remove(&(blue.clone(), 1)), changes.pairs), (Some(expected), 2));
        changes.add(0, Some((&blue, &old)), Some((&blue, &old)));
        assert_eq!((changes.chunks.len(), changes.pairs), (0, 2), "nothing for an equal list");
        changes.add(0, Some((&blue, &old)), Some((&red, &old)));
        assert_eq!(changes.chunks[&(blue.clone(), 0)].values().flatten().collect::<Vec<_>>(), [&(0, false); 3]);
        assert_eq!(changes.chunks[&(red, 0)].values().flatten().collect::<Vec<_>>(), [&(0, true); 3]);
        changes = Changes::default();
        changes.add(0, Some((&blue, &old)), None);
        assert_eq!(changes.pairs, 3);
    }

    proptest! {
        #[test]
        fn places_are_read_back_and_never_longer_than_a_bitmap(
            places in prop_oneof![prop::collection::btree_set(0_u16..4096, 0..20), prop::collection::btree_set(0_u16..4096, 200..900)],
            removed in 0_u16..4096,
        ) {
            let mut set = Places::default();
            places.iter().for_each(|place| set.set(*place, true));
            set.set(removed, false);
            let expected: BTreeSet<u16> = places.into_iter().filter(|place| *place != removed).collect();
            let encoded = set.encoded();
            prop_assert!(encoded.len() <= BITMAP.min(expected.len() * 2 + 1));
            let read = Places::decoded(&encoded);
            prop_assert_eq!(read.iter().collect::<BTreeSet<_>>(), expected.clone());
            prop_assert_eq!((read.len(), read.is_empty()), (expected.len() as u64, expected.is_empty()));
        }

        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Places::decoded(&bytes).encoded();
        }
    }
}
